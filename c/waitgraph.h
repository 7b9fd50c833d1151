/*
 * waitgraph.h - who waits for whom, as the backends' slots tell it.
 */
#ifndef DSMR_WAITGRAPH_H
#define DSMR_WAITGRAPH_H

#include "control.h"

/*
 * Does the backend in `slot`, which has published what it waits for, wait in the end for
 * itself? Under the table lock: so of a cycle exactly one member, which then takes its
 * publication back before it lets the lock go, finds out.
 */
bool waitgraph_has_cycle(const struct control *control, uint32_t slot);

#endif

/*
 * init_once.h - giving up an initialisation.
 */
#ifndef DSMR_INIT_ONCE_H
#define DSMR_INIT_ONCE_H

#include "backend.h"

/* Gives up an entry that is INITIALIZING by us, with the word it had then. */
int32_t init_once_give_up(struct backend *backend, uint32_t index, uint32_t word,
                          dsmr_error *error);

#endif

/*
 * tranche.h - named families of locks: what a wait shows up as.
 *
 * A lock carries its tranche's id; the name and the counters are here. A segment's own lock
 * needs no row: see TRANCHE_OF_ENTRY.
 */
#ifndef DSMR_TRANCHE_H
#define DSMR_TRANCHE_H

#include "control.h"

/* Under the table lock. Returns the id, or 0 if all rows are taken. `owner`: the id of the
 * segment that it goes with, or 0. */
uint32_t tranche_create(struct control *control, const char *name, uint32_t name_length,
                        uint64_t owner);
/* Under the table lock. False if there is no such tranche. */
bool tranche_remove(struct control *control, uint32_t id);
/* Under the table lock: removes what goes with a segment. */
void tranche_forget_segment(struct control *control, uint64_t segment_id);

bool tranche_exists(const struct control *control, uint32_t id);

/* The name of a tranche; its length, 0 if there is no such tranche (any more). */
uint32_t tranche_name(const struct control *control, uint32_t id, char name[DSMR_NAME_SIZE]);

/* The counters to add to, or NULL. */
struct lock_counters *tranche_counters(const struct control *control, uint32_t id);

#endif

/*
 * claim.h - from a lock's handle to the claim behind it.
 */
#ifndef DSMR_CLAIM_H
#define DSMR_CLAIM_H

#include "handle.h"
#include "lwlock.h"

/* The claim behind a handle, if it is the calling thread's; else CLOSED or UNSUPPORTED. */
int32_t claim_find(uint32_t handle, struct claim **found);

/* The place in the file of `length` bytes at an offset of the user's; else SIZE_INVALID. */
int32_t claim_place(const struct attachment *attachment, uint32_t low, uint32_t high,
                    uint32_t length, uint64_t *place, dsmr_error *error);

/* The rest of the calls in lock_pair.c. */

/* dsmr_lock_acquire, when it is not had at once. */
int32_t claim_acquire(uint32_t lock, uint32_t mode, int32_t timeout_ms);
/* The same, shared, where the lock was BIASed. */
int32_t claim_acquire_marked(struct claim *claim, int32_t timeout_ms);
/* The same, shared, of one who has marked itself as a reader and met another owner word than 0. */
int32_t claim_acquire_anew(struct claim *claim, int32_t timeout_ms);
/* dsmr_lock_try, the whole; and, exclusively, of one who has met an owner or readers. */
int32_t claim_try(uint32_t lock, uint32_t mode);
int32_t claim_try_anew(struct claim *claim);
/* dsmr_lock_release, of what is not held. */
int32_t claim_release(uint32_t lock);

/*
 * Somebody who blocks this lock is dead. Reaps; and, should the lock name backends that the
 * table does not know, which only damaged memory does, takes those out: nobody else would.
 * Returns 0, or why the table lock is not to be had.
 */
int32_t claim_clear_the_dead(struct claim *claim);

#endif

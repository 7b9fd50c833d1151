/*
 * lock_pair.c - taking and releasing a lock that nobody is in the way of: the paths that are
 * built for speed. See lwlock_path.h for what they cost before.
 *
 * Whatever else there is to do to take it is the last thing that each does, so that the compiler
 * jumps there: a call in the middle would have every pass save registers for it, needed or not.
 * Letting go does have such calls: without them a shared pair took some 1 ns more from Deno, by a
 * delay in the processor that we do not understand, and no pair took less from anywhere.
 */
#include "claim.h"
#include "lwlock_path.h"

/* A claim that may ask for its lock at once, or NULL: then the slow path finds out. */
static inline struct claim *find_idle(uint32_t lock) {
  struct claim *claim = handle_find(lock, HANDLE_LOCK);
  if (claim == NULL || claim->state != CLAIM_IDLE || claim->journal == NULL) return NULL;
  return claim;
}

bool lwlock_try_mark(struct claim *claim) {
  const struct lwlock *lock = claim->lock;
  /* Another lock that we hold may have the cell. */
  if (atomic_load_explicit(claim->mark, memory_order_relaxed) != 0) return false;
  /* Sequentially consistent, both, as with a bit; pairs with the claim and lwlock_readers. */
  (void)atomic_exchange(claim->mark, claim->record | LWLOCK_SHARED);
  if (is_in_the_way(atomic_load(&lock->owner) ^ LOCK_BIAS)) {
    lwlock_unmark_cell(claim);
    claim->is_marking = false;
    return false;
  }
  claim->is_marked = true;
  (void)held(claim, LWLOCK_SHARED, 0);
  return true;
}

void lwlock_unmark_cell(struct claim *claim) {
  const struct lwlock *lock = claim->lock;
  claim->is_marked = false;
  /* Sequentially consistent, both; the other side of sleep_until_drained. The record is there
   * until we have told it: a reaper does, if we die before. */
  (void)atomic_exchange(claim->mark, claim->record | HELD_UNMARKED);
  if (is_claimed(atomic_load(&lock->owner))) lwlock_notify_claimant(claim->lock);
  atomic_store_explicit(claim->mark, 0, memory_order_release);
}

int32_t dsmr_lock_acquire(uint32_t lock, uint32_t mode, int32_t timeout_ms) {
  struct claim *claim = find_idle(lock);
  if (claim == NULL) return claim_acquire(lock, mode, timeout_ms);
  if (mode == DSMR_SHARED) {
    if (claim->is_marking) return claim_acquire_marked(claim, timeout_ms);
    if (mark_reader(claim) != 0) return claim_acquire_anew(claim, timeout_ms);
    return held(claim, LWLOCK_SHARED, 0);
  }
  if (mode == DSMR_EXCLUSIVE && try_owner(claim) == 0) {
    int32_t outcome = enter_claimed(claim, 0);
    if (outcome != LWLOCK_BUSY) return outcome;
  }
  /* Goes on from where it is; what is in the journal, if we are not in, is what it writes. */
  return claim_acquire(lock, mode, timeout_ms);
}

int32_t dsmr_lock_try(uint32_t lock, uint32_t mode) {
  struct claim *claim = find_idle(lock);
  /* Not even for a moment do we keep readers out of a lock that we do not get. */
  if (claim == NULL || mode != DSMR_EXCLUSIVE || has_reader_bits(claim->lock)) {
    return claim_try(lock, mode);
  }
  if (try_owner(claim) == 0) {
    int32_t outcome = enter_claimed(claim, 0);
    if (outcome != LWLOCK_BUSY) return outcome;
  }
  return claim_try_anew(claim);
}

int32_t dsmr_lock_release(uint32_t lock) {
  struct claim *claim = handle_find(lock, HANDLE_LOCK);
  if (claim == NULL || claim->state != CLAIM_HELD) return claim_release(lock);
  leave(claim);
  return 0;
}

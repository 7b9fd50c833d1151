/*
 * lwlock_path.h - the steps into and out of a lock, which lock.c takes at once where nobody is
 * in the way, and lwlock_wait.c between two sleeps. The protocol is explained in lwlock.c.
 *
 * Inline: without a call between them, and the journal's cell kept from time to time, a pair
 * went from 1.9 to 1.4 times a bare compare-and-swap and exchange (`lock pairs`, bench/lock.c).
 */
#ifndef DSMR_LWLOCK_PATH_H
#define DSMR_LWLOCK_PATH_H

#include "lwlock.h"

/* ---- predicates --------------------------------------------------------------------- */

static inline bool is_claimed(uint32_t owner) { return LOCK_TOKEN(owner) != 0; }

static inline bool has_readers(const struct lwlock *lock) {
  /* Sequentially consistent: the writer's half of Dekker. */
  return (atomic_load(&lock->readers[0]) | atomic_load(&lock->readers[1]) |
          atomic_load(&lock->readers[2]) | atomic_load(&lock->readers[3])) != 0;
}

/* ---- the journal -------------------------------------------------------------------- */

/*
 * Release on the store: everything later, above all the lock's own words, is ordered behind
 * it by the sequentially consistent operation that follows.
 */
static inline void journal_write(struct claim *claim, enum lwlock_mode mode) {
  atomic_store_explicit(claim->journal, claim->record | (uint64_t)mode, memory_order_release);
}

static inline void journal_clear(struct claim *claim) {
  /* Release: after the mark itself was taken away. */
  atomic_store_explicit(claim->journal, 0, memory_order_release);
}

/* ---- coming in ---------------------------------------------------------------------- */

/* From here on, a death leaves the lock abandoned. */
static inline void step_inside(struct claim *claim) {
  /* Relaxed: only a reaper reads it, which runs after we are dead. The fence keeps the
   * compiler from moving the caller's stores before it. */
  atomic_store_explicit(&claim->lock->phase, claim->token, memory_order_relaxed);
  atomic_signal_fence(memory_order_seq_cst);
}

static inline int32_t held(struct claim *claim, enum lwlock_mode mode, uint32_t owner) {
  claim->state = CLAIM_HELD;
  claim->mode = (uint8_t)mode;
  return mode == LWLOCK_EXCLUSIVE && (owner & LOCK_POISON) != 0 ? LWLOCK_ACQUIRED_ABANDONED
                                                                : LWLOCK_ACQUIRED;
}

/* Somebody else has waited long, and what we want would be in its way. */
bool lwlock_must_queue(const struct claim *claim, enum lwlock_mode mode, uint32_t owner);
/* The rest of the attempt, where the owner word is not what one hopes for. */
int32_t lwlock_enter_shared_slowly(struct claim *claim, uint32_t owner);
int32_t lwlock_enter_exclusive_slowly(struct claim *claim, uint32_t keep, uint32_t owner);

/* One attempt. ACQUIRED..., or BUSY with the claim as before (never DRAINING). */
static inline int32_t enter_shared(struct claim *claim) {
  journal_write(claim, LWLOCK_SHARED);
  /* Sequentially consistent, both: the reader's half of Dekker. */
  atomic_fetch_or(claim->readers, claim->reader_bit);
  uint32_t owner = atomic_load(&claim->lock->owner);
  if (owner == 0) return held(claim, LWLOCK_SHARED, owner);
  return lwlock_enter_shared_slowly(claim, owner);
}

/* We have the owner word. ACQUIRED..., or BUSY and DRAINING. */
static inline int32_t enter_claimed(struct claim *claim, uint32_t owner) {
  claim->mode = LWLOCK_EXCLUSIVE;
  if (has_readers(claim->lock)) {
    claim->state = CLAIM_DRAINING;
    return LWLOCK_BUSY;
  }
  step_inside(claim);
  return held(claim, LWLOCK_EXCLUSIVE, owner);
}

/* One attempt. ACQUIRED..., or BUSY: as before, or DRAINING. `keep`: WAITERS, if we slept. */
static inline int32_t enter_exclusive(struct claim *claim, uint32_t keep) {
  journal_write(claim, LWLOCK_EXCLUSIVE);
  uint32_t owner = 0;
  if (atomic_compare_exchange_strong(&claim->lock->owner, &owner, claim->token | keep)) {
    return enter_claimed(claim, owner);
  }
  return lwlock_enter_exclusive_slowly(claim, keep, owner);
}

/* ---- going out ----------------------------------------------------------------------- */

/* Tells a claimant that sleeps that a reader has gone. */
void lwlock_notify_claimant(struct lwlock *lock);
/* Clears the owner word but for what outlives us, and wakes who comes next. */
void lwlock_disclaim_slowly(struct claim *claim);

static inline void disclaim(struct claim *claim) {
  uint32_t mine = claim->token;
  /* Release; pairs with the compare-and-swap and the loads of who comes next. */
  if (!atomic_compare_exchange_strong_explicit(&claim->lock->owner, &mine, 0, memory_order_release,
                                               memory_order_relaxed)) {
    lwlock_disclaim_slowly(claim);
  }
}

/* The claim must be HELD. */
static inline void leave(struct claim *claim) {
  struct lwlock *lock = claim->lock;
  if (claim->mode == LWLOCK_EXCLUSIVE) {
    /* Release: the caller's stores come before it, so a death after it has left nothing
     * half-done. */
    atomic_store_explicit(&lock->phase, 0, memory_order_release);
    disclaim(claim);
  } else {
    /* Sequentially consistent; with the look at the owner word it is the other side of
     * sleep_until_drained. */
    atomic_fetch_and(claim->readers, ~claim->reader_bit);
    if (atomic_load(&lock->owner) != 0) lwlock_notify_claimant(lock);
  }
  journal_clear(claim);
  claim->state = CLAIM_IDLE;
}

#endif

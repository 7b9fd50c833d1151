/*
 * lwlock_path.h - the steps into and out of a lock, which lock.c takes at once where nobody is
 * in the way, and lwlock_wait.c between two sleeps. The protocol is explained in lwlock.c.
 *
 * Inline: without a call between them, and the journal's cell kept from time to time, a pair
 * went from 1.9 to 1.4 times a bare compare-and-swap and exchange (`deno task bench -- --only=locks`).
 */
#ifndef DSMR_LWLOCK_PATH_H
#define DSMR_LWLOCK_PATH_H

#include "lwlock.h"

/* ---- predicates --------------------------------------------------------------------- */

static inline bool is_claimed(uint32_t owner) { return LOCK_TOKEN(owner) != 0; }

/* Of what may stand in an owner word, WAITERS alone keeps no reader out, nor from BIAS: it may stay
 * when nobody sleeps any more, until the next writer. */
static inline bool is_in_the_way(uint32_t owner) { return (owner & ~LOCK_WAITERS) != 0; }

/* All that there are, unless the lock is BIASed. */
static inline bool has_reader_bits(const struct lwlock *lock) {
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
/* One attempt, in either mode: as enter_shared or enter_exclusive. */
int32_t lwlock_enter(struct claim *claim, enum lwlock_mode mode);
/* The rest of the attempt, where the owner word is not what one hopes for. */
int32_t lwlock_enter_shared_slowly(struct claim *claim, uint32_t owner);
int32_t lwlock_enter_exclusive_slowly(struct claim *claim, uint32_t keep, uint32_t owner);

/* Marks the reader, and returns the owner word then. 0: it is inside. */
static inline uint32_t mark_reader(struct claim *claim) {
  const struct lwlock *lock = claim->lock;
  journal_write(claim, LWLOCK_SHARED);
  /* Sequentially consistent, both: the reader's half of Dekker. */
  atomic_fetch_or(claim->readers, claim->reader_bit);
  return atomic_load(&lock->owner);
}

/* Comes in by a mark in our own slot, if the lock is BIASed. */
bool lwlock_try_mark(struct claim *claim);
/* Takes our mark away, and tells the claimant, if there is one. */
void lwlock_unmark_cell(struct claim *claim);

/* One attempt. ACQUIRED..., or BUSY with the claim as before (never DRAINING). */
static inline int32_t enter_shared(struct claim *claim) {
  if (claim->is_marking && lwlock_try_mark(claim)) return LWLOCK_ACQUIRED;
  uint32_t owner = mark_reader(claim);
  if (owner == 0) return held(claim, LWLOCK_SHARED, owner);
  return lwlock_enter_shared_slowly(claim, owner);
}

/* We have the owner word. ACQUIRED..., or BUSY and DRAINING: lwlock_finish_draining is to look. */
static inline int32_t enter_claimed(struct claim *claim, uint32_t owner) {
  claim->mode = LWLOCK_EXCLUSIVE;
  if (has_reader_bits(claim->lock) || (owner & LOCK_BIAS) != 0) {
    claim->state = CLAIM_DRAINING;
    return LWLOCK_BUSY;
  }
  step_inside(claim);
  return held(claim, LWLOCK_EXCLUSIVE, owner);
}

/* DRAINING: comes in if the readers have left; else BUSY. */
int32_t lwlock_finish_draining(struct claim *claim);

/* Claims the owner word if it is 0, and returns what it was. */
static inline uint32_t try_owner(struct claim *claim) {
  journal_write(claim, LWLOCK_EXCLUSIVE);
  uint32_t owner = 0;
  (void)atomic_compare_exchange_strong(&claim->lock->owner, &owner, claim->token);
  return owner;
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
/* Takes back what an attempt has left that met an owner: a reader's, and a writer's. IDLE again. */
void lwlock_unmark_slowly(struct claim *claim);
void lwlock_retreat(struct claim *claim);
/* Clears the owner word but for what outlives us, and wakes who comes next. */
void lwlock_disclaim_slowly(struct claim *claim);

/* False: lwlock_disclaim_slowly is to do it. */
static inline bool try_disclaim(struct claim *claim) {
  uint32_t mine = claim->token;
  /* Release; pairs with the compare-and-swap and the loads of who comes next. */
  return atomic_compare_exchange_strong_explicit(&claim->lock->owner, &mine, 0,
                                                 memory_order_release, memory_order_relaxed);
}

/* Comes out, and lets go of the owner word unless that takes lwlock_disclaim_slowly: false. */
static inline bool leave_exclusive(struct claim *claim) {
  /* Release: the caller's stores come before it, so a death after it has left nothing
   * half-done. */
  atomic_store_explicit(&claim->lock->phase, 0, memory_order_release);
  return try_disclaim(claim);
}

/* As unmark_reader goes on where another reader is inside, too. */
void lwlock_leave_readers(struct claim *claim);

/* Takes the reader's bit away, and tells the claimant, if there is one. */
static inline void unmark_reader(struct claim *claim) {
  const struct lwlock *lock = claim->lock;
  uint64_t others = ~claim->reader_bit;
  /* Sequentially consistent; with the look at the owner word it is the other side of
   * sleep_until_drained. Whether others are inside the processor tells with that: one more look at
   * a line that they write may be one more time that it comes from another core. */
  if ((atomic_fetch_and(claim->readers, others) & others) != 0) {
    lwlock_leave_readers(claim);
  } else if (atomic_load(&lock->owner) != 0) {
    lwlock_notify_claimant(claim->lock);
  }
}

/* Nothing in the lock is ours any more. */
static inline void left(struct claim *claim) {
  journal_clear(claim);
  claim->state = CLAIM_IDLE;
}

/* The claim must be HELD. */
static inline void leave(struct claim *claim) {
  if (claim->mode == LWLOCK_EXCLUSIVE) {
    if (!leave_exclusive(claim)) lwlock_disclaim_slowly(claim);
  } else if (claim->is_marked) {
    lwlock_unmark_cell(claim);
  } else {
    unmark_reader(claim);
  }
  left(claim);
}

#endif

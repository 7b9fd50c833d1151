/*
 * lwlock.c - the lock's protocol.
 *
 * The basic idea. A writer claims the owner word, which keeps new readers out, then waits
 * until the readers that are inside have left. A reader sets its own bit, then looks at the
 * owner word; if somebody is there it takes the bit back and waits. Uncontended, each mode is
 * one atomic read-modify-write to take and one to release, without a system call.
 *
 * Who sees whom (Dekker). A reader's bit and its look at the owner word, and a writer's
 * claim and its look at the bits, are all sequentially consistent: of a reader and a writer
 * that come at the same time at least one sees the other. If both do, the writer has the
 * claim and the reader goes back.
 *
 * Death. Everything that this backend may have marked in a lock is in its journal (slot.held,
 * and slot.waiting_lock for `starving`) before it is marked, and stays there until it is
 * unmarked. So a reaper that goes through
 * the journal finds every mark: it clears exactly this backend's bit, and the owner word only
 * if it has this backend's token. It runs under the table lock, and so does the reuse of the
 * slot: a reaper that stalls cannot touch the slot's next tenant. A writer that has come in
 * says so in `phase` before it touches any data, and unsays it after: a death with phase set
 * leaves the lock POISONed (abandoned), one while claiming or draining does not.
 *
 * Sleep. Waiters sleep in the kernel's queue on the owner word, after setting WAITERS; who
 * releases clears WAITERS and wakes the first; who has slept and comes in passes that on: a
 * writer keeps WAITERS set, so that its release wakes the next, a reader wakes the next at
 * once. A waiter that dies with the wake-up in its hand breaks that chain: so every sleep is
 * bounded, and looks again. The same for the claimant, which sleeps on `drain`.
 *
 * Fairness. Readers cannot starve a writer: its claim stops new ones. Writers could starve
 * anybody by barging, which is what makes the contended lock fast. So who has waited
 * STARVE_NS puts its name into `starving`: others then queue behind it, but for a free lock no
 * longer than STARVE_CHANCE_MS: it may be stopped. A dead backend there is cleared by reaping,
 * like the rest.
 *
 * Many readers. A word that all of them write is as fast as one core gets it from another. So
 * who meets other readers again and again sets BIAS; from then on readers leave `readers`
 * alone, and mark themselves in a cache line of their own slot, by a record in `held`. The
 * owner word they only read, and come in if it is BIASed and not claimed: the same Dekker with
 * another word for the bit. A claimant keeps BIAS, looks at the marks of all slots, too, and
 * clears it once it has seen none, with which it is inside. Until then BIAS stays, whoever dies or
 * gives up: the next claimant has to look again. It cannot be set meanwhile, for it is set in a
 * word without a claim.
 *
 * Rejected: handing the lock over at release. The next owner is asleep, so every hand-over
 * costs a context switch with the lock held; PostgreSQL gave it up in 2014 for that reason.
 * Rejected: a reader count. A death between counting and noting it down cannot be told from
 * one before.
 */
#include "lwlock_path.h"

#include "os.h"

/* How long a free lock is kept for the one that starves. A running one needs microseconds. */
#define STARVE_CHANCE_MS 10u

/* Wraps after 49 days: once in so long one that starves is passed over, or waited for. */
static uint32_t now_ms(void) { return (uint32_t)(os_monotonic_ns() / 1000000u); }

/* ---- coming in ---------------------------------------------------------------------- */

bool lwlock_must_queue(const struct claim *claim, enum lwlock_mode mode, uint32_t owner) {
  if ((owner & LOCK_STARVING) == 0 || claim->is_starving) return false;
  uint32_t starving = atomic_load(&claim->lock->starving);
  /* It has come in, or given up, since. The flag is not ours to clear: by now it may be that
   * of the next one that starves. */
  if (starving == 0) return false;
  /* It may be stopped, or have no time to call again: then it has had its chance. */
  uint32_t freed_ms = atomic_load_explicit(&claim->lock->freed_ms, memory_order_relaxed);
  if (!is_claimed(owner) && now_ms() - freed_ms > STARVE_CHANCE_MS) return false;
  return mode == LWLOCK_EXCLUSIVE || (starving & STARVING_EXCLUSIVE) != 0;
}

int32_t lwlock_enter_shared_slowly(struct claim *claim, uint32_t owner) {
  if (!is_claimed(owner) && !lwlock_must_queue(claim, LWLOCK_SHARED, owner)) {
    claim->is_marking = (owner & LOCK_BIAS) != 0;
    return held(claim, LWLOCK_SHARED, owner);
  }
  lwlock_unmark_slowly(claim);
  return LWLOCK_BUSY;
}

void lwlock_unmark_slowly(struct claim *claim) {
  atomic_fetch_and(claim->readers, ~claim->reader_bit);
  lwlock_notify_claimant(claim->lock);
  journal_clear(claim);
}

int32_t lwlock_enter_exclusive_slowly(struct claim *claim, uint32_t keep, uint32_t owner) {
  struct lwlock *lock = claim->lock;
  do {
    if (is_claimed(owner) || lwlock_must_queue(claim, LWLOCK_EXCLUSIVE, owner)) {
      journal_clear(claim);
      return LWLOCK_BUSY;
    }
  } while (!atomic_compare_exchange_weak(&lock->owner, &owner,
                                         owner | claim->token | keep));
  return enter_claimed(claim, owner);
}

int32_t lwlock_enter(struct claim *claim, enum lwlock_mode mode) {
  if (mode == LWLOCK_SHARED) return enter_shared(claim);
  int32_t outcome = enter_exclusive(claim, claim->has_slept ? LOCK_WAITERS : 0);
  return claim->state == CLAIM_DRAINING ? lwlock_finish_draining(claim) : outcome;
}

int32_t lwlock_try(struct claim *claim, enum lwlock_mode mode) {
  /* Not even for a moment do we keep readers out of a lock that we do not get. */
  if (mode == LWLOCK_EXCLUSIVE && lwlock_has_readers(claim)) return LWLOCK_BUSY;
  int32_t outcome = lwlock_enter(claim, mode);
  if (outcome == LWLOCK_BUSY) lwlock_retreat(claim);
  return outcome;
}

void lwlock_retreat(struct claim *claim) {
  if (claim->state == CLAIM_DRAINING) {
    claim->state = CLAIM_IDLE;
    lwlock_disclaim_slowly(claim);
  }
  journal_clear(claim);
}

/* ---- going out ----------------------------------------------------------------------- */

void lwlock_notify_claimant(struct lwlock *lock) {
  /* Sequentially consistent; pairs with sleep_until_drained. */
  if ((atomic_load(&lock->drain) & 1u) == 0) return;
  atomic_fetch_add(&lock->drain, 1);
  os_futex_wake(&lock->drain, 1);
}

void lwlock_disclaim_slowly(struct claim *claim) {
  struct lwlock *lock = claim->lock;
  uint32_t owner = atomic_load_explicit(&lock->owner, memory_order_relaxed);
  uint32_t next;
  /* Before the word: who sees the lock free sees since when. */
  atomic_store_explicit(&lock->freed_ms, now_ms(), memory_order_relaxed);
  do {
    /* Behind one that starves the others need not wake up: it will wake them. */
    bool has_starving = (owner & LOCK_STARVING) != 0;
    next = (owner & (LOCK_POISON | LOCK_STARVING | LOCK_BIAS | (has_starving ? LOCK_WAITERS : 0)));
  } while (!atomic_compare_exchange_weak(&lock->owner, &owner, next));
  if ((owner & LOCK_STARVING) != 0) {
    /* Pairs with sleep_until_free. Even: the flag in bit 0 stays for who waits for variables. */
    atomic_fetch_add(&lock->events, 2);
    os_futex_wake(&lock->events, UINT32_MAX);
    return;
  }
  if ((owner & LOCK_WAITERS) == 0) return;
  if ((atomic_load(&lock->events) & 1u) != 0) {
    atomic_fetch_add(&lock->events, 1);
    os_futex_wake(&lock->events, UINT32_MAX);
  }
  os_futex_wake(&lock->owner, 1);
}

void lwlock_release(struct claim *claim) { leave(claim); }

void lwlock_abandon(struct claim *claim) {
  if (claim->state != CLAIM_HELD) {
    lwlock_cancel(claim);
  } else if (claim->mode == LWLOCK_SHARED) {
    lwlock_release(claim);
  } else {
    /* The mark first: killed anywhere in here, the lock is abandoned all the same. */
    atomic_fetch_or(&claim->lock->owner, LOCK_POISON);
    atomic_store_explicit(&claim->lock->phase, 0, memory_order_release);
    lwlock_disclaim_slowly(claim);
    left(claim);
  }
}

void lwlock_mark_consistent(struct claim *claim) {
  atomic_fetch_and(&claim->lock->owner, ~LOCK_POISON);
}

/* ---- bias -------------------------------------------------------------------------------- */

/*
 * A claimant that meets BIAS looks at a word of each slot, which takes a nanosecond each. A reader
 * that meets another has lost tens. So it is set when one backend has met others about as often as
 * there are slots: what it costs the next claimant is little beside what has been lost already.
 */
void lwlock_leave_readers(struct claim *claim) {
  uint32_t owner = atomic_load(&claim->lock->owner);
  if (is_claimed(owner)) lwlock_notify_claimant(claim->lock);
  if (is_in_the_way(owner) || ++claim->meetings < claim->backend->control.backend_count_max) return;
  claim->meetings = 0;
  (void)atomic_compare_exchange_strong(&claim->lock->owner, &owner, owner | LOCK_BIAS);
}

uint64_t lwlock_readers(const struct claim *claim, uint32_t i) {
  const struct control *control = &claim->backend->control;
  /* All sequentially consistent: the writer's half of Dekker. */
  uint64_t readers = atomic_load(&claim->lock->readers[i]);
  if ((atomic_load(&claim->lock->owner) & LOCK_BIAS) == 0) return readers;
  for (uint32_t slot = i * 64; slot < i * 64 + 64 && slot < control->backend_count_max; slot++) {
    const struct backend_slot *row = &control->backends[slot];
    if (atomic_load(&row->held[MARK_CELL(claim->record)]) != (claim->record | LWLOCK_SHARED)) {
      continue;
    }
    /* Acquire: it was LIVE before it was marked. What damage has left elsewhere is no mark. */
    uint32_t word = atomic_load_explicit(&row->word, memory_order_acquire);
    if (SLOT_STATE(word) == SLOT_LIVE) readers |= UINT64_C(1) << slot % 64;
  }
  return readers;
}

bool lwlock_has_readers(const struct claim *claim) {
  for (uint32_t i = 0; i < DSMR_BACKENDS_MAX / 64; i++) {
    if (lwlock_readers(claim, i) != 0) return true;
  }
  return false;
}

int32_t lwlock_finish_draining(struct claim *claim) {
  if (lwlock_has_readers(claim)) return LWLOCK_BUSY;
  uint32_t owner = atomic_fetch_and(&claim->lock->owner, ~LOCK_BIAS);
  step_inside(claim);
  return held(claim, LWLOCK_EXCLUSIVE, owner);
}

/* ---- variables -------------------------------------------------------------------------- */

void lwlock_update_variable(struct claim *claim, _Atomic uint64_t *variable, uint64_t value) {
  struct lwlock *lock = claim->lock;
  /* Sequentially consistent, both; pairs with lwlock_wait_for_variable. */
  atomic_store(variable, value);
  if ((atomic_load(&lock->events) & 1u) == 0) return;
  atomic_fetch_add(&lock->events, 1);
  os_futex_wake(&lock->events, UINT32_MAX);
}

void lwlock_end_starving(struct lwlock *lock, uint32_t token) {
  uint32_t starving = atomic_load(&lock->starving);
  if (LOCK_TOKEN(starving) != token || starving == 0) return;
  /* The flag first: who dies in between leaves the name for its reaper. The other way round
   * somebody else's name could lose its flag, and a release would not wake that one. */
  atomic_fetch_and(&lock->owner, ~LOCK_STARVING);
  (void)atomic_compare_exchange_strong(&lock->starving, &starving, 0);
}

/* ---- reaping ----------------------------------------------------------------------------- */

bool lwlock_reap(struct lwlock *lock, uint32_t token) {
  uint32_t slot = LOCK_TOKEN_SLOT(token);
  /* Damaged memory may name a slot that no registry has. */
  if (slot < DSMR_BACKENDS_MAX) {
    atomic_fetch_and(&lock->readers[slot / 64], ~(UINT64_C(1) << slot % 64));
  }
  bool is_abandoned = false;
  uint32_t owner = atomic_load(&lock->owner);
  if (LOCK_TOKEN(owner) == token) {
    atomic_store_explicit(&lock->freed_ms, now_ms(), memory_order_relaxed);
  }
  while (LOCK_TOKEN(owner) == token) {
    /* phase is looked at before the owner word is changed, and is the dead one's own. A
     * reaper that dies after the change has done all that counts. */
    is_abandoned = atomic_load(&lock->phase) == token;
    uint32_t next =
        (owner & (LOCK_POISON | LOCK_STARVING | LOCK_BIAS)) | (is_abandoned ? LOCK_POISON : 0);
    if (atomic_compare_exchange_weak(&lock->owner, &owner, next)) break;
  }
  lwlock_end_starving(lock, token);
  /* Everybody looks again. */
  atomic_fetch_add(&lock->drain, 2);
  os_futex_wake(&lock->drain, UINT32_MAX);
  atomic_fetch_add(&lock->events, 2);
  os_futex_wake(&lock->events, UINT32_MAX);
  os_futex_wake(&lock->owner, UINT32_MAX);
  return is_abandoned;
}

/* ---- initialising -------------------------------------------------------------------------- */

void lwlock_initialize(struct lwlock *lock, uint32_t tranche) {
  /* Not a lock while it is being changed. */
  atomic_store_explicit(&lock->magic, 0, memory_order_release);
  atomic_store_explicit(&lock->owner, 0, memory_order_relaxed);
  atomic_store_explicit(&lock->phase, 0, memory_order_relaxed);
  for (uint32_t i = 0; i < DSMR_BACKENDS_MAX / 64; i++) {
    atomic_store_explicit(&lock->readers[i], 0, memory_order_relaxed);
  }
  atomic_store_explicit(&lock->drain, 0, memory_order_relaxed);
  atomic_store_explicit(&lock->starving, 0, memory_order_relaxed);
  atomic_store_explicit(&lock->events, 0, memory_order_relaxed);
  atomic_store_explicit(&lock->freed_ms, 0, memory_order_relaxed);
  lock->tranche = tranche;
  /* Release; pairs with lwlock_is_initialized. */
  atomic_store_explicit(&lock->magic, LOCK_MAGIC, memory_order_release);
}

bool lwlock_is_initialized(const struct lwlock *lock) {
  return atomic_load_explicit(&lock->magic, memory_order_acquire) == LOCK_MAGIC;
}

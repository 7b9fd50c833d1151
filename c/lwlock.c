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
 * STARVE_NS puts its name into `starving`: others then queue behind it. A dead backend there
 * is cleared by reaping, like the rest.
 *
 * Rejected: handing the lock over at release. The next owner is asleep, so every hand-over
 * costs a context switch with the lock held; PostgreSQL gave it up in 2014 for that reason.
 * Rejected: a reader count. A death between counting and noting it down cannot be told from
 * one before.
 */
#include "lwlock.h"

#include "os.h"
#include "tranche.h"

#include <string.h>

#define SPINS 60u
#define STARVE_NS 2000000u
/* A wait this long looks for a cycle, and again each time it has doubled. */
#define LOOK_FIRST_NS 20000000u
#define LOOK_LAST_NS 640000000u

/* ---- predicates --------------------------------------------------------------------- */

static bool is_claimed(uint32_t owner) { return LOCK_TOKEN(owner) != 0; }

static _Atomic uint64_t *bits_of(struct claim *claim) {
  return &claim->lock->readers[claim->backend->slot / 64];
}

static uint64_t bit_of(const struct claim *claim) {
  return UINT64_C(1) << claim->backend->slot % 64;
}

static bool has_readers(const struct lwlock *lock) {
  /* Sequentially consistent: the writer's half of Dekker. */
  return (atomic_load(&lock->readers[0]) | atomic_load(&lock->readers[1]) |
          atomic_load(&lock->readers[2]) | atomic_load(&lock->readers[3])) != 0;
}

/* ---- the journal -------------------------------------------------------------------- */

/*
 * Release on the store: everything later, above all the lock's own words, is ordered behind
 * it by the sequentially consistent operation that follows. A full journal is the caller's
 * business: see lock.c.
 */
static void journal_write(struct claim *claim, enum lwlock_mode mode) {
  struct backend *backend = claim->backend;
  claim->journal = backend->journal_free[--backend->journal_free_count];
  atomic_store_explicit(&claim->slot->held[claim->journal], claim->record | (uint64_t)mode,
                        memory_order_release);
}

static void journal_clear(struct claim *claim) {
  struct backend *backend = claim->backend;
  /* Release: after the mark itself was taken away. */
  atomic_store_explicit(&claim->slot->held[claim->journal], 0, memory_order_release);
  backend->journal_free[backend->journal_free_count++] = claim->journal;
}

/* ---- coming in ---------------------------------------------------------------------- */

/* From here on, a death leaves the lock abandoned. */
static void step_inside(struct claim *claim) {
  /* Relaxed: only a reaper reads it, which runs after we are dead. The fence keeps the
   * compiler from moving the caller's stores before it. */
  atomic_store_explicit(&claim->lock->phase, claim->token, memory_order_relaxed);
  atomic_signal_fence(memory_order_seq_cst);
}

static int32_t held(struct claim *claim, enum lwlock_mode mode, uint32_t owner) {
  claim->state = CLAIM_HELD;
  claim->mode = (uint8_t)mode;
  return mode == LWLOCK_EXCLUSIVE && (owner & LOCK_POISON) != 0 ? LWLOCK_ACQUIRED_ABANDONED
                                                                : LWLOCK_ACQUIRED;
}

/* Tells a claimant that sleeps that a reader has gone. */
static void notify_claimant(struct lwlock *lock) {
  /* Sequentially consistent; pairs with sleep_until_drained. */
  if ((atomic_load(&lock->drain) & 1u) == 0) return;
  atomic_fetch_add(&lock->drain, 1);
  os_futex_wake(&lock->drain, 1);
}

static void take_bit_back(struct claim *claim) {
  atomic_fetch_and(bits_of(claim), ~bit_of(claim));
  notify_claimant(claim->lock);
  journal_clear(claim);
}

/* Takes our name out of `starving`, and the flag with it. */
static void stop_starving(struct claim *claim) {
  if (!claim->is_starving) return;
  claim->is_starving = false;
  struct lwlock *lock = claim->lock;
  atomic_fetch_and(&lock->owner, ~LOCK_STARVING);
  uint32_t mine = claim->token | (claim->mode == LWLOCK_EXCLUSIVE ? STARVING_EXCLUSIVE : 0);
  /* A reaper that took us for dead, or nobody, may have changed it: not ours to clear then. */
  (void)atomic_compare_exchange_strong(&lock->starving, &mine, 0);
}

/* Somebody else has waited long, and what we want would be in its way. */
static bool must_queue(struct claim *claim, enum lwlock_mode mode, uint32_t owner) {
  if ((owner & LOCK_STARVING) == 0 || claim->is_starving) return false;
  uint32_t starving = atomic_load(&claim->lock->starving);
  /* It has come in, or given up, since. The flag is not ours to clear: by now it may be that
   * of the next one that starves. */
  if (starving == 0) return false;
  return mode == LWLOCK_EXCLUSIVE || (starving & STARVING_EXCLUSIVE) != 0;
}

/* One attempt. ACQUIRED..., or BUSY with the claim as before (never DRAINING). */
static int32_t enter_shared(struct claim *claim) {
  struct lwlock *lock = claim->lock;
  journal_write(claim, LWLOCK_SHARED);
  /* Sequentially consistent, both: the reader's half of Dekker. */
  atomic_fetch_or(bits_of(claim), bit_of(claim));
  uint32_t owner = atomic_load(&lock->owner);
  if (owner == 0) return held(claim, LWLOCK_SHARED, owner);
  if (!is_claimed(owner) && !must_queue(claim, LWLOCK_SHARED, owner)) {
    return held(claim, LWLOCK_SHARED, owner);
  }
  take_bit_back(claim);
  return LWLOCK_BUSY;
}

/* One attempt. ACQUIRED..., or BUSY: as before, or DRAINING. `keep`: WAITERS, if we slept. */
static int32_t enter_exclusive(struct claim *claim, uint32_t keep) {
  struct lwlock *lock = claim->lock;
  journal_write(claim, LWLOCK_EXCLUSIVE);
  uint32_t owner = 0;
  while (!atomic_compare_exchange_weak(&lock->owner, &owner,
                                       (owner & (LOCK_POISON | LOCK_WAITERS | LOCK_STARVING)) |
                                           claim->token | keep)) {
    if (is_claimed(owner) || must_queue(claim, LWLOCK_EXCLUSIVE, owner)) {
      journal_clear(claim);
      return LWLOCK_BUSY;
    }
  }
  if (has_readers(lock)) {
    claim->state = CLAIM_DRAINING;
    return LWLOCK_BUSY;
  }
  step_inside(claim);
  return held(claim, LWLOCK_EXCLUSIVE, owner);
}

/* ---- going out ----------------------------------------------------------------------- */

/* Clears the owner word but for what outlives us, and wakes who comes next. */
static void disclaim_slowly(struct claim *claim) {
  struct lwlock *lock = claim->lock;
  uint32_t owner = atomic_load_explicit(&lock->owner, memory_order_relaxed);
  uint32_t next;
  do {
    /* Behind one that starves the others need not wake up: it will wake them. */
    bool has_starving = (owner & LOCK_STARVING) != 0;
    next = (owner & (LOCK_POISON | LOCK_STARVING | (has_starving ? LOCK_WAITERS : 0)));
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

static void disclaim(struct claim *claim) {
  uint32_t mine = claim->token;
  /* Release; pairs with the compare-and-swap and the loads of who comes next. */
  if (!atomic_compare_exchange_strong_explicit(&claim->lock->owner, &mine, 0, memory_order_release,
                                               memory_order_relaxed)) {
    disclaim_slowly(claim);
  }
}

void lwlock_release(struct claim *claim) {
  struct lwlock *lock = claim->lock;
  if (claim->mode == LWLOCK_EXCLUSIVE) {
    /* Release: the caller's stores come before it, so a death after it has left nothing
     * half-done. */
    atomic_store_explicit(&lock->phase, 0, memory_order_release);
    disclaim(claim);
  } else {
    /* Sequentially consistent; with the look at the owner word it is the other side of
     * sleep_until_drained. */
    atomic_fetch_and(bits_of(claim), ~bit_of(claim));
    if (atomic_load(&lock->owner) != 0) notify_claimant(lock);
  }
  journal_clear(claim);
  claim->state = CLAIM_IDLE;
  claim->mode = LWLOCK_FREE;
}

void lwlock_abandon(struct claim *claim) {
  if (claim->state != CLAIM_HELD) {
    lwlock_cancel(claim);
  } else if (claim->mode == LWLOCK_SHARED) {
    lwlock_release(claim);
  } else {
    /* The mark first: killed anywhere in here, the lock is abandoned all the same. */
    atomic_fetch_or(&claim->lock->owner, LOCK_POISON);
    atomic_store_explicit(&claim->lock->phase, 0, memory_order_release);
    disclaim_slowly(claim);
    journal_clear(claim);
    claim->state = CLAIM_IDLE;
    claim->mode = LWLOCK_FREE;
  }
}

void lwlock_mark_consistent(struct claim *claim) {
  atomic_fetch_and(&claim->lock->owner, ~LOCK_POISON);
}

/* ---- waiting -------------------------------------------------------------------------- */

/* Whom a waiter waits for, as far as the lock says: a token, or 0. */
static uint32_t blocker(const struct claim *claim, uint32_t owner) {
  uint32_t token = LOCK_TOKEN(owner);
  return token != 0 ? token : LOCK_TOKEN(atomic_load(&claim->lock->starving));
}

bool lwlock_token_is_known(const struct control *control, uint32_t token) {
  uint32_t slot = LOCK_TOKEN_SLOT(token);
  if (slot >= control->backend_count_max) return false;
  uint32_t word = atomic_load_explicit(&control->backends[slot].word, memory_order_acquire);
  return SLOT_STATE(word) == SLOT_LIVE &&
         LOCK_TOKEN_OF(BACKEND_ID(SLOT_GENERATION(word), slot)) == token;
}

/* Nobody behind a token, which only damaged memory can have, is as good as dead. */
static bool token_is_dead(const struct claim *claim, uint32_t token) {
  if (token == 0 || token == claim->token) return false;
  const struct control *control = &claim->backend->control;
  return !lwlock_token_is_known(control, token) ||
         backend_slot_is_dead(control, LOCK_TOKEN_SLOT(token));
}

/* Adds the bell of a slot to what is slept on. */
static uint32_t add_bell(const struct claim *claim, uint32_t slot, struct os_futex_wait_on *waits,
                         uint32_t count) {
  if (slot >= claim->backend->control.backend_count_max) return count;
  _Atomic uint32_t *bell = backend_bell(&claim->backend->control, slot);
  if (bell == NULL || count >= OS_FUTEX_WAIT_MAX) return count;
  if (!os_bell_listen(bell, &waits[count].expected)) return count;
  waits[count].word = bell;
  return count + 1;
}

/* A reader's bit without a living backend behind it. */
static bool reader_is_dead(const struct claim *claim, uint32_t slot) {
  const struct control *control = &claim->backend->control;
  if (slot >= control->backend_count_max) return true;
  uint32_t word = atomic_load_explicit(&control->backends[slot].word, memory_order_acquire);
  return SLOT_STATE(word) != SLOT_LIVE || backend_slot_is_dead(control, slot);
}

/* After long waiting: queue the others behind us. */
static void start_starving(struct claim *claim) {
  uint32_t mine = claim->token | (claim->mode == LWLOCK_EXCLUSIVE ? STARVING_EXCLUSIVE : 0);
  uint32_t nobody = 0;
  /* The name first: a flag without a name is cleared by whoever meets it. */
  if (!atomic_compare_exchange_strong(&claim->lock->starving, &nobody, mine)) return;
  claim->is_starving = true;
  atomic_fetch_or(&claim->lock->owner, LOCK_STARVING);
}

/*
 * Sleeps while the lock is as `owner` says. The one that starves sleeps on `events`, which a
 * release changes when it sees the flag, and where it wakes nobody who wants the lock, too.
 * Read before the owner word: a release after that look has changed it. True if whom we wait
 * for is dead.
 */
static bool sleep_until_free(struct claim *claim, uint64_t sleep_ns) {
  struct lwlock *lock = claim->lock;
  uint32_t events = atomic_load(&lock->events);
  uint32_t owner = atomic_load(&lock->owner);
  if (!is_claimed(owner) && !must_queue(claim, claim->mode, owner)) return false;
  uint32_t token = blocker(claim, owner);
  struct os_futex_wait_on waits[2];
  if (claim->is_starving) {
    waits[0] = (struct os_futex_wait_on){&lock->events, events};
    /* The flag makes the release look. It is there, but for damaged memory. */
    if ((owner & LOCK_STARVING) == 0) {
      atomic_fetch_or(&lock->owner, LOCK_STARVING);
      return false;
    }
  } else {
    uint32_t wanted = owner | LOCK_WAITERS;
    if (owner != wanted && !atomic_compare_exchange_strong(&lock->owner, &owner, wanted)) {
      return false;
    }
    waits[0] = (struct os_futex_wait_on){&lock->owner, wanted};
  }
  uint32_t count = token == 0 ? 1 : add_bell(claim, LOCK_TOKEN_SLOT(token), waits, 1);
  os_futex_wait_any(waits, count, sleep_ns);
  claim->has_slept = true;
  return token_is_dead(claim, token);
}

/* Sleeps while readers are inside. True if one of them is dead. */
static bool sleep_until_drained(struct claim *claim, uint64_t sleep_ns) {
  struct lwlock *lock = claim->lock;
  uint32_t drain = atomic_load(&lock->drain);
  uint32_t wanted = drain | 1u;
  if (drain != wanted && !atomic_compare_exchange_strong(&lock->drain, &drain, wanted)) {
    return false;
  }
  struct os_futex_wait_on waits[OS_FUTEX_WAIT_MAX] = {{&lock->drain, wanted}};
  uint32_t count = 1;
  bool has_any = false;
  for (uint32_t i = 0; i < DSMR_BACKENDS_MAX / 64; i++) {
    for (uint64_t left = atomic_load(&lock->readers[i]); left != 0; left &= left - 1) {
      has_any = true;
      count = add_bell(claim, i * 64 + (uint32_t)__builtin_ctzll(left), waits, count);
    }
  }
  if (!has_any) return false;
  os_futex_wait_any(waits, count, sleep_ns);
  for (uint32_t i = 0; i < DSMR_BACKENDS_MAX / 64; i++) {
    for (uint64_t left = atomic_load(&lock->readers[i]); left != 0; left &= left - 1) {
      if (reader_is_dead(claim, i * 64 + (uint32_t)__builtin_ctzll(left))) return true;
    }
  }
  return false;
}

static void publish_waiting(struct claim *claim, uint64_t kind) {
  uint64_t record = claim->record | kind | (uint64_t)claim->mode;
  if (atomic_load_explicit(&claim->slot->waiting_lock, memory_order_relaxed) == record) return;
  /* The time first: together they name one wait. Release; pairs with waitgraph.c. */
  atomic_store_explicit(&claim->slot->waiting_since_ns, claim->waiting_since_ns,
                        memory_order_relaxed);
  atomic_store_explicit(&claim->slot->waiting_lock, record, memory_order_release);
}

/* However the waiting ended. */
static void end_waiting(struct claim *claim, bool has_acquired) {
  bool has_slept = claim->has_slept;
  bool was_starving = claim->is_starving;
  stop_starving(claim);
  /* After that: a reaper finds our name in `starving` by this record. */
  atomic_store_explicit(&claim->slot->waiting_lock, 0, memory_order_release);
  struct lock_counters *counters =
      tranche_counters(&claim->backend->control, claim->lock->tranche);
  if (has_acquired && counters != NULL) {
    uint64_t waited = os_monotonic_ns() - claim->waiting_since_ns;
    atomic_fetch_add_explicit(&counters->contended, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&counters->waited_ns, waited, memory_order_relaxed);
  }
  claim->has_slept = false;
  claim->waiting_since_ns = 0;
  /*
   * Pass the wake-up on: as a reader that came in others may follow at once; as one that
   * gave up it was perhaps meant for somebody else. A writer that came in has kept WAITERS.
   */
  bool passes_on = !has_acquired || claim->mode == LWLOCK_SHARED;
  if (passes_on && (has_slept || was_starving)) os_futex_wake(&claim->lock->owner, 1);
}

static int32_t attempt(struct claim *claim) {
  if (claim->mode == LWLOCK_SHARED) return enter_shared(claim);
  return enter_exclusive(claim, claim->has_slept ? LOCK_WAITERS : 0);
}

/* The readers have left: come in. */
static int32_t finish_draining(struct claim *claim) {
  step_inside(claim);
  return held(claim, LWLOCK_EXCLUSIVE, atomic_load(&claim->lock->owner));
}

/* Tries for a moment without sleeping: most locks are held for less than a sleep costs. */
static int32_t spin(struct claim *claim) {
  for (uint32_t i = 0; i < SPINS; i++) {
    if (claim->state == CLAIM_DRAINING) {
      if (!has_readers(claim->lock)) return finish_draining(claim);
    } else {
      uint32_t owner = atomic_load_explicit(&claim->lock->owner, memory_order_relaxed);
      if (!is_claimed(owner) && !must_queue(claim, claim->mode, owner)) {
        int32_t outcome = attempt(claim);
        if (outcome != LWLOCK_BUSY) return outcome;
      }
    }
    os_pause();
  }
  return LWLOCK_BUSY;
}

static int32_t wait_slowly(struct claim *claim, uint64_t until_ns) {
  int32_t outcome = spin(claim);
  while (outcome == LWLOCK_BUSY) {
    uint64_t now = os_monotonic_ns();
    if (now >= until_ns || !control_is_ready(&claim->backend->control)) return LWLOCK_BUSY;
    if (now >= claim->look_ns) {
      /* The last one to come sees the whole cycle, at its first look; the later ones are for
       * cycles that another look has just broken up. */
      claim->look_ns = now + claim->look_after_ns;
      if (claim->look_after_ns < LOOK_LAST_NS) claim->look_after_ns *= 2;
      return LWLOCK_LOOK;
    }
    uint64_t sleep_ns = until_ns - now < LWLOCK_SLEEP_MAX_NS ? until_ns - now : LWLOCK_SLEEP_MAX_NS;
    bool met_dead;
    if (claim->state == CLAIM_DRAINING) {
      publish_waiting(claim, WAITING_READERS);
      met_dead = sleep_until_drained(claim, sleep_ns);
      if (!has_readers(claim->lock)) outcome = finish_draining(claim);
    } else {
      publish_waiting(claim, WAITING_OWNER);
      if (!claim->is_starving && now - claim->waiting_since_ns > STARVE_NS) start_starving(claim);
      met_dead = sleep_until_free(claim, sleep_ns);
      if (control_is_ready(&claim->backend->control)) outcome = attempt(claim);
    }
    if (outcome == LWLOCK_BUSY && met_dead) return LWLOCK_DEAD;
  }
  return outcome;
}

int32_t lwlock_acquire(struct claim *claim, enum lwlock_mode mode, uint64_t until_ns) {
  int32_t outcome = LWLOCK_BUSY;
  if (claim->state == CLAIM_IDLE) {
    outcome = mode == LWLOCK_SHARED ? enter_shared(claim) : enter_exclusive(claim, 0);
    if (outcome != LWLOCK_BUSY) return outcome;
    claim->mode = (uint8_t)mode;
    if (claim->state == CLAIM_IDLE) claim->state = CLAIM_WAITING;
    claim->waiting_since_ns = os_monotonic_ns();
    claim->look_ns = claim->waiting_since_ns + LOOK_FIRST_NS;
    claim->look_after_ns = LOOK_FIRST_NS;
  }
  outcome = wait_slowly(claim, until_ns);
  if (outcome <= LWLOCK_ACQUIRED_ABANDONED) end_waiting(claim, true);
  return outcome;
}

void lwlock_cancel(struct claim *claim) {
  if (claim->state != CLAIM_WAITING && claim->state != CLAIM_DRAINING) return;
  bool is_draining = claim->state == CLAIM_DRAINING;
  claim->state = CLAIM_IDLE;
  if (is_draining) {
    disclaim(claim);
    journal_clear(claim);
  }
  end_waiting(claim, false);
  claim->mode = LWLOCK_FREE;
}

int32_t lwlock_try(struct claim *claim, enum lwlock_mode mode) {
  if (mode == LWLOCK_SHARED) return enter_shared(claim);
  /* Not even for a moment do we keep readers out of a lock that we do not get. */
  if (has_readers(claim->lock)) return LWLOCK_BUSY;
  int32_t outcome = enter_exclusive(claim, 0);
  if (outcome == LWLOCK_BUSY && claim->state == CLAIM_DRAINING) {
    claim->state = CLAIM_IDLE;
    disclaim(claim);
    journal_clear(claim);
  }
  return outcome;
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

int32_t lwlock_wait_for_variable(struct claim *claim, _Atomic uint64_t *variable,
                                 uint64_t expected, uint64_t *value, uint64_t until_ns) {
  struct lwlock *lock = claim->lock;
  for (;;) {
    /* The flags first, then the look: an update or a release from here on sees them. */
    uint32_t events = atomic_fetch_or(&lock->events, 1) | 1u;
    uint32_t owner = atomic_load(&lock->owner);
    if (!is_claimed(owner)) return LWLOCK_ACQUIRED;
    if (variable != NULL) {
      *value = atomic_load(variable);
      if (*value != expected) return LWLOCK_ACQUIRED_ABANDONED;
    }
    uint32_t wanted = owner | LOCK_WAITERS;
    if (owner != wanted && !atomic_compare_exchange_strong(&lock->owner, &owner, wanted)) continue;
    uint64_t now = os_monotonic_ns();
    if (now >= until_ns || !control_is_ready(&claim->backend->control)) return LWLOCK_BUSY;
    uint64_t left = until_ns - now;
    uint32_t token = LOCK_TOKEN(wanted);
    struct os_futex_wait_on waits[2] = {{&lock->events, events}};
    uint32_t count = add_bell(claim, LOCK_TOKEN_SLOT(token), waits, 1);
    os_futex_wait_any(waits, count, left < LWLOCK_SLEEP_MAX_NS ? left : LWLOCK_SLEEP_MAX_NS);
    if (token_is_dead(claim, token)) return LWLOCK_DEAD;
  }
}

/* ---- reaping ----------------------------------------------------------------------------- */

bool lwlock_reap(struct lwlock *lock, uint32_t backend_id) {
  uint32_t token = LOCK_TOKEN_OF(backend_id);
  uint32_t slot = BACKEND_SLOT(backend_id);
  atomic_fetch_and(&lock->readers[slot / 64], ~(UINT64_C(1) << slot % 64));
  bool is_abandoned = false;
  uint32_t owner = atomic_load(&lock->owner);
  while (LOCK_TOKEN(owner) == token) {
    /* phase is looked at before the owner word is changed, and is the dead one's own. A
     * reaper that dies after the change has done all that counts. */
    is_abandoned = atomic_load(&lock->phase) == token;
    uint32_t next = (owner & (LOCK_POISON | LOCK_STARVING)) | (is_abandoned ? LOCK_POISON : 0);
    if (atomic_compare_exchange_weak(&lock->owner, &owner, next)) break;
  }
  uint32_t starving = atomic_load(&lock->starving);
  if (LOCK_TOKEN(starving) == token && starving != 0) {
    /* The flag first: a reaper that dies in between leaves the name for the next one. The
     * other way round somebody else's name could lose its flag. */
    atomic_fetch_and(&lock->owner, ~LOCK_STARVING);
    (void)atomic_compare_exchange_strong(&lock->starving, &starving, 0);
  }
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
  lock->tranche = tranche;
  lock->reserved = 0;
  /* Release; pairs with lwlock_is_initialized. */
  atomic_store_explicit(&lock->magic, LOCK_MAGIC, memory_order_release);
}

bool lwlock_is_initialized(const struct lwlock *lock) {
  return atomic_load_explicit(&lock->magic, memory_order_acquire) == LOCK_MAGIC;
}

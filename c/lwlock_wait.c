/*
 * lwlock_wait.c - waiting for a lock: spinning, sleeping, starving, giving up.
 *
 * The hardest race is a wake-up that comes between the look and the sleep. The answer: what is
 * slept on is the word that was looked at, with the flag set that makes the other side wake;
 * the kernel compares it once more. And every sleep is bounded, for who is woken may die. The
 * whole protocol is explained in lwlock.c.
 */
#include "lwlock_path.h"

#include "os.h"
#include "tranche.h"

#define SPINS 60u
#define STARVE_NS 2000000u
/* A wait this long looks for a cycle, and again each time it has doubled. */
#define LOOK_FIRST_NS 20000000u
#define LOOK_LAST_NS 640000000u

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
static uint32_t add_bell_of(const struct claim *claim, uint32_t slot,
                            struct os_futex_wait_on *waits, uint32_t count, uint32_t room) {
  if (slot >= claim->backend->control.backend_count_max) return count;
  _Atomic uint32_t *bell = backend_bell(&claim->backend->control, slot);
  if (bell == NULL || count >= room) return count;
  if (!os_bell_listen(bell, &waits[count].expected)) return count;
  waits[count].word = bell;
  return count + 1;
}

/* A reader's bit without a living backend behind it. */
static bool reader_is_dead(const struct claim *claim, uint32_t slot) {
  const struct control *control = &claim->backend->control;
  /* Our own description never conflicts with itself: we would look dead. */
  if (slot == claim->backend->slot) return false;
  if (slot >= control->backend_count_max) return true;
  uint32_t word = atomic_load_explicit(&control->backends[slot].word, memory_order_acquire);
  return SLOT_STATE(word) != SLOT_LIVE || backend_slot_is_dead(control, slot);
}

bool lwlock_is_blocked_by_dead(const struct claim *claim) {
  const struct lwlock *lock = claim->lock;
  if (token_is_dead(claim, LOCK_TOKEN(atomic_load(&lock->owner)))) return true;
  if (token_is_dead(claim, LOCK_TOKEN(atomic_load(&lock->starving)))) return true;
  for (uint32_t i = 0; i < DSMR_BACKENDS_MAX / 64; i++) {
    for (uint64_t left = lwlock_readers(claim, i); left != 0; left &= left - 1) {
      if (reader_is_dead(claim, i * 64 + (uint32_t)__builtin_ctzll(left))) return true;
    }
  }
  return false;
}

/* Has a backend's journal a record of the lock? Ours has one while we drain, too, but then no
 * reader's bit in it can be ours. */
static bool has_record(const struct claim *claim, enum claim_state state, uint32_t slot) {
  const struct backend_slot *row = &claim->backend->control.backends[slot];
  if (row == claim->slot) return state == CLAIM_HELD;
  for (uint32_t i = 0; i < HELD_CELLS; i++) {
    uint64_t record = atomic_load_explicit(&row->held[i], memory_order_acquire);
    if (record != 0 && HELD_LOCK(record) == claim->record) return true;
  }
  return false;
}

bool lwlock_seems_damaged(const struct claim *claim, enum claim_state state) {
  const struct lwlock *lock = claim->lock;
  if (!lwlock_is_initialized(lock)) return true;
  /* We are not inside, and would wait for ourselves. */
  if (state != CLAIM_HELD && atomic_load(claim->mark) == (claim->record | LWLOCK_SHARED)) return true;
  uint32_t token = LOCK_TOKEN(atomic_load(&lock->owner));
  if (token == claim->token) {
    if (state < CLAIM_DRAINING) return true;
  } else if (token != 0) {
    if (!lwlock_token_is_known(&claim->backend->control, token)) return false; /* is reaped */
    return !has_record(claim, state, LOCK_TOKEN_SLOT(token)) &&
           LOCK_TOKEN(atomic_load(&lock->owner)) == token;
  }
  for (uint32_t slot = 0; slot < claim->backend->control.backend_count_max; slot++) {
    uint64_t bit = UINT64_C(1) << slot % 64;
    if ((atomic_load(&lock->readers[slot / 64]) & bit) == 0 || has_record(claim, state, slot)) {
      continue;
    }
    if ((atomic_load(&lock->readers[slot / 64]) & bit) != 0) return true;
  }
  return false;
}

bool lwlock_is_damaged(struct claim *claim) {
  if (!lwlock_seems_damaged(claim, claim->state)) claim->damage_count = 0;
  else claim->damage_count++;
  return claim->damage_count >= 3;
}

/* After long waiting: queue the others behind us. */
static void start_starving(struct claim *claim) {
  uint32_t mine = claim->token | (claim->mode == LWLOCK_EXCLUSIVE ? STARVING_EXCLUSIVE : 0);
  uint32_t nobody = 0;
  /* The name first: who meets the flag finds whose it is. A flag without a name keeps nobody. */
  if (!atomic_compare_exchange_strong(&claim->lock->starving, &nobody, mine)) return;
  claim->is_starving = true;
  atomic_fetch_or(&claim->lock->owner, LOCK_STARVING);
}

/*
 * What to sleep on while the owner word is in the way, at most `room` words; 0: look again. The
 * one that starves sleeps on `events`, which a release changes when it sees the flag, and where
 * it wakes nobody who wants the lock, too. Read before the owner word: a release after that look
 * has changed it. `token`: whom we wait for.
 */
static uint32_t words_of_owner(struct claim *claim, struct os_futex_wait_on *words,
                               uint32_t *token) {
  struct lwlock *lock = claim->lock;
  uint32_t events = atomic_load(&lock->events);
  uint32_t owner = atomic_load(&lock->owner);
  if (!is_claimed(owner) && !lwlock_must_queue(claim, claim->mode, owner)) return 0;
  *token = blocker(claim, owner);
  if (claim->is_starving) {
    words[0] = (struct os_futex_wait_on){&lock->events, events};
    /* The flag makes the release look. It is there, but for damaged memory. */
    if ((owner & LOCK_STARVING) == 0) {
      atomic_fetch_or(&lock->owner, LOCK_STARVING);
      return 0;
    }
  } else {
    uint32_t wanted = owner | LOCK_WAITERS;
    if (owner != wanted && !atomic_compare_exchange_strong(&lock->owner, &owner, wanted)) return 0;
    words[0] = (struct os_futex_wait_on){&lock->owner, wanted};
  }
  return *token == 0 ? 1 : add_bell_of(claim, LOCK_TOKEN_SLOT(*token), words, 1, 2);
}

/* Sleeps while the owner word is in the way. True if whom we wait for is dead. */
static bool sleep_until_free(struct claim *claim, uint64_t sleep_ns) {
  struct os_futex_wait_on words[2];
  uint32_t token = 0;
  uint32_t count = words_of_owner(claim, words, &token);
  if (count == 0) return false;
  /* Without a bell to listen to it may be dead already, and nobody would wake us. */
  if (count == 1 && token_is_dead(claim, token)) return true;
  (void)os_futex_wait_any(words, count, sleep_ns);
  claim->has_slept = true;
  return token_is_dead(claim, token);
}

/* What to sleep on while readers are inside: `drain`, and bells as far as there is room; 0: look
 * again. */
static uint32_t words_of_readers(struct claim *claim, struct os_futex_wait_on *words,
                                 uint32_t room) {
  struct lwlock *lock = claim->lock;
  uint32_t drain = atomic_load(&lock->drain);
  uint32_t wanted = drain | 1u;
  if (drain != wanted && !atomic_compare_exchange_strong(&lock->drain, &drain, wanted)) return 0;
  words[0] = (struct os_futex_wait_on){&lock->drain, wanted};
  uint32_t count = 1;
  bool has_any = false;
  for (uint32_t i = 0; i < DSMR_BACKENDS_MAX / 64; i++) {
    for (uint64_t left = lwlock_readers(claim, i); left != 0; left &= left - 1) {
      has_any = true;
      count = add_bell_of(claim, i * 64 + (uint32_t)__builtin_ctzll(left), words, count, room);
    }
  }
  return has_any ? count : 0;
}

/* Sleeps while readers are inside. True if one of them is dead. */
static bool sleep_until_drained(struct claim *claim, uint64_t sleep_ns) {
  struct os_futex_wait_on words[16];
  uint32_t count = words_of_readers(claim, words, 16);
  if (count == 0) return false;
  /* Likewise. */
  if (count == 1 && lwlock_is_blocked_by_dead(claim)) return true;
  (void)os_futex_wait_any(words, count, sleep_ns);
  return lwlock_is_blocked_by_dead(claim);
}

static void publish_lock_wait(struct claim *claim, uint64_t kind) {
  uint64_t record = claim->record | kind | (uint64_t)claim->mode;
  if (atomic_load_explicit(&claim->slot->waiting_lock, memory_order_relaxed) == record) return;
  /* The time first: together they name one wait. Release; pairs with waitgraph.c. */
  atomic_store_explicit(&claim->slot->waiting_since_ns, claim->waiting_since_ns,
                        memory_order_relaxed);
  atomic_store_explicit(&claim->slot->waiting_lock, record, memory_order_release);
}

/* Takes our name out of `starving`, and the flag with it. */
static void stop_starving(struct claim *claim) {
  if (!claim->is_starving) return;
  claim->is_starving = false;
  /* A reaper that took us for dead may have done so: then the flag is perhaps the next one's. */
  lwlock_end_starving(claim->lock, claim->token);
}

/* ---- waiting without sleeping ------------------------------------------------------------ */

static bool is_published_watched(const struct claim *claim) {
  uint64_t record = atomic_load_explicit(&claim->slot->watched_lock, memory_order_relaxed);
  return record != 0 && HELD_LOCK(record & ~UINT64_C(0xfc)) == claim->record;
}

/* One of the backend's waits stands in its slot; only that one may starve. */
static bool publish_watched(struct claim *claim, uint64_t kind) {
  if (is_published_watched(claim)) return true;
  if (atomic_load_explicit(&claim->slot->watched_lock, memory_order_relaxed) != 0) return false;
  atomic_store_explicit(&claim->slot->watched_since_ns, claim->waiting_since_ns,
                        memory_order_relaxed);
  atomic_store_explicit(&claim->slot->watched_lock, claim->record | kind | (uint64_t)claim->mode,
                        memory_order_release);
  return true;
}

/* ---- the end ------------------------------------------------------------------------------ */

/* However the waiting ended. */
static void end_waiting(struct claim *claim, bool has_acquired) {
  bool has_slept = claim->has_slept;
  bool was_starving = claim->is_starving;
  stop_starving(claim);
  /* After that: a reaper finds our name in `starving` by this record. */
  if (!claim->is_watched) {
    atomic_store_explicit(&claim->slot->waiting_lock, 0, memory_order_release);
  } else if (is_published_watched(claim)) {
    atomic_store_explicit(&claim->slot->watched_lock, 0, memory_order_release);
  }
  claim->is_watched = false;
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
  return lwlock_enter(claim, (enum lwlock_mode)claim->mode);
}

/* Tries for a moment without sleeping: most locks are held for less than a sleep costs. */
static int32_t spin(struct claim *claim) {
  for (uint32_t i = 0; i < SPINS; i++) {
    if (claim->state == CLAIM_DRAINING) {
      int32_t outcome = lwlock_finish_draining(claim);
      if (outcome != LWLOCK_BUSY) return outcome;
    } else {
      uint32_t owner = atomic_load_explicit(&claim->lock->owner, memory_order_relaxed);
      if (!is_claimed(owner) && !lwlock_must_queue(claim, claim->mode, owner)) {
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
      publish_lock_wait(claim, WAITING_READERS);
      met_dead = sleep_until_drained(claim, sleep_ns);
      outcome = lwlock_finish_draining(claim);
    } else {
      publish_lock_wait(claim, WAITING_OWNER);
      if (!claim->is_starving && now - claim->waiting_since_ns > STARVE_NS) start_starving(claim);
      met_dead = sleep_until_free(claim, sleep_ns);
      if (control_is_ready(&claim->backend->control)) outcome = attempt(claim);
    }
    if (outcome == LWLOCK_BUSY && met_dead) return LWLOCK_DEAD;
  }
  return outcome;
}

static void begin_waiting(struct claim *claim, enum lwlock_mode mode) {
  if (claim->waiting_since_ns != 0) return;
  claim->mode = (uint8_t)mode;
  if (claim->state == CLAIM_IDLE) claim->state = CLAIM_WAITING;
  claim->damage_count = 0;
  claim->waiting_since_ns = os_monotonic_ns();
  claim->look_ns = claim->waiting_since_ns + LOOK_FIRST_NS;
  claim->look_after_ns = LOOK_FIRST_NS;
}

int32_t lwlock_watch(struct claim *claim, enum lwlock_mode mode,
                     struct os_futex_wait_on words[LWLOCK_WORDS_MAX], uint32_t *count) {
  begin_waiting(claim, mode);
  claim->is_watched = true;
  int32_t outcome = LWLOCK_BUSY;
  do {
    bool is_draining = claim->state == CLAIM_DRAINING;
    outcome = is_draining ? lwlock_finish_draining(claim) : attempt(claim);
    if (outcome != LWLOCK_BUSY) break;
    if (lwlock_is_blocked_by_dead(claim)) return LWLOCK_DEAD;
    is_draining = claim->state == CLAIM_DRAINING;
    bool is_published = publish_watched(claim, is_draining ? WAITING_READERS : WAITING_OWNER);
    uint64_t waited = os_monotonic_ns() - claim->waiting_since_ns;
    if (is_published && !is_draining && !claim->is_starving && waited > STARVE_NS) {
      start_starving(claim);
    }
    uint32_t token = 0;
    *count = is_draining ? words_of_readers(claim, words, LWLOCK_WORDS_MAX)
                         : words_of_owner(claim, words, &token);
    /* What is slept on may be woken without us: the release must find WAITERS set by us. */
    if (!is_draining) claim->has_slept = true;
  } while (*count == 0);
  if (outcome <= LWLOCK_ACQUIRED_ABANDONED) end_waiting(claim, true);
  return outcome;
}

int32_t lwlock_acquire(struct claim *claim, enum lwlock_mode mode, uint64_t until_ns) {
  begin_waiting(claim, mode);
  int32_t outcome = wait_slowly(claim, until_ns);
  if (outcome <= LWLOCK_ACQUIRED_ABANDONED) end_waiting(claim, true);
  return outcome;
}

void lwlock_cancel(struct claim *claim) {
  if (claim->state != CLAIM_WAITING && claim->state != CLAIM_DRAINING) return;
  if (claim->state == CLAIM_DRAINING) lwlock_retreat(claim);
  claim->state = CLAIM_IDLE;
  end_waiting(claim, false);
}

/* ---- variables -------------------------------------------------------------------------- */

void lwlock_publish_wait(struct claim *claim, uint64_t since_ns, const _Atomic uint64_t *variable,
                         uint64_t expected) {
  struct backend_slot *slot = claim->slot;
  if (since_ns == 0) {
    atomic_store_explicit(&slot->waiting_lock, 0, memory_order_release);
    /* After the record: without a time it would be listed as a hold. */
    atomic_store_explicit(&slot->waiting_variable, 0, memory_order_release);
    return;
  }
  uint64_t place = 0;
  if (variable != NULL) {
    uint64_t ahead = HELD_LINE(claim->record) * LOCK_SIZE;
    place = (uint64_t)((const char *)variable - ((const char *)claim->lock - ahead));
  }
  atomic_store_explicit(&slot->waiting_expected, expected, memory_order_relaxed);
  atomic_store_explicit(&slot->waiting_variable, place, memory_order_relaxed);
  atomic_store_explicit(&slot->waiting_since_ns, since_ns, memory_order_relaxed);
  /* Release; pairs with waitgraph.c. */
  atomic_store_explicit(&slot->waiting_lock, claim->record | WAITING_OWNER | LWLOCK_EXCLUSIVE,
                        memory_order_release);
}

int32_t lwlock_watch_variable(struct claim *claim, _Atomic uint64_t *variable, uint64_t expected,
                              uint64_t *value, struct os_futex_wait_on words[LWLOCK_WORDS_MAX],
                              uint32_t *count) {
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
    uint32_t token = LOCK_TOKEN(wanted);
    if (token_is_dead(claim, token)) return LWLOCK_DEAD;
    words[0] = (struct os_futex_wait_on){&lock->events, events};
    *count = add_bell_of(claim, LOCK_TOKEN_SLOT(token), words, 1, LWLOCK_WORDS_MAX);
    return LWLOCK_BUSY;
  }
}

int32_t lwlock_wait_for_variable(struct claim *claim, _Atomic uint64_t *variable,
                                 uint64_t expected, uint64_t *value, uint64_t until_ns) {
  for (;;) {
    struct os_futex_wait_on words[LWLOCK_WORDS_MAX];
    uint32_t count = 0;
    int32_t outcome = lwlock_watch_variable(claim, variable, expected, value, words, &count);
    if (outcome != LWLOCK_BUSY) return outcome;
    uint64_t now = os_monotonic_ns();
    if (now >= until_ns || !control_is_ready(&claim->backend->control)) return LWLOCK_BUSY;
    uint64_t left = until_ns - now;
    (void)os_futex_wait_any(words, count, left < LWLOCK_SLEEP_MAX_NS ? left : LWLOCK_SLEEP_MAX_NS);
  }
}

/*
 * lock.c - the public calls that take and release locks: what a backend may do, and time.
 *
 * The protocol is lwlock.c's. Here is what makes it a backend's: that one backend asks for a
 * lock once at a time, that its journal has room, and that whoever meets a dead backend in
 * its way reaps it.
 */
#include "claim.h"
#include "journal.h"
#include "lwlock_path.h"
#include "os.h"
#include "segment.h"
#include "waitgraph.h"

/* How long a call that waits lasts at most: runtimes end Workers between two calls. */
#ifndef LOCK_SLICE_NS /* as LWLOCK_SLEEP_MAX_NS */
#define LOCK_SLICE_NS 100000000u
#endif

/* How long clearing the dead away waits for a stopped process in the registry's tables. */
#define CLEAR_PATIENCE_MS 5

/* ---- taking -------------------------------------------------------------------------- */

/* May this claim begin? Nothing else of a backend's is checked on the way in. */
static int32_t may_begin(struct claim *claim, uint32_t mode) {
  if (claim->state == CLAIM_HELD || claim->is_watched) return DSMR_E_ALREADY_HELD;
  if (mode != DSMR_SHARED && mode != DSMR_EXCLUSIVE) return DSMR_E_SIZE_INVALID;
  return journal_reserve(claim) ? 0 : DSMR_E_NO_SPACE;
}

int32_t claim_clear_the_dead(struct claim *claim) {
  struct control *control = &claim->backend->control;
  struct lwlock *lock = claim->lock;
  /* Who meets the dead may be one that must not block: it comes again. */
  int32_t outcome = control_enter_within(control, CLEAR_PATIENCE_MS, NULL);
  if (outcome != 0) return outcome;
  backend_reap_dead(control, claim->backend->slot);
  uint32_t owner = LOCK_TOKEN(atomic_load_explicit(&lock->owner, memory_order_relaxed));
  uint32_t starving = LOCK_TOKEN(atomic_load_explicit(&lock->starving, memory_order_relaxed));
  if (owner != 0 && !lwlock_token_is_known(control, owner)) (void)lwlock_reap(lock, owner);
  if (starving != 0 && !lwlock_token_is_known(control, starving)) {
    (void)lwlock_reap(lock, starving);
  }
  for (uint32_t slot = 0; slot < DSMR_BACKENDS_MAX; slot++) {
    uint32_t word = 0;
    if (slot < control->backend_count_max) {
      word = atomic_load_explicit(&control->backends[slot].word, memory_order_relaxed);
    }
    uint64_t bits = atomic_load_explicit(&lock->readers[slot / 64], memory_order_relaxed);
    if ((bits >> slot % 64 & 1) != 0 && SLOT_STATE(word) != SLOT_LIVE) {
      (void)lwlock_reap(lock, LOCK_TOKEN_OF(BACKEND_ID(SLOT_GENERATION(word), slot)));
    }
  }
  control_unlock(control);
  return 0;
}

int32_t claim_try(uint32_t lock, uint32_t mode) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome == 0) outcome = may_begin(claim, mode);
  if (outcome != 0) return outcome;
  if (claim->state != CLAIM_IDLE) return DSMR_E_ALREADY_HELD; /* it is being waited for */
  outcome = lwlock_try(claim, (enum lwlock_mode)mode);
  if (outcome == LWLOCK_BUSY && lwlock_is_blocked_by_dead(claim)) {
    /* Nobody else may ever wait for this lock, and find out. */
    (void)claim_clear_the_dead(claim);
    outcome = lwlock_try(claim, (enum lwlock_mode)mode);
  }
  return outcome;
}

int32_t claim_try_anew(struct claim *claim) {
  lwlock_retreat(claim);
  return claim_try(claim->handle, LWLOCK_EXCLUSIVE);
}

static bool closes_cycle(struct claim *claim) {
  struct control *control = &claim->backend->control;
  if (control_enter(control, NULL) != 0) return false;
  bool has_cycle = waitgraph_has_cycle(control, claim->backend->slot);
  /* Still under the lock: the next one that looks must not find this cycle, too. */
  if (has_cycle && claim->state != CLAIM_HELD) lwlock_cancel(claim);
  if (has_cycle) lwlock_publish_wait(claim, 0, NULL, 0);
  control_unlock(control);
  return has_cycle;
}

static uint64_t sooner(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Everything that is not the first, successful attempt. */
static int32_t acquire_slowly(struct claim *claim, uint32_t mode, int32_t timeout_ms) {
  uint64_t slice_ends = os_monotonic_ns() + LOCK_SLICE_NS;
  uint64_t given = timeout_ms < 0 ? UINT64_MAX / 2 : (uint64_t)timeout_ms * 1000000u;
  for (;;) {
    uint64_t since = claim->waiting_since_ns;
    if (since == 0) since = os_monotonic_ns();
    uint64_t until = sooner(slice_ends, since + given);
    int32_t outcome = lwlock_acquire(claim, (enum lwlock_mode)mode, until);
    if (outcome <= LWLOCK_ACQUIRED_ABANDONED) return outcome;
    if (!control_is_ready(&claim->backend->control)) {
      lwlock_cancel(claim);
      return DSMR_E_CLOSED;
    }
    if (outcome == LWLOCK_DEAD) {
      (void)claim_clear_the_dead(claim);
    } else if (outcome == LWLOCK_LOOK) {
      if (closes_cycle(claim)) return DSMR_E_DEADLOCK;
      if (lwlock_is_damaged(claim)) {
        lwlock_cancel(claim);
        return DSMR_E_CORRUPT;
      }
    } else {
      uint64_t now = os_monotonic_ns();
      if (now - claim->waiting_since_ns >= given) {
        lwlock_cancel(claim);
        return DSMR_E_TIMEOUT;
      }
      if (now >= slice_ends) return DSMR_LOCK_BUSY;
    }
  }
}

int32_t claim_acquire(uint32_t lock, uint32_t mode, int32_t timeout_ms) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome == 0) outcome = may_begin(claim, mode);
  if (outcome != 0) return outcome;
  if (claim->state == CLAIM_IDLE) {
    outcome = lwlock_enter(claim, (enum lwlock_mode)mode);
    if (outcome != LWLOCK_BUSY) return outcome;
  }
  return acquire_slowly(claim, mode, timeout_ms);
}

int32_t claim_acquire_marked(struct claim *claim, int32_t timeout_ms) {
  if (lwlock_try_mark(claim)) return LWLOCK_ACQUIRED;
  return claim_acquire(claim->handle, LWLOCK_SHARED, timeout_ms);
}

int32_t claim_acquire_anew(struct claim *claim, int32_t timeout_ms) {
  uint32_t owner = atomic_load(&claim->lock->owner);
  int32_t outcome = lwlock_enter_shared_slowly(claim, owner);
  if (outcome != LWLOCK_BUSY) return outcome;
  return claim_acquire(claim->handle, LWLOCK_SHARED, timeout_ms);
}

int32_t claim_release(uint32_t lock) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  return outcome != 0 ? outcome : DSMR_E_NOT_HELD;
}

int32_t dsmr_lock_cancel(uint32_t lock) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome == 0) lwlock_cancel(claim);
  return outcome;
}

int32_t dsmr_lock_release_all(uint32_t registry) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, NULL);
  if (outcome != 0) return outcome;
  int32_t count = 0;
  for (uint32_t i = 0; backend->attachments != NULL && i < backend->control.entry_capacity; i++) {
    for (struct attachment *a = backend->attachments[i]; a != NULL; a = a->next) {
      for (struct claim *c = a->claims; c != NULL; c = c->next) {
        if (c->state == CLAIM_HELD) {
          lwlock_release(c);
          count++;
        } else {
          lwlock_cancel(c);
        }
      }
    }
  }
  return count;
}

int32_t dsmr_lock_mark_consistent(uint32_t lock) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome != 0) return outcome;
  if (claim->state != CLAIM_HELD || claim->mode != LWLOCK_EXCLUSIVE) return DSMR_E_NOT_HELD;
  lwlock_mark_consistent(claim);
  return 0;
}

int32_t dsmr_lock_state(uint32_t lock) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome != 0) return outcome;
  uint32_t owner = atomic_load_explicit(&claim->lock->owner, memory_order_relaxed);
  int32_t state = claim->state == CLAIM_HELD ? claim->mode : 0;
  if ((owner & LOCK_POISON) != 0) state += 4;
  /* A dead owner's phase stays until the next owner's. */
  uint32_t phase = atomic_load_explicit(&claim->lock->phase, memory_order_relaxed);
  if (phase != 0 && phase == LOCK_TOKEN(owner)) state += 8;
  /* Who is inside need not look at other slots for that: a hold asks this when it ends. */
  if (state % 4 == LWLOCK_SHARED || lwlock_has_readers(claim)) state += 16;
  bool is_others = LOCK_TOKEN(owner) != 0 && LOCK_TOKEN(owner) != claim->token;
  if (is_others || (owner & (LOCK_WAITERS | LOCK_STARVING)) != 0) state += 32;
  return state;
}

/* ---- variables ------------------------------------------------------------------------- */

static int32_t variable_of(const struct claim *claim, uint32_t low, uint32_t high,
                           _Atomic uint64_t **variable) {
  uint64_t place = 0;
  int32_t outcome = claim_place(claim->attachment, low, high, sizeof(uint64_t), &place, NULL);
  if (outcome != 0) return outcome;
  *variable = (_Atomic uint64_t *)(void *)segment_lock_at(claim->attachment->mapping, place);
  return 0;
}

int32_t dsmr_lock_update_variable(uint32_t lock, uint32_t offset_low, uint32_t offset_high,
                                  const uint64_t *value, uint32_t release_too) {
  struct claim *claim = NULL;
  _Atomic uint64_t *variable = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome != 0) return outcome;
  if (claim->state != CLAIM_HELD || claim->mode != LWLOCK_EXCLUSIVE) return DSMR_E_NOT_HELD;
  outcome = variable_of(claim, offset_low, offset_high, &variable);
  if (outcome != 0) return outcome;
  lwlock_update_variable(claim, variable, *value);
  if (release_too != 0) lwlock_release(claim);
  return 0;
}

/* A wait of this length looks for a cycle, at the end of each slice. */
#ifndef LOOK_AFTER_NS /* likewise */
#define LOOK_AFTER_NS 20000000u
#endif

static int32_t wait_published(struct claim *claim, _Atomic uint64_t *variable, uint64_t *value,
                              uint64_t *started_ns, int32_t timeout_ms) {
  uint64_t now = os_monotonic_ns();
  if (*started_ns == 0) *started_ns = now;
  uint64_t given = timeout_ms < 0 ? UINT64_MAX / 2 : (uint64_t)timeout_ms * 1000000u;
  uint64_t slice_ends = now + LOCK_SLICE_NS;
  uint64_t look_ns = now - *started_ns < LOOK_AFTER_NS ? *started_ns + LOOK_AFTER_NS : now;
  uint64_t expected = value == NULL ? 0 : *value;
  lwlock_publish_wait(claim, *started_ns, variable, expected);
  for (;;) {
    uint64_t until = sooner(slice_ends, *started_ns + given);
    if (look_ns != 0) until = sooner(until, look_ns);
    int32_t outcome = lwlock_wait_for_variable(claim, variable, expected, value, until);
    if (outcome <= LWLOCK_ACQUIRED_ABANDONED) return outcome;
    if (!control_is_ready(&claim->backend->control)) return DSMR_E_CLOSED;
    if (outcome == LWLOCK_DEAD) (void)claim_clear_the_dead(claim);
    now = os_monotonic_ns();
    if (now - *started_ns >= given) return DSMR_E_TIMEOUT;
    if (look_ns != 0 && now >= look_ns) {
      look_ns = 0;
      if (closes_cycle(claim)) return DSMR_E_DEADLOCK;
      if (lwlock_is_damaged(claim)) return DSMR_E_CORRUPT;
    }
    if (now >= slice_ends) return DSMR_LOCK_BUSY;
  }
}

/* Waits for a variable, or with NULL for the release, until the slice or the time is over. */
static int32_t wait_slice(struct claim *claim, _Atomic uint64_t *variable, uint64_t *value,
                          uint64_t *started_ns, int32_t timeout_ms) {
  if (*started_ns == 0) claim->damage_count = 0;
  int32_t outcome = wait_published(claim, variable, value, started_ns, timeout_ms);
  /* Between two slices the caller may do anything: that is no wait. */
  lwlock_publish_wait(claim, 0, NULL, 0);
  return outcome;
}

int32_t dsmr_lock_wait_for_variable(uint32_t lock, uint32_t offset_low, uint32_t offset_high,
                                    uint64_t *value, uint64_t *started_ns, int32_t timeout_ms) {
  struct claim *claim = NULL;
  _Atomic uint64_t *variable = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome == 0) outcome = variable_of(claim, offset_low, offset_high, &variable);
  if (outcome != 0) return outcome;
  if (claim->state == CLAIM_HELD && claim->mode == LWLOCK_EXCLUSIVE) return DSMR_E_ALREADY_HELD;
  return wait_slice(claim, variable, value, started_ns, timeout_ms);
}

int32_t dsmr_lock_acquire_or_wait(uint32_t lock, uint64_t *started_ns, int32_t timeout_ms) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome == 0) outcome = may_begin(claim, DSMR_EXCLUSIVE);
  if (outcome != 0) return outcome;
  if (*started_ns == 0) {
    outcome = lwlock_try(claim, LWLOCK_EXCLUSIVE);
    if (outcome != LWLOCK_BUSY) return outcome;
  }
  outcome = wait_slice(claim, NULL, NULL, started_ns, timeout_ms);
  if (outcome == LWLOCK_ACQUIRED) {
    /* Let go, or held by the dead alone: a reader's mark would keep the next call out, too. */
    if (lwlock_is_blocked_by_dead(claim)) (void)claim_clear_the_dead(claim);
    return DSMR_LOCK_BUSY;
  }
  return outcome == DSMR_LOCK_BUSY ? DSMR_LOCK_NOT_YET : outcome;
}

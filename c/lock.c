/*
 * lock.c - the public calls on locks: handles, arguments, what a backend may do, time.
 *
 * The protocol is lwlock.c's. Here is what makes it a backend's: that one backend asks for a
 * lock once at a time, that its journal has room, and that whoever meets a dead backend in
 * its way reaps it.
 */
#include "backend.h"
#include "entry.h"
#include "handle.h"
#include "lwlock.h"
#include "os.h"
#include "segment.h"
#include "status.h"
#include "tranche.h"
#include "waitgraph.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* How long a call that waits lasts at most: runtimes end Workers between two calls. */
#define SLICE_NS 100000000u

static int32_t claim_find(uint32_t handle, struct claim **found) {
  *found = handle_find(handle, HANDLE_LOCK);
  if (*found != NULL) return 0;
  return handle_is_foreign(handle, HANDLE_LOCK) ? DSMR_E_UNSUPPORTED : DSMR_E_CLOSED;
}

/* ---- handles -------------------------------------------------------------------------- */

static int32_t claim_of(struct attachment *attachment, uint64_t offset, dsmr_error *error) {
  struct backend *backend = attachment->backend;
  struct lwlock *lock = segment_lock_at(attachment->mapping, offset);
  if (!lwlock_is_initialized(lock)) {
    return FAIL_NUMBERS(error, DSMR_E_CORRUPT, 0, offset,
                        "There is no lock at byte %" PRId64 " of the segment: it was never "
                        "initialised, or was overwritten. Make it with initLock, in the init "
                        "callback.",
                        (int64_t)offset - (int64_t)SEGMENT_DATA_OFFSET);
  }
  for (struct claim *c = attachment->claims; c != NULL; c = c->next) {
    if (c->lock == lock) return (int32_t)c->handle;
  }
  struct claim *claim = calloc(1, sizeof *claim);
  if (claim != NULL) claim->handle = handle_create(HANDLE_LOCK, claim);
  if (claim == NULL || claim->handle == 0) {
    free(claim);
    return FAIL(error, DSMR_E_NO_SPACE,
                "Cannot use the lock: the process is out of memory, or uses %u registries, "
                "segments and locks. Detach some.",
                HANDLES_MAX);
  }
  claim->lock = lock;
  claim->slot = &backend->control.backends[backend->slot];
  claim->backend = backend;
  claim->attachment = attachment;
  claim->record = HELD_RECORD(offset / LOCK_SIZE, attachment->entry, 0);
  claim->token = LOCK_TOKEN_OF(backend->id);
  claim->next = attachment->claims;
  attachment->claims = claim;
  return (int32_t)claim->handle;
}

int32_t dsmr_lock_of_segment(uint32_t segment, dsmr_error *error) {
  struct attachment *attachment = NULL;
  int32_t outcome = attachment_find(segment, &attachment, error);
  return outcome == 0 ? claim_of(attachment, SEGMENT_LOCK_OFFSET, error) : outcome;
}

/* The place in the file of `length` bytes at an offset of the user's. */
static int32_t place_of(const struct attachment *attachment, uint32_t low, uint32_t high,
                        uint32_t length, uint64_t *place, dsmr_error *error) {
  uint64_t offset = (uint64_t)high << 32 | low;
  if (offset % length != 0 || offset > attachment->size || attachment->size - offset < length) {
    return FAIL_NUMBERS(error, DSMR_E_SIZE_INVALID, attachment->size, offset,
                        "Byte %" PRIu64 " is no place for %u bytes in a segment of %" PRIu64
                        ": it must be a multiple of %u, with room behind it.",
                        offset, length, attachment->size, length);
  }
  *place = SEGMENT_DATA_OFFSET + offset;
  return 0;
}

int32_t dsmr_lock_at(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
                     dsmr_error *error) {
  struct attachment *attachment = NULL;
  uint64_t place = 0;
  int32_t outcome = attachment_find(segment, &attachment, error);
  if (outcome == 0) {
    outcome = place_of(attachment, offset_low, offset_high, LOCK_SIZE, &place, error);
  }
  return outcome == 0 ? claim_of(attachment, place, error) : outcome;
}

static bool is_held(const struct lwlock *lock) {
  bool has_readers = false;
  for (uint32_t i = 0; i < DSMR_BACKENDS_MAX / 64; i++) {
    has_readers |= atomic_load_explicit(&lock->readers[i], memory_order_relaxed) != 0;
  }
  return has_readers ||
         LOCK_TOKEN(atomic_load_explicit(&lock->owner, memory_order_relaxed)) != 0;
}

int32_t dsmr_lock_init(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
                       uint32_t tranche, dsmr_error *error) {
  struct attachment *attachment = NULL;
  uint64_t place = 0;
  int32_t outcome = attachment_find(segment, &attachment, error);
  if (outcome == 0) {
    outcome = place_of(attachment, offset_low, offset_high, LOCK_SIZE, &place, error);
  }
  if (outcome != 0) return outcome;
  if (!tranche_exists(&attachment->backend->control, tranche)) {
    return FAIL_NUMBERS(error, DSMR_E_NOT_FOUND, 0, tranche,
                        "There is no tranche %u in registry \"%s\". Make it with newTranche.",
                        tranche, attachment->backend->control.place.name);
  }
  struct lwlock *lock = segment_lock_at(attachment->mapping, place);
  if (lwlock_is_initialized(lock) && is_held(lock)) {
    return FAIL_NUMBERS(error, DSMR_E_ALREADY_HELD, 0, place - SEGMENT_DATA_OFFSET,
                        "There is a lock at byte %" PRIu64 " already, and it is held. Initialise "
                        "locks in the init callback, once.",
                        place - SEGMENT_DATA_OFFSET);
  }
  lwlock_initialize(lock, tranche);
  return 0;
}

/* ---- taking -------------------------------------------------------------------------- */

/* May this claim begin? Nothing else of a backend's is checked on the way in. */
static int32_t may_begin(const struct claim *claim, uint32_t mode) {
  if (claim->state == CLAIM_HELD) return DSMR_E_ALREADY_HELD;
  if (mode != DSMR_SHARED && mode != DSMR_EXCLUSIVE) return DSMR_E_SIZE_INVALID;
  if (claim->backend->journal_free_count == 0) return DSMR_E_NO_SPACE;
  return 0;
}

int32_t dsmr_lock_try(uint32_t lock, uint32_t mode) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome == 0) outcome = may_begin(claim, mode);
  if (outcome != 0) return outcome;
  if (claim->state != CLAIM_IDLE) return DSMR_E_ALREADY_HELD; /* it is being waited for */
  return lwlock_try(claim, (enum lwlock_mode)mode);
}

/* The backend id behind a token that nobody has: good enough to be taken out of a lock. */
static uint32_t id_of(uint32_t token) {
  return BACKEND_ID(token >> 9, LOCK_TOKEN_SLOT(token) & 0xffu);
}

/*
 * Somebody who blocks this lock is dead. Reaps; and, should the lock name backends that the
 * table does not know, which only damaged memory does, takes those out: nobody else would.
 */
static void clear_the_dead(struct claim *claim) {
  struct control *control = &claim->backend->control;
  struct lwlock *lock = claim->lock;
  if (control_enter(control, NULL) != 0) return;
  backend_reap_dead(control, claim->backend->slot);
  uint32_t owner = LOCK_TOKEN(atomic_load_explicit(&lock->owner, memory_order_relaxed));
  uint32_t starving = LOCK_TOKEN(atomic_load_explicit(&lock->starving, memory_order_relaxed));
  if (owner != 0 && !lwlock_token_is_known(control, owner)) (void)lwlock_reap(lock, id_of(owner));
  if (starving != 0 && !lwlock_token_is_known(control, starving)) {
    (void)lwlock_reap(lock, id_of(starving));
  }
  for (uint32_t slot = 0; slot < DSMR_BACKENDS_MAX; slot++) {
    uint32_t word = 0;
    if (slot < control->backend_count_max) {
      word = atomic_load_explicit(&control->backends[slot].word, memory_order_relaxed);
    }
    uint64_t bits = atomic_load_explicit(&lock->readers[slot / 64], memory_order_relaxed);
    if ((bits >> slot % 64 & 1) != 0 && SLOT_STATE(word) != SLOT_LIVE) {
      (void)lwlock_reap(lock, BACKEND_ID(SLOT_GENERATION(word), slot));
    }
  }
  control_unlock(control);
}

static bool closes_cycle(struct claim *claim) {
  struct control *control = &claim->backend->control;
  if (control_enter(control, NULL) != 0) return false;
  bool has_cycle = waitgraph_has_cycle(control, claim->backend->slot);
  /* Still under the lock: the next one that looks must not find this cycle, too. */
  if (has_cycle) lwlock_cancel(claim);
  control_unlock(control);
  return has_cycle;
}

static uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Everything that is not the first, successful attempt. */
__attribute__((noinline)) static int32_t acquire_slowly(struct claim *claim, uint32_t mode,
                                                        int32_t timeout_ms) {
  uint64_t slice_ends = os_monotonic_ns() + SLICE_NS;
  uint64_t given = timeout_ms < 0 ? UINT64_MAX / 2 : (uint64_t)timeout_ms * 1000000u;
  for (;;) {
    uint64_t since = claim->waiting_since_ns;
    if (since == 0) since = os_monotonic_ns();
    uint64_t until = earlier(slice_ends, since + given);
    int32_t outcome = lwlock_acquire(claim, (enum lwlock_mode)mode, until);
    if (outcome <= LWLOCK_ACQUIRED_ABANDONED) return outcome;
    if (!control_is_ready(&claim->backend->control)) {
      lwlock_cancel(claim);
      return DSMR_E_CLOSED;
    }
    if (outcome == LWLOCK_DEAD) {
      clear_the_dead(claim);
    } else if (outcome == LWLOCK_LOOK) {
      if (closes_cycle(claim)) return DSMR_E_DEADLOCK;
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

int32_t dsmr_lock_acquire(uint32_t lock, uint32_t mode, int32_t timeout_ms) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome == 0) outcome = may_begin(claim, mode);
  if (outcome != 0) return outcome;
  if (claim->state == CLAIM_IDLE) {
    outcome = lwlock_acquire(claim, (enum lwlock_mode)mode, 0);
    if (outcome <= LWLOCK_ACQUIRED_ABANDONED) return outcome;
  }
  return acquire_slowly(claim, mode, timeout_ms);
}

int32_t dsmr_lock_cancel(uint32_t lock) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome == 0) lwlock_cancel(claim);
  return outcome;
}

int32_t dsmr_lock_release(uint32_t lock) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome != 0) return outcome;
  if (claim->state != CLAIM_HELD) return DSMR_E_NOT_HELD;
  lwlock_release(claim);
  return 0;
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
  uint64_t readers = 0;
  for (uint32_t i = 0; i < DSMR_BACKENDS_MAX / 64; i++) {
    readers |= atomic_load_explicit(&claim->lock->readers[i], memory_order_relaxed);
  }
  int32_t state = claim->state == CLAIM_HELD ? claim->mode : 0;
  if ((owner & LOCK_POISON) != 0) state += 4;
  /* A dead owner's phase stays until the next owner's. */
  uint32_t phase = atomic_load_explicit(&claim->lock->phase, memory_order_relaxed);
  if (phase != 0 && phase == LOCK_TOKEN(owner)) state += 8;
  if (readers != 0) state += 16;
  return state;
}

/* ---- variables ------------------------------------------------------------------------- */

static int32_t variable_of(const struct claim *claim, uint32_t low, uint32_t high,
                           _Atomic uint64_t **variable) {
  uint64_t place = 0;
  int32_t outcome = place_of(claim->attachment, low, high, sizeof(uint64_t), &place, NULL);
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

/* Waits for a variable, or with NULL for the release, until the slice or the time is over. */
static int32_t wait_slice(struct claim *claim, _Atomic uint64_t *variable, uint64_t *value,
                          uint64_t *started_ns, int32_t timeout_ms) {
  uint64_t now = os_monotonic_ns();
  if (*started_ns == 0) *started_ns = now;
  uint64_t given = timeout_ms < 0 ? UINT64_MAX / 2 : (uint64_t)timeout_ms * 1000000u;
  uint64_t slice_ends = now + SLICE_NS;
  uint64_t expected = value == NULL ? 0 : *value;
  for (;;) {
    int32_t outcome = lwlock_wait_for_variable(claim, variable, expected, value,
                                               earlier(slice_ends, *started_ns + given));
    if (outcome <= LWLOCK_ACQUIRED_ABANDONED) return outcome;
    if (!control_is_ready(&claim->backend->control)) return DSMR_E_CLOSED;
    if (outcome == LWLOCK_DEAD) clear_the_dead(claim);
    now = os_monotonic_ns();
    if (now - *started_ns >= given) return DSMR_E_TIMEOUT;
    if (now >= slice_ends) return DSMR_LOCK_BUSY;
  }
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
  if (outcome == LWLOCK_ACQUIRED) return DSMR_LOCK_BUSY; /* it was let go: not ours */
  return outcome == DSMR_LOCK_BUSY ? DSMR_LOCK_NOT_YET : outcome;
}

/* ---- messages --------------------------------------------------------------------------- */

/* Who has it, for a message: a pid, or 0. */
static uint32_t holder_pid(const struct claim *claim) {
  const struct control *control = &claim->backend->control;
  uint32_t token = LOCK_TOKEN(atomic_load_explicit(&claim->lock->owner, memory_order_relaxed));
  uint32_t slot = LOCK_TOKEN_SLOT(token);
  if (token != 0) return slot < control->backend_count_max ? control->backends[slot].pid : 0;
  for (slot = 0; slot < control->backend_count_max; slot++) {
    uint64_t word =
        atomic_load_explicit(&claim->lock->readers[slot / 64], memory_order_relaxed);
    if ((word >> slot % 64 & 1) != 0) return control->backends[slot].pid;
  }
  return 0;
}

int32_t dsmr_lock_explain(uint32_t lock, int32_t status, int32_t timeout_ms, dsmr_error *error) {
  struct claim *claim = NULL;
  if (claim_find(lock, &claim) != 0) {
    return FAIL(error, status, "The lock's segment is detached. Ask the registry for it anew.");
  }
  char name[DSMR_NAME_SIZE] = "";
  (void)tranche_name(&claim->backend->control, claim->lock->tranche, name);
  uint32_t pid = holder_pid(claim);
  switch (status) {
    case DSMR_E_ALREADY_HELD:
      return FAIL(error, status,
                  "Lock \"%s\" is held, or waited for, by this backend already. Locks are not "
                  "re-entrant: release it first.",
                  name);
    case DSMR_E_NOT_HELD:
      return FAIL(error, status,
                  "Lock \"%s\" is not held by this backend, or not in the mode that this needs.",
                  name);
    case DSMR_E_TIMEOUT:
      return FAIL_NUMBERS(error, status, pid, (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms),
                          "Lock \"%s\" was not to be had within %d ms; process %u has it. Give it "
                          "more time, or see what that process is doing.",
                          name, timeout_ms, pid);
    case DSMR_E_DEADLOCK:
      return FAIL_NUMBERS(error, status, pid, 0,
                          "Waiting for lock \"%s\" would never end: process %u, which has it, "
                          "waits in the end for this backend. Acquire locks in the same order "
                          "everywhere.",
                          name, pid);
    case DSMR_E_NO_SPACE:
      return FAIL_NUMBERS(error, status, HELD_MAX, HELD_MAX + 1,
                          "Cannot acquire lock \"%s\": this backend holds %u locks, which is all "
                          "it can. Release some.",
                          name, HELD_MAX);
    case DSMR_E_SIZE_INVALID:
      return FAIL(error, status,
                  "A mode that is none, or an offset that is no multiple of 8 inside the segment, "
                  "for lock \"%s\".",
                  name);
    case DSMR_E_CLOSED:
      return FAIL(error, status,
                  "Registry \"%s\" was destroyed while waiting for lock \"%s\". Open it anew.",
                  claim->backend->control.place.name, name);
    default:
      return FAIL(error, status, "Lock \"%s\" failed.", name);
  }
}

/* ---- tranches ------------------------------------------------------------------------------ */

int32_t dsmr_tranche_new(uint32_t registry, const char *name, uint32_t name_length,
                         uint32_t segment, dsmr_error *error) {
  struct backend *backend = NULL;
  struct attachment *owner = NULL;
  int32_t outcome = backend_find(registry, &backend, error);
  if (outcome == 0) outcome = status_check_name(error, "tranche", name, name_length);
  if (outcome == 0 && segment != 0) outcome = attachment_find(segment, &owner, error);
  if (outcome == 0) outcome = control_enter(&backend->control, error);
  if (outcome != 0) return outcome;
  struct control *control = &backend->control;
  if (owner != NULL) control->entries[owner->entry].flags |= ENTRY_HAS_TRANCHES;
  uint32_t id = tranche_create(control, name, name_length, owner == NULL ? 0 : owner->id);
  control_unlock(control);
  if (id != 0) return (int32_t)id;
  return FAIL_NUMBERS(error, DSMR_E_TRANCHES_FULL, TRANCHES_MAX, TRANCHES_MAX + 1,
                      "Cannot make tranche \"%.*s\": registry \"%s\" has %u, which is all it has "
                      "room for. Drop some; one for each kind of lock is enough.",
                      (int)name_length, name, control->place.name, TRANCHES_MAX);
}

int32_t dsmr_tranche_drop(uint32_t registry, uint32_t tranche, dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, error);
  if (outcome == 0) outcome = control_enter(&backend->control, error);
  if (outcome != 0) return outcome;
  bool was_there = tranche_remove(&backend->control, tranche);
  control_unlock(&backend->control);
  return was_there;
}

static void add_tranche(const struct control *control, uint32_t id, dsmr_tranche_info *infos,
                        uint32_t capacity, uint32_t *count) {
  const struct lock_counters *counters = tranche_counters(control, id);
  if (*count < capacity && counters != NULL) {
    dsmr_tranche_info *info = &infos[*count];
    *info = (dsmr_tranche_info){
        .id = TRANCHE_IS_OF_ENTRY(id) ? 0 : id,
        .contended = atomic_load_explicit(&counters->contended, memory_order_relaxed),
        .waited_ns = atomic_load_explicit(&counters->waited_ns, memory_order_relaxed),
        .abandoned = atomic_load_explicit(&counters->abandoned, memory_order_relaxed),
    };
    info->name_length = tranche_name(control, id, info->name);
  }
  (*count)++;
}

int32_t dsmr_tranches(uint32_t registry, dsmr_tranche_info *infos, uint32_t capacity,
                      dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, error);
  if (outcome == 0) outcome = control_enter(&backend->control, error);
  if (outcome != 0) return outcome;
  const struct control *control = &backend->control;
  uint32_t count = 0;
  for (uint32_t row = 0; row < TRANCHES_MAX; row++) {
    uint32_t id = atomic_load_explicit(&control->tranches[row].word, memory_order_acquire);
    if (tranche_exists(control, id)) add_tranche(control, id, infos, capacity, &count);
  }
  for (uint32_t i = 0; i < control->entry_capacity; i++) {
    if (ENTRY_STATE(entry_word(control, i)) != ENTRY_READY) continue;
    add_tranche(control, TRANCHE_OF_ENTRY(i), infos, capacity, &count);
  }
  control_unlock(&backend->control);
  return (int32_t)count;
}

/* ---- looking in ------------------------------------------------------------------------------ */

struct lock_listing {
  struct control *control;
  dsmr_lock_info *infos;
  uint32_t capacity;
  uint32_t count;
};

/* The tranche of a lock that is not a segment's own stands in the lock alone. */
static uint32_t tranche_of(struct control *control, const struct entry *entry, uint64_t place) {
  uint32_t tranche = 0;
  struct mapping *mapping = NULL;
  int32_t fd = segment_open(control, "", entry->id, NULL);
  if (fd < 0) return 0;
  if (segment_map(fd, control, "", entry->id, entry->size, &mapping, NULL) == 0) {
    if (place + LOCK_SIZE <= mapping->size) tranche = segment_lock_at(mapping, place)->tranche;
    mapping_release(mapping);
  }
  os_file_close(fd);
  return tranche;
}

static void list_lock(struct lock_listing *listing, uint32_t slot, uint64_t record,
                      uint64_t waiting_since_ns) {
  struct control *control = listing->control;
  uint32_t index = HELD_ENTRY(record);
  if (index >= control->entry_capacity || !entry_is_attachable(control, index)) return;
  if (listing->count++ >= listing->capacity) return;
  const struct entry *entry = &control->entries[index];
  const struct backend_slot *row = &control->backends[slot];
  uint32_t word = atomic_load_explicit(&row->word, memory_order_acquire);
  uint64_t place = HELD_LINE(record) * LOCK_SIZE;
  bool is_own = place == SEGMENT_LOCK_OFFSET;
  dsmr_lock_info *info = &listing->infos[listing->count - 1];
  *info = (dsmr_lock_info){
      .backend_id = BACKEND_ID(SLOT_GENERATION(word), slot),
      .pid = row->pid,
      .mode = HELD_MODE(record),
      .is_waiting = waiting_since_ns != 0,
      .offset = is_own ? UINT64_MAX : place - SEGMENT_DATA_OFFSET,
      .segment_length = entry_name_length(entry),
  };
  if (waiting_since_ns != 0) info->since_ns = os_wall_ns() - (os_monotonic_ns() - waiting_since_ns);
  memcpy(info->segment, entry->name, sizeof info->segment);
  uint32_t tranche = is_own ? TRANCHE_OF_ENTRY(index) : tranche_of(control, entry, place);
  info->tranche_length = tranche_name(control, tranche, info->tranche);
}

int32_t dsmr_locks(uint32_t registry, dsmr_lock_info *infos, uint32_t capacity,
                   dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, error);
  if (outcome == 0) outcome = control_enter(&backend->control, error);
  if (outcome != 0) return outcome;
  struct control *control = &backend->control;
  backend_reap_dead(control, backend->slot);
  struct lock_listing listing = {.control = control, .infos = infos, .capacity = capacity};
  for (uint32_t slot = 0; slot < control->backend_count_max; slot++) {
    const struct backend_slot *row = &control->backends[slot];
    uint32_t word = atomic_load_explicit(&row->word, memory_order_acquire);
    if (SLOT_STATE(word) != SLOT_LIVE) continue;
    uint64_t waiting = atomic_load_explicit(&row->waiting_lock, memory_order_acquire);
    uint64_t since = atomic_load_explicit(&row->waiting_since_ns, memory_order_acquire);
    uint64_t waits_for = HELD_LOCK(waiting & ~UINT64_C(0xfc));
    if (waiting != 0) list_lock(&listing, slot, waiting & ~UINT64_C(0xfc), since);
    for (uint32_t i = 0; i < HELD_MAX; i++) {
      uint64_t record = atomic_load_explicit(&row->held[i], memory_order_acquire);
      /* What it waits for is in the journal, too, while it tries. */
      if (record == 0 || (waiting != 0 && HELD_LOCK(record) == waits_for)) continue;
      list_lock(&listing, slot, record, 0);
    }
  }
  control_unlock(control);
  return (int32_t)listing.count;
}

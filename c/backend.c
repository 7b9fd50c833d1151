/*
 * backend.c - slots: claimed, kept alive by the kernel, reaped.
 *
 * A backend holds an OFD lock on its slot's byte through its own description of the control
 * file. When it dies, however it dies, the kernel drops the lock. Reaping and claiming happen
 * under the table lock only. That is the answer to the hardest race, which is between a
 * reaper and the slot's next tenant: a reaper that stalls half-way still holds the table
 * lock, so nobody can move in; and one that dies lets go of it, so the next reaper begins
 * again. Each step of reaping may be done twice, and the slot's word, stored last, is what
 * makes it free.
 *
 * What reaping goes by: an entry names its initialiser and the slots attached to it; and the
 * slot's journal names every lock that the backend may have marked (see lwlock.c).
 *
 * Death is known from two things, either of which is enough. The death bell rings when the
 * kernel begins to tear the thread down: early, and it wakes whoever listens. The lock on the
 * slot's byte falls when the process's descriptors are closed: late, but always.
 */
#include "backend.h"

#include "database.h"
#include "entry.h"
#include "handle.h"
#include "journal.h"
#include "lwlock.h"
#include "os.h"
#include "reserve.h"
#include "segment.h"
#include "status.h"
#include "tranche.h"
#include "watch.h"

#include <stdlib.h>
#include <string.h>

/* All backends of the process, for fork alone. Under the process lock. */
static struct backend *process_backends;

/* ---- liveness and reaping ------------------------------------------------------------ */

static uint32_t slot_word(const struct control *control, uint32_t slot) {
  /* Acquire; pairs with the release in set_slot_word. */
  return atomic_load_explicit(&control->backends[slot].word, memory_order_acquire);
}

static void set_slot_word(struct control *control, uint32_t slot, uint32_t word) {
  /* Release; pairs with the acquire in slot_word: a LIVE slot's fields are filled. */
  atomic_store_explicit(&control->backends[slot].word, word, memory_order_release);
  control_announce(control);
}

/*
 * A question that the kernel cannot answer counts as "alive": waiting for the dead costs
 * time, robbing the living costs data.
 */
static bool slot_is_held(const struct control *control, uint32_t slot) {
  return os_lock_is_held(control->fd, LOCK_BYTE_SLOT + slot) != 0;
}

_Atomic uint32_t *backend_bell(const struct control *control, uint32_t slot) {
  struct backend_slot *row = &control->backends[slot];
  uint32_t index = atomic_load_explicit(&row->bell_word, memory_order_acquire);
  if (index == 0 || index > OS_BELL_SIZE / sizeof(uint32_t)) return NULL;
  return (_Atomic uint32_t *)(void *)row->bell + (index - 1);
}

static bool slot_bell_has_rung(const struct control *control, uint32_t slot) {
  const _Atomic uint32_t *bell = backend_bell(control, slot);
  return bell != NULL && os_bell_has_rung(bell);
}

bool backend_slot_is_dead(const struct control *control, uint32_t slot) {
  if (slot >= control->backend_count_max) return false;
  if (SLOT_STATE(slot_word(control, slot)) != SLOT_LIVE) return false;
  return slot_bell_has_rung(control, slot) || !slot_is_held(control, slot);
}

bool backend_is_alive(struct control *control, uint32_t own_slot, uint32_t backend_id) {
  uint32_t slot = BACKEND_SLOT(backend_id);
  if (slot >= control->backend_count_max) return false;
  uint32_t word = slot_word(control, slot);
  if (SLOT_STATE(word) != SLOT_LIVE) return false;
  if (BACKEND_ID(SLOT_GENERATION(word), slot) != backend_id) return false;
  /* Our own description never conflicts with itself. */
  return slot == own_slot || !backend_slot_is_dead(control, slot);
}

static void vacate(struct control *control, uint32_t slot) {
  uint32_t generation = SLOT_GENERATION(slot_word(control, slot)) + 1;
  struct backend_slot *row = &control->backends[slot];
  atomic_store_explicit(&row->waiting_entry_id, 0, memory_order_relaxed);
  atomic_store_explicit(&row->waiting_lock, 0, memory_order_relaxed);
  atomic_store_explicit(&row->watched_lock, 0, memory_order_relaxed);
  atomic_store_explicit(&row->bell_word, 0, memory_order_relaxed);
  set_slot_word(control, slot, SLOT_WORD(generation, SLOT_FREE));
}

/* Takes a dead backend out of one lock that its journal names. */
static void reap_lock(struct control *control, uint64_t record, uint32_t backend_id) {
  uint32_t index = HELD_ENTRY(record);
  if (HELD_MODE(record) == 0 || index >= control->entry_capacity) return;
  if (!entry_is_attachable(control, index)) return;
  const struct entry *entry = &control->entries[index];
  uint64_t offset = HELD_LINE(record) * LOCK_SIZE;
  if (offset < SEGMENT_LOCK_OFFSET) return;
  struct mapping *mapping = NULL;
  int32_t fd = segment_open(control, "", entry->id, NULL);
  if (fd < 0) return;
  if (segment_map(fd, control, "", entry->id, entry->size, &mapping, NULL) == 0) {
    struct lwlock *lock = segment_lock_at(mapping, offset);
    /* Not the entry's size, which may be another one by now. */
    bool is_lock = offset + LOCK_SIZE <= mapping->size && lwlock_is_initialized(lock);
    if (is_lock && lwlock_reap(lock, LOCK_TOKEN_OF(backend_id))) {
      struct lock_counters *counters = tranche_counters(control, lock->tranche);
      if (counters != NULL) atomic_fetch_add_explicit(&counters->abandoned, 1, memory_order_relaxed);
    }
    mapping_release(mapping);
  }
  os_file_close(fd);
}

/*
 * Locks first: their segments must still be there. Killed anywhere in here, the slot is still
 * LIVE and dead, and the next one begins again; what is done already does nothing then.
 */
static void reap(struct control *control, uint32_t slot) {
  uint32_t backend_id = BACKEND_ID(SLOT_GENERATION(slot_word(control, slot)), slot);
  struct backend_slot *row = &control->backends[slot];
  for (uint32_t i = 0; i < HELD_CELLS; i++) {
    uint64_t record = atomic_load_explicit(&row->held[i], memory_order_acquire);
    if (record == 0) continue;
    /* A mark goes before those who wait for that are woken; the record stays until they are. */
    if (i >= HELD_MAX) atomic_store(&row->held[i], record | HELD_UNMARKED);
    reap_lock(control, record, backend_id);
    atomic_store_explicit(&row->held[i], 0, memory_order_release);
  }
  /* What it waited for may have its name as the one that starves. */
  uint64_t waiting = atomic_load_explicit(&row->waiting_lock, memory_order_acquire);
  if (waiting != 0) reap_lock(control, waiting & ~UINT64_C(0xfc), backend_id);
  uint64_t watched = atomic_load_explicit(&row->watched_lock, memory_order_acquire);
  if (watched != 0) reap_lock(control, watched & ~UINT64_C(0xfc), backend_id);
  entry_forget_backend(control, backend_id);
  vacate(control, slot);
}

uint32_t backend_reap_dead(struct control *control, uint32_t own_slot) {
  uint32_t alive = 0;
  for (uint32_t slot = 0; slot < control->backend_count_max; slot++) {
    if (SLOT_STATE(slot_word(control, slot)) != SLOT_LIVE) continue;
    if (slot == own_slot || !backend_slot_is_dead(control, slot)) {
      alive++;
    } else {
      reap(control, slot);
    }
  }
  return alive;
}

/* The newest bell that hangs, of these backends of a thread, newest first. */
static void *newest_bell(const struct backend *b) {
  while (b != NULL && b->bell == NULL) b = b->next_of_thread;
  return b == NULL ? NULL : b->bell;
}

/* Takes our bell down: the kernel must not be left with the address of memory that goes. We are
 * not in the thread's list any more, but still know what came after us there. */
static void unhang_bell(struct backend *backend) {
  if (backend->bell == NULL) return;
  void *newer = NULL;
  const struct backend *b = process_thread_list();
  for (; b != backend->next_of_thread; b = b->next_of_thread) newer = b->bell ? b->bell : newer;
  os_bell_unhang(backend->bell, newer, newest_bell(b));
  backend->bell = NULL;
}

/* ---- claiming a slot ------------------------------------------------------------------- */

static int32_t claim_slot(struct backend *backend, const struct backend_options *options,
                          dsmr_error *error) {
  struct control *control = &backend->control;
  for (uint32_t slot = 0; slot < control->backend_count_max; slot++) {
    uint32_t word = slot_word(control, slot);
    if (SLOT_STATE(word) == SLOT_LIVE) continue;
    /* Free in the table, yet held: by something that is no backend of ours. Leave it. */
    if (os_lock_try(control->fd, LOCK_BYTE_SLOT + slot) != 0) continue;
    struct backend_slot *row = &control->backends[slot];
    row->database_id = backend->database_id;
    row->pid = os_pid();
    row->tid = os_tid();
    row->thread = process_thread_number();
    row->attached_ns = os_wall_ns();
    memcpy(row->label, options->label, sizeof row->label);
    atomic_store_explicit(&row->waiting_entry, 0, memory_order_relaxed);
    atomic_store_explicit(&row->waiting_entry_id, 0, memory_order_relaxed);
    atomic_store_explicit(&row->waiting_lock, 0, memory_order_relaxed);
    atomic_store_explicit(&row->watched_lock, 0, memory_order_relaxed);
    atomic_store_explicit(&row->waiting_variable, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < HELD_CELLS; i++) {
      atomic_store_explicit(&row->held[i], 0, memory_order_relaxed);
    }
    /* Without a bell, a death is found out by looking. */
    int32_t bell_index = os_bell_hang(row->bell, newest_bell(process_thread_list()), &backend->bell);
    atomic_store_explicit(&row->bell_word, bell_index < 0 ? 0 : (uint32_t)bell_index + 1,
                          memory_order_release);
    /* Generation 0 is skipped, so that no backend has the id 0. */
    uint32_t generation = SLOT_GENERATION(word);
    if (generation == 0) generation = 1;
    set_slot_word(control, slot, SLOT_WORD(generation, SLOT_LIVE));
    backend->slot = slot;
    backend->id = BACKEND_ID(generation, slot);
    return 0;
  }
  return FAIL_NUMBERS(error, DSMR_E_BACKENDS_FULL, control->backend_count_max,
                      control->backend_count_max + 1,
                      "Cannot attach to registry \"%s\": all %u backends are in use by live "
                      "threads. Close one, or create the registry with a larger maxBackends (at "
                      "most %u).",
                      control->place.name, control->backend_count_max, DSMR_BACKENDS_MAX);
}

/* Returns 1 if the registry was destroyed while we opened it: open it again. */
static int32_t join(struct backend *backend, const struct backend_options *options,
                    dsmr_error *error) {
  struct control *control = &backend->control;
  int32_t patience = options->timeout_ms < 0 ? DSMR_TABLE_PATIENCE_MS : options->timeout_ms;
  int32_t outcome = control_lock(control, patience, error);
  if (outcome != 0) return outcome;
  if (control_is_live(control)) {
    backend_reap_dead(control, SLOT_NONE);
    outcome = database_claim(control, options->database, options->database_length,
                             options->mode == DSMR_MODE_LOOK, &backend->database_id, error);
    if (outcome == 0) outcome = claim_slot(backend, options, error);
  } else {
    outcome = 1;
  }
  control_unlock(control);
  return outcome;
}

/* ---- the backends of this process -------------------------------------------------------- */

static void enlist(struct backend *backend) {
  backend->next_of_thread = process_thread_list();
  process_set_thread_list(backend);
  process_lock();
  backend->next_of_process = process_backends;
  process_backends = backend;
  process_unlock();
}

static void delist(struct backend *backend) {
  struct backend *head = process_thread_list();
  struct backend **link = &head;
  while (*link != NULL && *link != backend) link = &(*link)->next_of_thread;
  if (*link != NULL) *link = backend->next_of_thread;
  process_set_thread_list(head);
  process_lock();
  link = &process_backends;
  while (*link != NULL && *link != backend) link = &(*link)->next_of_process;
  if (*link != NULL) *link = backend->next_of_process;
  process_unlock();
}

static void leave_zeros(const struct backend *backend) {
  for (uint32_t i = 0; backend->attachments != NULL && i < backend->control.entry_capacity; i++) {
    for (struct attachment *a = backend->attachments[i]; a != NULL; a = a->next) {
      mapping_set_end(a->mapping, MAPPING_ZEROS_FOR_EVER);
    }
  }
}

/*
 * A thread that ends leaves its registries in good order, as if it had closed them. It cannot
 * say whether somebody was handed an address of its segments (a terminated Worker may have
 * transferred an ArrayBuffer), so the addresses stay readable.
 */
static void close_thread(void *list) {
  /* In a forked child that has not started the library they are the parent's, which lives. */
  if (!process_is_started()) return;
  /* The key's value was reset before this call; closing looks at it. */
  process_set_thread_list(list);
  while (process_thread_list() != NULL) {
    leave_zeros(process_thread_list());
    backend_close(process_thread_list());
  }
}

/*
 * In a forked child the descriptors are the parent's: closing our copies drops no lock, and
 * lets the parent's death be noticed. What the parent has mapped stays mapped here.
 */
static void close_inherited(void) {
  for (struct backend *b = process_backends; b != NULL; b = b->next_of_process) {
    os_file_close(b->control.fd);
  }
  process_backends = NULL;
  watch_after_fork();
}

int32_t backend_start_process(dsmr_error *error) {
  int32_t outcome = process_start(close_thread, close_inherited);
  if (outcome != 0) {
    return FAIL(error, outcome,
                "Cannot start the library: out of memory, or of random numbers.");
  }
  return 0;
}

/* ---- open and close ------------------------------------------------------------------------ */

/* Opens the control file and claims a slot, as often as it is destroyed meanwhile. */
static int32_t enter(struct backend *backend, const struct control_place *place,
                     const struct backend_options *options, dsmr_error *error) {
  for (;;) {
    int32_t outcome = control_open(&backend->control, place, options->mode, options->limits, error);
    if (outcome != 0) return outcome;
    outcome = join(backend, options, error);
    if (outcome == 0) return 0;
    control_close(&backend->control);
    if (outcome != 1) return outcome;
  }
}

int32_t backend_open(const struct control_place *place, const struct backend_options *options,
                     struct backend **opened, dsmr_error *error) {
  struct backend *backend = calloc(1, sizeof *backend);
  if (backend == NULL) {
    return FAIL(error, DSMR_E_NO_SPACE, "Cannot open registry \"%s\": out of memory.", place->name);
  }
  /* Before the slot, so that nothing has to be undone in shared memory when it fails. */
  backend->handle = handle_create(HANDLE_REGISTRY, backend);
  int32_t outcome = DSMR_E_NO_SPACE;
  if (backend->handle == 0) {
    outcome = FAIL_NUMBERS(error, DSMR_E_NO_SPACE, HANDLES_MAX, HANDLES_MAX + 1,
                           "Cannot open registry \"%s\": this process has %u registries and "
                           "segments attached, which is all it can have. Detach some.",
                           place->name, HANDLES_MAX);
  } else {
    memcpy(backend->database, options->database, options->database_length);
    outcome = enter(backend, place, options, error);
  }
  if (outcome != 0) {
    if (backend->handle != 0) handle_destroy(backend->handle);
    free(backend);
    return outcome;
  }
  enlist(backend);
  *opened = backend;
  return 0;
}

/* Lets go of every lock: whoever leaves inside a lock leaves it abandoned. */
static void abandon_locks(struct backend *backend) {
  for (uint32_t i = 0; backend->attachments != NULL && i < backend->control.entry_capacity; i++) {
    for (struct attachment *a = backend->attachments[i]; a != NULL; a = a->next) {
      attachment_abandon_locks(a);
    }
  }
}

/* Takes what this backend has in the tables out of them. */
static void leave_table(struct backend *backend) {
  struct control *control = &backend->control;
  if (control_is_ready(control)) {
    if (backend->needs_sweep) entry_forget_backend(control, backend->id);
    for (uint32_t i = 0; backend->attachments != NULL && i < control->entry_capacity; i++) {
      for (struct attachment *a = backend->attachments[i]; a != NULL; a = a->next) {
        if (control->entries[i].id != a->id) continue;
        if (ENTRY_STATE(a->word) == ENTRY_INITIALIZING) {
          if (entry_word(control, i) == a->word) entry_remove(control, i);
        } else if (entry_is_attachable(control, i)) {
          entry_detach(control, i, backend->slot);
        }
      }
    }
  }
  vacate(control, backend->slot);
  /* While we still have the table: whoever claims next must find the slot's byte free, too. */
  (void)os_lock_release(control->fd, LOCK_BYTE_SLOT + backend->slot);
}

void attachment_abandon_locks(struct attachment *attachment) {
  struct control *control = &attachment->backend->control;
  for (struct claim *c = attachment->claims; c != NULL; c = c->next) {
    struct lock_counters *counters = tranche_counters(control, c->lock->tranche);
    if (c->state == CLAIM_HELD && c->mode == LWLOCK_EXCLUSIVE && counters != NULL) {
      atomic_fetch_add_explicit(&counters->abandoned, 1, memory_order_relaxed);
    }
    lwlock_abandon(c);
  }
}

static void attachment_free(struct attachment *attachment) {
  watch_end_all(attachment->backend, attachment);
  for (struct claim *claim = attachment->claims; claim != NULL;) {
    struct claim *next = claim->next;
    journal_forget(claim);
    handle_destroy(claim->handle);
    free(claim);
    claim = next;
  }
  free(attachment->buckets);
  handle_destroy(attachment->handle);
  mapping_release(attachment->mapping);
  free(attachment);
}

void backend_close(struct backend *backend) {
  struct control *control = &backend->control;
  delist(backend);
  watch_end_all(backend, NULL);
  reserve_forget(backend);
  abandon_locks(backend);
  /* Without the lock we go as the dead do: the kernel lets go of our slot, others reap it. */
  if (control_lock(control, LEAVE_PATIENCE_MS, NULL) == 0) {
    unhang_bell(backend);
    leave_table(backend);
    control_unlock(control);
  } else {
    unhang_bell(backend);
  }
  for (uint32_t i = 0; backend->attachments != NULL && i < control->entry_capacity; i++) {
    for (struct attachment *a = backend->attachments[i], *next; a != NULL; a = next) {
      next = a->next;
      attachment_free(a);
    }
  }
  free(backend->attachments);
  handle_destroy(backend->handle);
  control_close(control);
  free(backend);
}

/* ---- handles ---------------------------------------------------------------------------- */

/* Why a handle finds nothing. */
static int32_t not_found(uint32_t handle, enum handle_kind kind, const char *what,
                         dsmr_error *error) {
  if (!handle_is_foreign(handle, kind)) return FAIL(error, DSMR_E_CLOSED, "%s", what);
  return FAIL(error, DSMR_E_UNSUPPORTED,
              "This registry was opened by another thread. Open it in each thread (or Worker) "
              "that uses it: each is a backend of its own.");
}

int32_t backend_find(uint32_t handle, struct backend **found, dsmr_error *error) {
  *found = handle_find(handle, HANDLE_REGISTRY);
  if (*found != NULL) return 0;
  return not_found(handle, HANDLE_REGISTRY, "The registry is closed. Open it anew.", error);
}

int32_t backend_enter(uint32_t handle, struct backend **found, dsmr_error *error) {
  int32_t outcome = backend_find(handle, found, error);
  return outcome == 0 ? control_enter(&(*found)->control, error) : outcome;
}

int32_t attachment_find(uint32_t handle, struct attachment **found, dsmr_error *error) {
  *found = handle_find(handle, HANDLE_SEGMENT);
  if (*found != NULL) return 0;
  return not_found(handle, HANDLE_SEGMENT,
                   "The segment is detached. Ask the registry for it anew.", error);
}

struct attachment *attachment_of(const struct backend *backend, uint32_t entry, uint64_t id) {
  if (backend->attachments == NULL) return NULL;
  struct attachment *a = backend->attachments[entry];
  while (a != NULL && a->id != id) a = a->next;
  return a;
}

struct attachment *attachment_create(struct backend *backend, uint32_t entry, uint64_t id,
                                     uint64_t size, uint32_t word, struct mapping *mapping) {
  if (backend->attachments == NULL) {
    backend->attachments = calloc(backend->control.entry_capacity, sizeof *backend->attachments);
    if (backend->attachments == NULL) return NULL;
  }
  struct attachment *a = calloc(1, sizeof *a);
  if (a == NULL) return NULL;
  a->next = backend->attachments[entry];
  a->backend = backend;
  a->mapping = mapping;
  a->id = id;
  a->size = size;
  a->entry = entry;
  a->word = word;
  a->handle = handle_create(HANDLE_SEGMENT, a);
  if (a->handle == 0) {
    free(a);
    return NULL;
  }
  backend->attachments[entry] = a;
  mapping_set_end(mapping, MAPPING_ZEROS_FOR_A_WHILE);
  return a;
}

void attachment_destroy(struct attachment *attachment) {
  struct attachment **link = &attachment->backend->attachments[attachment->entry];
  while (*link != attachment) link = &(*link)->next;
  *link = attachment->next;
  attachment_free(attachment);
}

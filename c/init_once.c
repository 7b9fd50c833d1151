/*
 * init_once.c - the public calls that find, or make, a segment: init-once over the entry table.
 *
 * Init-once. An entry goes FREE -> INITIALIZING(backend) -> READY (see layout.h). `begin`
 * decides under the table lock which of them it meets; the lock is let go before any file is
 * filled, any callback runs, or anybody waits. The races and their answers:
 *
 *   - Two begin at once: the table lock orders them; the second finds INITIALIZING.
 *   - The initialiser commits between a waiter's begin and its sleep: the entry's word has
 *     changed, so the futex does not sleep.
 *   - The initialiser dies: nobody wakes the waiters. Each looks at its liveness after every
 *     bounded sleep, and begins again, which reaps it and makes the waiter initialiser.
 *   - It dies between commit's store and the wake-up: the same bounded sleep, then READY.
 *   - A waits for B's entry, B for A's: each publishes what it waits for before it lets the
 *     table lock go; so the one that comes last sees the whole cycle, and it alone.
 */
#include "init_once.h"

#include "database.h"
#include "entry.h"
#include "os.h"
#include "reserve.h"
#include "segment.h"
#include "status.h"
#include "waitgraph.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* A waiter's first and longest sleep between two looks at its initialiser's liveness. */
#define WAIT_SLEEP_MIN_NS 500000u
#define WAIT_SLEEP_MAX_NS 20000000u
/* How long one dsmr_segment_wait lasts at most: runtimes end Workers between two calls. */
#define WAIT_CALL_MAX_NS 100000000u

/* What one `begin` carries around. */
struct attempt {
  struct backend *backend;
  const char *name;
  uint32_t name_length;
  uint64_t size;
  uint64_t layout;
  uint32_t database_id; /* 0: global */
  uint32_t flags;
  bool is_async;
  dsmr_segment_ticket *ticket;
  dsmr_error *error;
  char shown[DSMR_NAME_SIZE]; /* the name, for messages */
};

/* Publishes what we wait for; read by waitgraph.c of others, under the table lock. */
static void publish_waiting(struct backend *backend, uint32_t entry, uint64_t id) {
  struct backend_slot *row = &backend->control.backends[backend->slot];
  atomic_store_explicit(&row->waiting_since_ns, os_monotonic_ns(), memory_order_relaxed);
  atomic_store_explicit(&row->waiting_entry, id == 0 ? 0 : entry + 1, memory_order_relaxed);
  /* Release; pairs with the acquire in waitgraph.c. */
  atomic_store_explicit(&row->waiting_entry_id, id, memory_order_release);
}

/* How long is left of a request's time; UINT64_MAX = for ever. */
static uint64_t time_left(const dsmr_segment_request *request, const dsmr_segment_ticket *ticket) {
  if (request->timeout_ms < 0) return UINT64_MAX;
  uint64_t spent = os_monotonic_ns() - ticket->started_ns;
  uint64_t given = (uint64_t)request->timeout_ms * 1000000u;
  return spent < given ? given - spent : 0;
}

static int32_t attempt_start(struct attempt *attempt, uint32_t registry, const char *name,
                             uint32_t name_length, dsmr_segment_ticket *ticket,
                             dsmr_error *error) {
  *attempt = (struct attempt){
      .name = name, .name_length = name_length, .ticket = ticket, .error = error};
  int32_t outcome = backend_find(registry, &attempt->backend, error);
  if (outcome == 0) outcome = status_check_name(error, "segment", name, name_length);
  if (outcome != 0) return outcome;
  status_show_name(name, name_length, attempt->shown);
  return 0;
}

static int32_t out_of_handles(struct attempt *attempt) {
  return FAIL(attempt->error, DSMR_E_NO_SPACE,
              "Cannot attach segment \"%s\": this process is out of memory, or has 65,536 "
              "registries and segments attached. Detach some.",
              attempt->shown);
}

/* Whoever is attached keeps the entry's cell, so what is in it is the segment's. */
static void ticket_attachment(dsmr_segment_ticket *ticket, const struct attachment *attachment) {
  ticket->address = (uint64_t)(uintptr_t)attachment->mapping->address + SEGMENT_DATA_OFFSET;
  ticket->size = attachment->size;
  ticket->id = attachment->id;
  ticket->layout = attachment->backend->control.entries[attachment->entry].layout;
  ticket->segment = attachment->handle;
}

/* The entry is INITIALIZING by a live backend. Under the table lock, which it lets go. */
static int32_t begin_wait(struct attempt *attempt, uint32_t index) {
  struct control *control = &attempt->backend->control;
  struct entry *entry = &control->entries[index];
  uint32_t owner = entry->owner;
  /* Overwritten since it was found alive, it may name a slot that is none. */
  uint32_t slot = BACKEND_SLOT(owner) % control->backend_count_max;
  uint32_t pid = control->backends[slot].pid;
  int32_t outcome = DSMR_WAIT;
  /* A task of another backend of our thread goes on while we wait without blocking. */
  if (control->backends[slot].thread == control->backends[attempt->backend->slot].thread &&
      !(attempt->is_async && owner != attempt->backend->id)) {
    outcome = FAIL(attempt->error, DSMR_E_INIT_RECURSION,
                   "Segment \"%s\" was asked for by the thread that is initialising it, in its own "
                   "init callback. Use the segment that the callback is given.",
                   attempt->shown);
  } else {
    if (!attempt->is_async) publish_waiting(attempt->backend, index, entry->id);
    attempt->ticket->entry = index;
    attempt->ticket->word = entry_word(control, index);
    attempt->ticket->owner = owner;
    attempt->ticket->owner_pid = pid;
  }
  if (outcome == DSMR_WAIT && !attempt->is_async && waitgraph_has_cycle(control, attempt->backend->slot)) {
    publish_waiting(attempt->backend, 0, 0);
    outcome = FAIL_NUMBERS(attempt->error, DSMR_E_DEADLOCK, pid, 0,
                           "Cannot wait for segment \"%s\": process %u, which initialises it, "
                           "waits in the end for this backend. Ask for segments and locks in the "
                           "same order everywhere.",
                           attempt->shown, pid);
  }
  control_unlock(control);
  return outcome;
}

/* The entry is READY. Under the table lock, which it lets go. */
static int32_t begin_attach(struct attempt *attempt, uint32_t index) {
  struct backend *backend = attempt->backend;
  struct control *control = &backend->control;
  struct entry *entry = &control->entries[index];
  uint64_t id = entry->id;
  uint64_t size = entry->size;
  uint32_t word = entry_word(control, index);
  if (attempt->layout != 0 && attempt->layout != entry->layout) {
    uint64_t layout = entry->layout;
    control_unlock(control);
    return FAIL_NUMBERS(attempt->error, DSMR_E_LAYOUT_MISMATCH, layout, attempt->layout,
                        "Cannot attach segment \"%s\": its layout is %016" PRIx64 "%s, %016" PRIx64
                        " was requested. Drop it first, or omit the layout to take it as it is.",
                        attempt->shown, layout, layout == 0 ? " (none)" : "", attempt->layout);
  }
  if (attempt->size != 0 && attempt->size != size) {
    control_unlock(control);
    return FAIL_NUMBERS(attempt->error, DSMR_E_SIZE_MISMATCH, size, attempt->size,
                        "Cannot attach segment \"%s\": it has %" PRIu64 " bytes, %" PRIu64
                        " were requested. Drop it first, or omit the size to take it as it is.",
                        attempt->shown, size, attempt->size);
  }
  struct attachment *attachment = attachment_of(backend, index, id);
  if (attachment != NULL) {
    control_unlock(control);
    ticket_attachment(attempt->ticket, attachment);
    return DSMR_FOUND;
  }
  /* Open while the entry cannot go away; map, which takes longer, when others may go on. */
  int32_t fd = segment_open(control, attempt->shown, id, attempt->error);
  if (fd >= 0) entry_attach(control, index, backend->slot);
  control_unlock(control);
  if (fd < 0) return fd;
  struct mapping *mapping = NULL;
  int32_t outcome = segment_map(fd, control, attempt->shown, id, size, &mapping, attempt->error);
  os_file_close(fd);
  if (outcome == 0) {
    attachment = attachment_create(backend, index, id, size, word, mapping);
    if (attachment != NULL) {
      ticket_attachment(attempt->ticket, attachment);
      return DSMR_FOUND;
    }
    mapping_release(mapping);
    outcome = out_of_handles(attempt);
  }
  if (control_lock(control, DSMR_TABLE_PATIENCE_MS, NULL) != 0) {
    backend->needs_sweep = true;
    return outcome;
  }
  if (entry->id == id && entry_is_attachable(control, index)) {
    entry_detach(control, index, backend->slot);
  }
  control_unlock(control);
  return outcome;
}

int32_t init_once_give_up(struct backend *backend, uint32_t index, uint32_t word,
                         dsmr_error *error) {
  struct control *control = &backend->control;
  int32_t outcome = control_lock(control, DSMR_TABLE_PATIENCE_MS, error);
  if (outcome != 0) return outcome;
  /* After a destroy the entry is not ours any more, nor is anything else in the table. */
  if (control_is_ready(control) && entry_word(control, index) == word) entry_remove(control, index);
  control_unlock(control);
  return 0;
}

/* 52 random bits, never 0: exact as a JavaScript number. */
static uint64_t new_id(void) {
  uint64_t id = 0;
  while (id == 0 && os_random(&id) == 0) id >>= 12;
  return id;
}

/* Makes the entry and its file. Under the table lock, which it lets go. */
static int32_t create_entry(struct attempt *attempt, struct reservation *reservation) {
  struct backend *backend = attempt->backend;
  struct control *control = &backend->control;
  struct entry_birth birth = {.name = attempt->name,
                              .name_length = attempt->name_length,
                              .id = new_id(),
                              .owner = backend->id,
                              .flags = attempt->flags,
                              .size = attempt->size,
                              .layout = attempt->layout,
                              .database_id = attempt->database_id};
  if (birth.id == 0) {
    control_unlock(control);
    return FAIL(attempt->error, DSMR_E_UNSUPPORTED,
                "Cannot create segment \"%s\": the system has no random numbers.",
                attempt->shown);
  }
  uint32_t index = entry_insert(control, &birth);
  if (index == ENTRY_NONE) {
    /* The dead may hold some. */
    backend_reap_dead(control, backend->slot);
    index = entry_insert(control, &birth);
  }
  if (index == ENTRY_NONE) {
    control_unlock(control);
    return FAIL_NUMBERS(attempt->error, DSMR_E_REGISTRY_FULL, control->segment_count_max,
                        control->segment_count_max + 1,
                        "Cannot create segment \"%s\": registry \"%s\" has %u segments, which is "
                        "all it has room for. Drop some, or create it with a larger maxSegments.",
                        attempt->shown, control->place.name, control->segment_count_max);
  }
  uint64_t id = control->entries[index].id;
  uint32_t word = entry_word(control, index);
  /* Create while nobody can destroy the registry; fill, which takes longer, when others may
   * go on. */
  bool is_reserved = reservation != NULL && reservation->outcome != -ENOTSUP;
  int32_t fd = is_reserved ? segment_publish(reservation->fd, control, attempt->shown, id,
                                             attempt->error)
                           : segment_create(control, attempt->shown, id, attempt->error);
  if (fd < 0) entry_remove(control, index);
  control_unlock(control);
  if (fd < 0) return fd;
  struct mapping *mapping = NULL;
  int32_t outcome;
  if (is_reserved) {
    fd = reservation->fd;
    reservation->fd = -1;
    outcome = segment_fill_reserved(fd, reservation->outcome, reservation->room, control,
                                    attempt->shown, index, id, attempt->size, &mapping,
                                    attempt->error);
  } else {
    outcome = segment_fill(fd, control, attempt->shown, index, id, attempt->size, &mapping,
                           attempt->error);
  }
  if (outcome == 0) {
    struct attachment *attachment =
        attachment_create(backend, index, id, attempt->size, word, mapping);
    if (attachment != NULL) {
      ticket_attachment(attempt->ticket, attachment);
      return DSMR_INITIALIZE;
    }
    mapping_release(mapping);
    outcome = out_of_handles(attempt);
  }
  if (init_once_give_up(backend, index, word, NULL) != 0) backend->needs_sweep = true;
  return outcome;
}

/* Nothing is there. Under the table lock, which it lets go. */
static int32_t begin_create(struct attempt *attempt) {
  struct backend *backend = attempt->backend;
  struct control *control = &backend->control;
  if (attempt->size == 0) {
    control_unlock(control);
    return FAIL(attempt->error, DSMR_E_NOT_FOUND,
                "There is no segment \"%s\" in registry \"%s\". Give a size to create it.",
                attempt->shown, control->place.name);
  }
  struct reservation *reservation = NULL;
  if (attempt->is_async && attempt->size >= RESERVE_APART_MIN) {
    reservation = reserve_take(backend, attempt->size);
    if (reservation == NULL) {
      control_unlock(control);
      return DSMR_RESERVE;
    }
  }
  int32_t outcome = create_entry(attempt, reservation);
  if (reservation != NULL) reserve_free(reservation);
  return outcome;
}
/* Is there still somebody by whom the entry lives: its initialiser, or, for lifetime
 * "attached", one who is attached? Under the table lock. */
static bool has_living(struct control *control, uint32_t own_slot, uint32_t index) {
  const struct entry *entry = &control->entries[index];
  if (ENTRY_STATE(entry_word(control, index)) == ENTRY_INITIALIZING) {
    return backend_is_alive(control, own_slot, entry->owner);
  }
  if ((entry->flags & ENTRY_LIFETIME_ATTACHED) == 0) return true;
  for (uint32_t slot = 0; slot < control->backend_count_max; slot++) {
    if ((entry->attached[slot / 64] >> slot % 64 & 1) == 0) continue;
    uint32_t word = atomic_load_explicit(&control->backends[slot].word, memory_order_acquire);
    uint32_t id = BACKEND_ID(SLOT_GENERATION(word), slot);
    if (backend_is_alive(control, own_slot, id)) return true;
  }
  return false;
}

/* The entry with the name, after those that the dead have left have been removed. Under the
 * table lock. */
static uint32_t find_living(const struct attempt *attempt) {
  struct backend *backend = attempt->backend;
  struct control *control = &backend->control;
  for (;;) {
    uint32_t index =
        entry_find(control, attempt->database_id, attempt->name, attempt->name_length);
    if (index == ENTRY_NONE || has_living(control, backend->slot, index)) return index;
    uint32_t word = entry_word(control, index);
    backend_reap_dead(control, backend->slot);
    /* Held by one that no slot knows of: nobody will ever finish or leave it. */
    if (entry_word(control, index) == word) entry_remove(control, index);
  }
}

/* Whose name it is. Under the table lock, which it lets go when it fails. */
static int32_t enter_scope(struct attempt *attempt, uint32_t scope) {
  struct backend *backend = attempt->backend;
  int32_t outcome = database_of_scope(backend, scope, &attempt->database_id, attempt->error);
  if (outcome != 0) control_unlock(&backend->control);
  return outcome;
}

int32_t dsmr_segment_begin(uint32_t registry, const char *name, uint32_t name_length,
                           const dsmr_segment_request *request, dsmr_segment_ticket *ticket,
                           dsmr_error *error) {
  struct attempt attempt;
  int32_t outcome = attempt_start(&attempt, registry, name, name_length, ticket, error);
  if (outcome != 0) return outcome;
  if (request->size > SEGMENT_SIZE_MAX) {
    return FAIL_NUMBERS(error, DSMR_E_SIZE_INVALID, SEGMENT_SIZE_MAX, request->size,
                        "Cannot create segment \"%s\" of %" PRIu64 " bytes: a segment has 1 to "
                        "%" PRIu64 ".",
                        attempt.shown, request->size, SEGMENT_SIZE_MAX);
  }
  if (request->lifetime > DSMR_LIFETIME_ATTACHED) {
    return FAIL_NUMBERS(error, DSMR_E_SIZE_INVALID, DSMR_LIFETIME_ATTACHED, request->lifetime,
                        "Cannot create segment \"%s\": %u is no lifetime.", attempt.shown,
                        request->lifetime);
  }
  attempt.size = request->size;
  attempt.layout = request->layout;
  attempt.is_async = request->is_async != 0;
  attempt.flags = request->lifetime == DSMR_LIFETIME_ATTACHED ? ENTRY_LIFETIME_ATTACHED : 0;
  if (ticket->started_ns == 0) ticket->started_ns = os_monotonic_ns();
  /* Whoever gave up between a begin and its wait has left this. */
  publish_waiting(attempt.backend, 0, 0);
  struct control *control = &attempt.backend->control;
  uint64_t left_ms = time_left(request, ticket) / 1000000u;
  outcome = control_enter_within(
      control, left_ms < DSMR_TABLE_PATIENCE_MS ? (int32_t)left_ms : DSMR_TABLE_PATIENCE_MS, error);
  if (outcome != 0) return outcome;
  outcome = enter_scope(&attempt, request->scope);
  if (outcome != 0) return outcome;
  uint32_t index = find_living(&attempt);
  if (index == ENTRY_NONE) return begin_create(&attempt);
  if (ENTRY_STATE(entry_word(control, index)) == ENTRY_READY) return begin_attach(&attempt, index);
  return begin_wait(&attempt, index);
}

int32_t dsmr_segment_lookup(uint32_t registry, const char *name, uint32_t name_length,
                            uint32_t scope, dsmr_segment_ticket *ticket, dsmr_error *error) {
  struct attempt attempt;
  int32_t outcome = attempt_start(&attempt, registry, name, name_length, ticket, error);
  if (outcome == 0) outcome = control_enter(&attempt.backend->control, error);
  if (outcome == 0) outcome = enter_scope(&attempt, scope);
  if (outcome != 0) return outcome;
  struct control *control = &attempt.backend->control;
  uint32_t index = find_living(&attempt);
  if (index != ENTRY_NONE && ENTRY_STATE(entry_word(control, index)) == ENTRY_READY) {
    return begin_attach(&attempt, index);
  }
  control_unlock(control);
  return FAIL(error, DSMR_E_NOT_FOUND, "There is no segment \"%s\" in registry \"%s\".",
              attempt.shown, control->place.name);
}

int32_t dsmr_segment_wait(uint32_t registry, const char *name, uint32_t name_length,
                          const dsmr_segment_request *request, const dsmr_segment_ticket *ticket,
                          dsmr_error *error) {
  struct attempt attempt;
  int32_t outcome = attempt_start(&attempt, registry, name, name_length, NULL, error);
  if (outcome != 0) return outcome;
  struct backend *backend = attempt.backend;
  struct control *control = &backend->control;
  if (ticket->entry >= control->entry_capacity) {
    return FAIL_NUMBERS(error, DSMR_E_SIZE_INVALID, ticket->entry, control->entry_capacity,
                        "The ticket for segment \"%s\" was not filled by begin.", attempt.shown);
  }
  uint64_t started_ns = os_monotonic_ns();
  uint64_t sleep_ns = WAIT_SLEEP_MIN_NS;
  while (outcome == 0 && entry_word(control, ticket->entry) == ticket->word &&
         backend_is_alive(control, backend->slot, ticket->owner) &&
         os_monotonic_ns() - started_ns < WAIT_CALL_MAX_NS) {
    uint64_t left_ns = time_left(request, ticket);
    if (left_ns == 0) {
      outcome = FAIL_NUMBERS(error, DSMR_E_TIMEOUT, ticket->owner_pid,
                             (uint64_t)request->timeout_ms,
                             "Segment \"%s\" is still being initialised, by process %u, after %d "
                             "ms. Give it more time, or see what that process is doing.",
                             attempt.shown, ticket->owner_pid, request->timeout_ms);
      break;
    }
    os_futex_wait(&control->entries[ticket->entry].word, ticket->word,
                  sleep_ns < left_ns ? sleep_ns : left_ns);
    sleep_ns = sleep_ns * 2 < WAIT_SLEEP_MAX_NS ? sleep_ns * 2 : WAIT_SLEEP_MAX_NS;
  }
  publish_waiting(backend, 0, 0);
  return outcome;
}

/* ---- commit, abort ------------------------------------------------------------------------ */

static int32_t find_initializing(uint32_t segment, struct attachment **attachment,
                                 dsmr_error *error) {
  int32_t outcome = attachment_find(segment, attachment, error);
  if (outcome == 0 && ENTRY_STATE((*attachment)->word) != ENTRY_INITIALIZING) {
    outcome = FAIL(error, DSMR_E_NOT_HELD,
                   "The segment is initialised already: there is nothing to commit or abort.");
  }
  return outcome;
}

int32_t dsmr_segment_commit(uint32_t segment, dsmr_error *error) {
  struct attachment *attachment = NULL;
  int32_t outcome = find_initializing(segment, &attachment, error);
  if (outcome != 0) return outcome;
  struct backend *backend = attachment->backend;
  struct control *control = &backend->control;
  outcome = control_enter(control, error);
  if (outcome != 0) return outcome;
  uint32_t database_id = control->entries[attachment->entry].database_id;
  uint32_t scope = database_id == 0 ? DSMR_SCOPE_GLOBAL : DSMR_SCOPE_DATABASE;
  /* Else nobody would ever drop it. */
  outcome = database_of_scope(backend, scope, &database_id, error);
  if (outcome == 0 && entry_word(control, attachment->entry) == attachment->word) {
    /* Attached first: from READY on, the last one to leave removes an "attached" segment. */
    entry_attach(control, attachment->entry, backend->slot);
    attachment->word = entry_publish(control, attachment->entry);
  } else if (outcome == 0) {
    outcome = FAIL(error, DSMR_E_CORRUPT,
                   "The entry of the segment being initialised in registry \"%s\" has changed "
                   "under its initialiser. Destroy the registry.",
                   control->place.name);
  }
  control_unlock(control);
  return outcome;
}

int32_t dsmr_segment_abort(uint32_t segment, dsmr_error *error) {
  struct attachment *attachment = NULL;
  int32_t outcome = find_initializing(segment, &attachment, error);
  if (outcome != 0) return outcome;
  attachment_abandon_locks(attachment);
  outcome = init_once_give_up(attachment->backend, attachment->entry, attachment->word, error);
  if (outcome == 0) attachment_destroy(attachment);
  return outcome;
}

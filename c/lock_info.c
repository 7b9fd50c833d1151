/*
 * lock_info.c - what there is to say about locks: messages, and who holds and awaits which.
 */
#include "claim.h"
#include "entry.h"
#include "os.h"
#include "segment.h"
#include "status.h"
#include "tranche.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- messages --------------------------------------------------------------------------- */

/* Who has it, for a message: a pid, or 0. */
static uint32_t holder_pid(const struct claim *claim) {
  const struct control *control = &claim->backend->control;
  uint32_t token = LOCK_TOKEN(atomic_load_explicit(&claim->lock->owner, memory_order_relaxed));
  uint32_t slot = LOCK_TOKEN_SLOT(token);
  if (token != 0) return slot < control->backend_count_max ? control->backends[slot].pid : 0;
  for (slot = 0; slot < control->backend_count_max; slot++) {
    uint64_t readers = lwlock_readers(claim, slot / 64);
    if ((readers >> slot % 64 & 1) != 0) return control->backends[slot].pid;
  }
  return 0;
}

/* "\"tranche\" of segment \"name\"", or with the byte where it is. */
static void describe_lock(const struct claim *claim, char *text, size_t size) {
  const struct control *control = &claim->backend->control;
  char tranche[DSMR_NAME_SIZE] = "";
  char segment[DSMR_NAME_SIZE];
  (void)tranche_name(control, claim->lock->tranche, tranche);
  const struct entry *entry = &control->entries[claim->attachment->entry];
  status_show_name(entry->name, entry_name_length(entry), segment);
  uint64_t place = HELD_LINE(claim->record) * LOCK_SIZE;
  if (place == SEGMENT_LOCK_OFFSET) {
    (void)snprintf(text, size, "The lock of segment \"%s\"", segment);
  } else {
    (void)snprintf(text, size, "Lock \"%s\" at byte %" PRIu64 " of segment \"%s\"", tranche,
                   place - SEGMENT_DATA_OFFSET, segment);
  }
}

int32_t dsmr_lock_explain(uint32_t lock, int32_t status, int32_t timeout_ms, dsmr_error *error) {
  struct claim *claim = NULL;
  if (claim_find(lock, &claim) != 0) {
    return FAIL(error, status, "The lock's segment is detached. Ask the registry for it anew.");
  }
  char which[2 * DSMR_NAME_SIZE + 48];
  describe_lock(claim, which, sizeof which);
  uint32_t pid = holder_pid(claim);
  char holder[32] = "somebody";
  if (pid != 0) (void)snprintf(holder, sizeof holder, "process %u", pid);
  switch (status) {
    case DSMR_E_ALREADY_HELD:
      return FAIL(error, status,
                  "%s is held, or waited for, by this backend already. Locks are not re-entrant: "
                  "release it first.",
                  which);
    case DSMR_E_NOT_HELD:
      return FAIL(error, status,
                  "%s is not held by this backend, or in another mode. Acquire it.", which);
    case DSMR_E_TIMEOUT:
      return FAIL_NUMBERS(error, status, pid, (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms),
                          "%s was not to be had within %d ms; %s has it, or waits for it longer. "
                          "Give it more time, or see what that process is doing.",
                          which, timeout_ms, holder);
    case DSMR_E_DEADLOCK:
      return FAIL_NUMBERS(error, status, pid, 0,
                          "%s would be waited for without end: %s, which has it, waits in the end "
                          "for this backend. Acquire locks in the same order everywhere.",
                          which, holder);
    case DSMR_E_NO_SPACE:
      return FAIL_NUMBERS(error, status, HELD_MAX, HELD_MAX + 1,
                          "%s cannot be acquired: this backend holds %u locks, which is all it "
                          "can. Release some.",
                          which, HELD_MAX);
    case DSMR_E_SIZE_INVALID:
      return FAIL_NUMBERS(error, status, claim->attachment->size, 0,
                          "%s: the byte offset is no multiple of 8 with room for 8 bytes in the "
                          "%" PRIu64 " bytes of the segment, or the mode is none.",
                          which, claim->attachment->size);
    case DSMR_E_CORRUPT:
      return FAIL(error, status,
                  "%s is damaged: it was overwritten, or names a holder who does not hold it. "
                  "Initialise it anew, or drop the segment.",
                  which);
    case DSMR_E_CLOSED:
      return FAIL(error, status, "%s: registry \"%s\" was destroyed while waiting. Open it anew.",
                  which, claim->backend->control.place.name);
    default:
      return FAIL(error, status, "%s failed.", which);
  }
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
  memset(info, 0, sizeof *info);
  info->backend_id = BACKEND_ID(SLOT_GENERATION(word), slot);
  info->pid = row->pid;
  info->mode = HELD_MODE(record);
  info->is_waiting = waiting_since_ns != 0;
  info->offset = is_own ? UINT64_MAX : place - SEGMENT_DATA_OFFSET;
  info->segment_length = entry_name_length(entry);
  if (waiting_since_ns != 0) info->since_ns = os_wall_ns() - (os_monotonic_ns() - waiting_since_ns);
  memcpy(info->segment, entry->name, sizeof info->segment);
  uint32_t tranche = is_own ? TRANCHE_OF_ENTRY(index) : tranche_of(control, entry, place);
  info->tranche_length = tranche_name(control, tranche, info->tranche);
}

int32_t dsmr_locks(uint32_t registry, dsmr_lock_info *infos, uint32_t capacity,
                   dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = backend_enter(registry, &backend, error);
  if (outcome != 0) return outcome;
  struct control *control = &backend->control;
  backend_reap_dead(control, backend->slot);
  struct lock_listing listing = {.control = control, .infos = infos, .capacity = capacity};
  for (uint32_t slot = 0; slot < control->backend_count_max; slot++) {
    const struct backend_slot *row = &control->backends[slot];
    uint32_t word = atomic_load_explicit(&row->word, memory_order_acquire);
    if (SLOT_STATE(word) != SLOT_LIVE) continue;
    uint64_t waiting = atomic_load_explicit(&row->waiting_lock, memory_order_acquire);
    uint64_t watched = atomic_load_explicit(&row->watched_lock, memory_order_acquire);
    uint64_t since = atomic_load_explicit(&row->waiting_since_ns, memory_order_acquire);
    uint64_t watched_since = atomic_load_explicit(&row->watched_since_ns, memory_order_acquire);
    waiting &= ~UINT64_C(0xfc);
    watched &= ~UINT64_C(0xfc);
    if (waiting != 0) list_lock(&listing, slot, waiting, since);
    if (watched != 0) list_lock(&listing, slot, watched, watched_since);
    for (uint32_t i = 0; i < HELD_CELLS; i++) {
      uint64_t record = atomic_load_explicit(&row->held[i], memory_order_acquire);
      /* What it waits for is in the journal, too, while it tries. */
      if (record == 0 || HELD_MODE(record) == HELD_UNMARKED) continue;
      if (HELD_LOCK(record) == HELD_LOCK(waiting)) continue;
      if (HELD_LOCK(record) == HELD_LOCK(watched)) continue;
      list_lock(&listing, slot, record, 0);
    }
  }
  control_unlock(control);
  return (int32_t)listing.count;
}

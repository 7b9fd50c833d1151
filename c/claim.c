/*
 * claim.c - the public calls that find locks, and make them.
 */
#include "claim.h"

#include "segment.h"
#include "status.h"
#include "tranche.h"

#include <inttypes.h>
#include <stdlib.h>

int32_t claim_find(uint32_t handle, struct claim **found) {
  *found = handle_find(handle, HANDLE_LOCK);
  if (*found != NULL) return 0;
  return handle_is_foreign(handle, HANDLE_LOCK) ? DSMR_E_UNSUPPORTED : DSMR_E_CLOSED;
}

/* ---- the claims of an attachment, by place ----------------------------------------------- */

static struct claim **claim_bucket(const struct attachment *attachment, const struct lwlock *lock) {
  uint64_t line = (uint64_t)(uintptr_t)lock / LOCK_SIZE;
  return &attachment->buckets[line & (attachment->bucket_count - 1)];
}

static struct claim *find(const struct attachment *attachment, const struct lwlock *lock) {
  struct claim *c = attachment->bucket_count == 0 ? NULL : *claim_bucket(attachment, lock);
  while (c != NULL && c->lock != lock) c = c->next_in_bucket;
  return c;
}

static void put(const struct attachment *attachment, struct claim *claim) {
  struct claim **bucket = claim_bucket(attachment, claim->lock);
  claim->next_in_bucket = *bucket;
  *bucket = claim;
}

/* Room for one more. Twice as many buckets now and then: segments of locks may have thousands. */
static bool make_room(struct attachment *attachment) {
  if (attachment->claim_count < attachment->bucket_count) return true;
  uint32_t count = attachment->bucket_count == 0 ? 4 : attachment->bucket_count * 2;
  struct claim **buckets = calloc(count, sizeof *buckets);
  if (buckets == NULL) return false;
  free(attachment->buckets);
  attachment->buckets = buckets;
  attachment->bucket_count = count;
  for (struct claim *c = attachment->claims; c != NULL; c = c->next) put(attachment, c);
  return true;
}

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
  struct claim *claim = find(attachment, lock);
  if (claim != NULL) return (int32_t)claim->handle;
  if (make_room(attachment)) claim = calloc(1, sizeof *claim);
  if (claim != NULL) claim->handle = handle_create(HANDLE_LOCK, claim);
  if (claim == NULL || claim->handle == 0) {
    free(claim);
    return FAIL(error, DSMR_E_NO_SPACE,
                "Cannot use the lock: the process is out of memory, or uses %u registries, "
                "segments and locks. Detach some.",
                HANDLES_MAX);
  }
  claim->lock = lock;
  claim->readers = &lock->readers[backend->slot / 64];
  claim->reader_bit = UINT64_C(1) << backend->slot % 64;
  claim->slot = &backend->control.backends[backend->slot];
  claim->backend = backend;
  claim->attachment = attachment;
  claim->record = HELD_RECORD(offset / LOCK_SIZE, attachment->entry, 0);
  claim->mark = &claim->slot->held[MARK_CELL(claim->record)];
  claim->token = LOCK_TOKEN_OF(backend->id);
  claim->next = attachment->claims;
  attachment->claims = claim;
  attachment->claim_count++;
  put(attachment, claim);
  return (int32_t)claim->handle;
}

int32_t dsmr_lock_of_segment(uint32_t segment, dsmr_error *error) {
  struct attachment *attachment = NULL;
  int32_t outcome = attachment_find(segment, &attachment, error);
  return outcome == 0 ? claim_of(attachment, SEGMENT_LOCK_OFFSET, error) : outcome;
}

int32_t claim_place(const struct attachment *attachment, uint32_t low, uint32_t high,
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
    outcome = claim_place(attachment, offset_low, offset_high, LOCK_SIZE, &place, error);
  }
  return outcome == 0 ? claim_of(attachment, place, error) : outcome;
}

/* Is there a lock, and is it held? */
static bool is_held(const struct attachment *attachment, uint64_t place) {
  struct lwlock *lock = segment_lock_at(attachment->mapping, place);
  struct claim any = {.lock = lock,
                      .record = HELD_RECORD(place / LOCK_SIZE, attachment->entry, 0),
                      .backend = attachment->backend};
  return lwlock_is_initialized(lock) &&
         (lwlock_has_readers(&any) ||
          LOCK_TOKEN(atomic_load_explicit(&lock->owner, memory_order_relaxed)) != 0);
}

int32_t dsmr_lock_init(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
                       uint32_t tranche, dsmr_error *error) {
  struct attachment *attachment = NULL;
  uint64_t place = 0;
  int32_t outcome = attachment_find(segment, &attachment, error);
  if (outcome == 0) {
    outcome = claim_place(attachment, offset_low, offset_high, LOCK_SIZE, &place, error);
  }
  if (outcome != 0) return outcome;
  if (!tranche_exists(&attachment->backend->control, tranche)) {
    return FAIL_NUMBERS(error, DSMR_E_NOT_FOUND, 0, tranche,
                        "There is no tranche %u in registry \"%s\". Make it with newTranche.",
                        tranche, attachment->backend->control.place.name);
  }
  if (is_held(attachment, place)) {
    /* Perhaps by the dead. */
    struct control *control = &attachment->backend->control;
    if (control_enter(control, NULL) == 0) {
      backend_reap_dead(control, attachment->backend->slot);
      control_unlock(control);
    }
  }
  if (is_held(attachment, place)) {
    return FAIL_NUMBERS(error, DSMR_E_ALREADY_HELD, 0, place - SEGMENT_DATA_OFFSET,
                        "There is a lock at byte %" PRIu64 " already, and it is held. Initialise "
                        "locks in the init callback, once.",
                        place - SEGMENT_DATA_OFFSET);
  }
  lwlock_initialize(segment_lock_at(attachment->mapping, place), tranche);
  return 0;
}

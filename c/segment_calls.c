/*
 * segment_calls.c - the public calls on segments that are there: detach, drop, list; and what C
 * programs need besides.
 */
#include "dsmr.h"

#include "database.h"
#include "entry.h"
#include "init_once.h"
#include "segment.h"
#include "status.h"

#include <string.h>

int32_t dsmr_segment_detach(uint32_t segment) {
  struct attachment *attachment = NULL;
  int32_t outcome = attachment_find(segment, &attachment, NULL);
  if (outcome != 0) return outcome;
  struct backend *backend = attachment->backend;
  struct control *control = &backend->control;
  uint32_t index = attachment->entry;
  attachment_abandon_locks(attachment);
  if (ENTRY_STATE(attachment->word) == ENTRY_INITIALIZING) {
    outcome = init_once_give_up(backend, index, attachment->word, NULL);
  } else {
    outcome = control_lock(control, LEAVE_PATIENCE_MS, NULL);
    if (outcome == 0) {
      if (control_is_ready(control) && control->entries[index].id == attachment->id &&
          entry_is_attachable(control, index)) {
        entry_detach(control, index, backend->slot);
      }
      control_unlock(control);
    }
  }
  if (outcome != 0) backend->needs_sweep = true;
  attachment_destroy(attachment);
  return 0;
}

int32_t dsmr_segment_park(uint32_t segment) {
  struct attachment *attachment = NULL;
  int32_t outcome = attachment_find(segment, &attachment, NULL);
  if (outcome == 0) mapping_set_end(attachment->mapping, MAPPING_ZEROS_FOR_EVER);
  return outcome;
}

int32_t dsmr_segment_drop(uint32_t registry, const char *name, uint32_t name_length,
                          uint32_t scope, dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, error);
  if (outcome == 0) outcome = status_check_name(error, "segment", name, name_length);
  if (outcome == 0) outcome = control_enter(&backend->control, error);
  if (outcome != 0) return outcome;
  struct control *control = &backend->control;
  uint32_t database_id = 0;
  outcome = database_of_scope(backend, scope, &database_id, error);
  if (outcome == 0) {
    uint32_t index = entry_find(control, database_id, name, name_length);
    if (index != ENTRY_NONE && ENTRY_STATE(entry_word(control, index)) == ENTRY_READY) {
      entry_drop(control, index);
      outcome = 1;
    }
  }
  control_unlock(control);
  return outcome;
}

int32_t dsmr_segment_is_current(uint32_t segment) {
  struct attachment *attachment = NULL;
  int32_t outcome = attachment_find(segment, &attachment, NULL);
  if (outcome != 0) return outcome;
  const struct control *control = &attachment->backend->control;
  return control_is_ready(control) && entry_word(control, attachment->entry) == attachment->word;
}

int32_t dsmr_segments(uint32_t registry, dsmr_segment_info *infos, uint32_t capacity,
                      dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = backend_enter(registry, &backend, error);
  if (outcome != 0) return outcome;
  struct control *control = &backend->control;
  backend_reap_dead(control, backend->slot);
  uint32_t count = 0;
  for (uint32_t i = 0; i < control->entry_capacity; i++) {
    uint32_t state = ENTRY_STATE(entry_word(control, i));
    if (state != ENTRY_INITIALIZING && state != ENTRY_READY) continue;
    const struct entry *entry = &control->entries[i];
    if (count < capacity) {
      dsmr_segment_info *info = &infos[count];
      info->id = entry->id;
      info->size = entry->size;
      info->created_ns = entry->created_ns;
      info->layout = entry->layout;
      info->creator_pid = entry->creator_pid;
      info->is_ready = state == ENTRY_READY;
      info->lifetime = (entry->flags & ENTRY_LIFETIME_ATTACHED) != 0 ? DSMR_LIFETIME_ATTACHED
                                                                     : DSMR_LIFETIME_REGISTRY;
      info->backend_count = entry_attached_count(entry);
      info->name_length = entry_name_length(entry);
      info->owner = entry->owner;
      info->database_id = entry->database_id;
      info->reserved = 0;
      memcpy(info->name, entry->name, sizeof info->name);
    }
    count++;
  }
  control_unlock(control);
  return (int32_t)count;
}

/* ---- for C programs ------------------------------------------------------------------------- */

void *dsmr_segment_address(uint32_t segment) {
  struct attachment *attachment = NULL;
  if (attachment_find(segment, &attachment, NULL) != 0) return NULL;
  return (char *)attachment->mapping->address + SEGMENT_DATA_OFFSET;
}

uint64_t dsmr_segment_size(uint32_t segment) {
  struct attachment *attachment = NULL;
  return attachment_find(segment, &attachment, NULL) == 0 ? attachment->size : 0;
}

static int32_t initialize(uint32_t segment, const char *name, dsmr_init_callback init,
                          void *argument, dsmr_error *error) {
  int32_t outcome = 0;
  if (init != NULL) {
    outcome = init(dsmr_segment_address(segment), dsmr_segment_size(segment), argument);
  }
  if (outcome >= 0) outcome = dsmr_segment_commit(segment, error);
  else {
    outcome = FAIL_NUMBERS(error, DSMR_E_INIT_FAILED, (uint64_t)(-(int64_t)outcome), 0,
                           "The init callback of segment \"%s\" returned %d. The segment was "
                           "freed; the next one to ask for it initialises it.",
                           name, outcome);
  }
  if (outcome == 0) return 0;
  (void)dsmr_segment_detach(segment);
  return outcome;
}

int32_t dsmr_get_named_segment(uint32_t registry, const char *name, uint64_t size,
                               dsmr_init_callback init, void *argument, int32_t timeout_ms,
                               bool *found, dsmr_error *error) {
  dsmr_segment_request request = {.size = size, .timeout_ms = timeout_ms};
  dsmr_segment_ticket ticket = {0};
  size_t length = name == NULL ? 0 : strlen(name);
  uint32_t name_length = length < 1024 ? (uint32_t)length : 1024;
  for (;;) {
    int32_t outcome = dsmr_segment_begin(registry, name, name_length, &request, &ticket, error);
    if (outcome == DSMR_WAIT) {
      outcome = dsmr_segment_wait(registry, name, name_length, &request, &ticket, error);
      if (outcome == 0) continue;
    }
    if (outcome == DSMR_INITIALIZE) {
      if (found != NULL) *found = false;
      outcome = initialize(ticket.segment, name, init, argument, error);
    } else if (outcome == DSMR_FOUND && found != NULL) {
      *found = true;
    }
    return outcome < 0 ? outcome : (int32_t)ticket.segment;
  }
}

/*
 * registry.c - the public calls on registries and their backends.
 */
#include "dsmr.h"

#include "database.h"
#include "entry.h"
#include "os.h"
#include "status.h"

#include <inttypes.h>
#include <string.h>

/* ---- registries ---------------------------------------------------------------------- */

int32_t dsmr_default_directory(char *directory, uint32_t capacity, dsmr_error *error) {
  struct control_place place;
  int32_t outcome = control_place(&place, NULL, 0, NULL, 0, error);
  if (outcome != 0) return outcome;
  uint32_t length = (uint32_t)strlen(place.directory);
  memcpy(directory, place.directory, length < capacity ? length : capacity);
  return (int32_t)length;
}

int32_t dsmr_registry_open(const char *name, uint32_t name_length, const char *directory,
                           uint32_t directory_length, const char *database,
                           uint32_t database_length, const dsmr_registry_options *options,
                           dsmr_error *error) {
  static const dsmr_registry_options defaults = {.timeout_ms = -1};
  if (options == NULL) options = &defaults;
  if (database == NULL || database_length == 0) {
    database = "default";
    database_length = 7;
  }
  struct control_place place;
  if (name == NULL) name_length = 0;
  int32_t outcome = control_place(&place, name == NULL ? "" : name, name_length, directory,
                                  directory_length, error);
  if (outcome == 0) outcome = status_check_name(error, "database", database, database_length);
  if (outcome == 0 && options->mode > DSMR_MODE_LOOK) {
    outcome = FAIL_NUMBERS(error, DSMR_E_SIZE_INVALID, options->mode, DSMR_MODE_LOOK,
                           "%u is no mode to open a registry in.", options->mode);
  }
  if (outcome == 0) outcome = backend_start_process(error);
  if (outcome != 0) return outcome;
  struct backend_options wanted = {
      .database = database,
      .database_length = database_length,
      .mode = options->mode,
      .limits = {options->backend_count_max, options->segment_count_max},
      .timeout_ms = options->timeout_ms,
  };
  if (wanted.limits.backend_count_max == 0) wanted.limits.backend_count_max = DSMR_BACKENDS_DEFAULT;
  if (wanted.limits.segment_count_max == 0) wanted.limits.segment_count_max = DSMR_SEGMENTS_DEFAULT;
  memcpy(wanted.label, options->label, sizeof wanted.label);
  struct backend *backend = NULL;
  outcome = backend_open(&place, &wanted, &backend, error);
  return outcome == 0 ? (int32_t)backend->handle : outcome;
}

int32_t dsmr_registry_close(uint32_t registry) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, NULL);
  if (outcome == 0) backend_close(backend);
  return outcome;
}

int32_t dsmr_registry_is_usable(uint32_t registry) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, NULL);
  return outcome == 0 ? control_is_ready(&backend->control) : outcome;
}

int32_t dsmr_registry_patience(uint32_t registry, int32_t timeout_ms) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, NULL);
  if (outcome == 0) backend->control.patience_ms = timeout_ms;
  return outcome;
}

static uint32_t live_backends(struct control *control, uint32_t own_slot) {
  uint32_t count = 0;
  for (uint32_t slot = 0; slot < control->backend_count_max; slot++) {
    uint32_t word = atomic_load_explicit(&control->backends[slot].word, memory_order_acquire);
    uint32_t id = BACKEND_ID(SLOT_GENERATION(word), slot);
    if (SLOT_STATE(word) == SLOT_LIVE && backend_is_alive(control, own_slot, id)) count++;
  }
  return count;
}

static void describe(struct control *control, uint32_t own_slot, dsmr_registry_info *info) {
  memset(info, 0, sizeof *info);
  info->size = control->mapping->size;
  info->created_ns = control->header->created_ns;
  info->creator_pid = control->header->creator_pid;
  info->backend_count = live_backends(control, own_slot);
  info->backend_count_max = control->backend_count_max;
  info->segment_count =
      atomic_load_explicit(&control->header->segment_count, memory_order_relaxed);
  info->segment_count_max = control->segment_count_max;
  info->instance = control->instance;
  info->name_length = (uint32_t)strlen(control->place.name);
  memcpy(info->name, control->place.name, sizeof info->name);
}

int32_t dsmr_registry_describe(uint32_t registry, dsmr_registry_info *info, dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = backend_enter(registry, &backend, error);
  if (outcome != 0) return outcome;
  describe(&backend->control, backend->slot, info);
  control_unlock(&backend->control);
  info->backend_id = backend->id;
  info->database_id = backend->database_id;
  info->database_length = (uint32_t)strlen(backend->database);
  memcpy(info->database, backend->database, sizeof info->database);
  return 0;
}

struct listing {
  const struct control_place *place;
  dsmr_registry_info *infos;
  uint32_t capacity;
  uint32_t count;
};

static int32_t list_one(const char *name, void *argument) {
  struct listing *listing = argument;
  struct control_place place = *listing->place;
  size_t length = strlen(name);
  if (status_check_name(NULL, "registry", name, length < 1024 ? (uint32_t)length : 1024) != 0) {
    return 0; /* not ours */
  }
  memcpy(place.name, name, length + 1);
  struct control control;
  struct control_limits limits = {DSMR_BACKENDS_DEFAULT, DSMR_SEGMENTS_DEFAULT};
  dsmr_error error = {0};
  int32_t outcome = control_open(&control, &place, DSMR_MODE_ATTACH, limits, &error);
  dsmr_registry_info info = {.status = outcome, .name_length = (uint32_t)length};
  memcpy(info.name, place.name, sizeof info.name);
  if (outcome == 0) {
    describe(&control, SLOT_NONE, &info);
    control_close(&control);
  } else if (outcome == DSMR_E_NOT_FOUND || outcome == DSMR_E_PERMISSION) {
    return 0; /* gone meanwhile, or somebody else's */
  }
  if (listing->count < listing->capacity) listing->infos[listing->count] = info;
  listing->count++;
  return 0;
}

int32_t dsmr_registry_list(const char *directory, uint32_t directory_length,
                           dsmr_registry_info *infos, uint32_t capacity, dsmr_error *error) {
  struct control_place place;
  int32_t outcome = control_place(&place, NULL, 0, directory, directory_length, error);
  if (outcome == 0) outcome = backend_start_process(error);
  struct listing listing = {.place = &place, .infos = infos, .capacity = capacity};
  if (outcome == 0) outcome = control_scan(place.directory, list_one, &listing, error);
  return outcome == 0 ? (int32_t)listing.count : outcome;
}

int32_t dsmr_registry_destroy(const char *name, uint32_t name_length, const char *directory,
                              uint32_t directory_length, dsmr_error *error) {
  struct control_place place;
  if (name == NULL) name_length = 0;
  int32_t outcome = control_place(&place, name == NULL ? "" : name, name_length, directory,
                                  directory_length, error);
  if (outcome == 0) outcome = backend_start_process(error);
  return outcome == 0 ? control_destroy(&place, error) : outcome;
}

static void describe_backend(const struct control *control, uint32_t slot,
                             dsmr_backend_info *info) {
  const struct backend_slot *row = &control->backends[slot];
  uint32_t word = atomic_load_explicit(&row->word, memory_order_acquire);
  info->backend_id = BACKEND_ID(SLOT_GENERATION(word), slot);
  info->pid = row->pid;
  info->tid = row->tid;
  info->database_id = row->database_id;
  info->attached_ns = row->attached_ns;
  memcpy(info->label, row->label, sizeof info->label);
  info->label_length = status_text_length(info->label, sizeof info->label);
  const struct database_row *database = database_row_of(control, row->database_id);
  if (database != NULL && row->database_id != 0) {
    memcpy(info->database, database->name, sizeof info->database);
    info->database_length = database_name_length(database);
  }
  uint64_t waiting_id = atomic_load_explicit(&row->waiting_entry_id, memory_order_relaxed);
  uint32_t waiting = atomic_load_explicit(&row->waiting_entry, memory_order_relaxed);
  if (waiting_id != 0 && waiting >= 1 && waiting <= control->entry_capacity) {
    const struct entry *entry = &control->entries[waiting - 1];
    if (entry->id == waiting_id) {
      memcpy(info->waiting, entry->name, sizeof info->waiting);
      info->waiting_length = entry_name_length(entry);
    }
  }
}

int32_t dsmr_backends(uint32_t registry, dsmr_backend_info *infos, uint32_t capacity,
                      dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = backend_enter(registry, &backend, error);
  if (outcome != 0) return outcome;
  struct control *control = &backend->control;
  backend_reap_dead(control, backend->slot);
  uint32_t attached[DSMR_BACKENDS_MAX] = {0};
  for (uint32_t i = 0; i < control->entry_capacity; i++) {
    if (ENTRY_STATE(entry_word(control, i)) != ENTRY_READY) continue;
    for (uint32_t slot = 0; slot < control->backend_count_max; slot++) {
      attached[slot] += control->entries[i].attached[slot / 64] >> slot % 64 & 1;
    }
  }
  uint32_t count = 0;
  for (uint32_t slot = 0; slot < control->backend_count_max; slot++) {
    uint32_t word = atomic_load_explicit(&control->backends[slot].word, memory_order_acquire);
    if (SLOT_STATE(word) != SLOT_LIVE) continue;
    if (count < capacity) {
      memset(&infos[count], 0, sizeof infos[count]);
      infos[count].is_self = slot == backend->slot;
      infos[count].segment_count = attached[slot];
      describe_backend(control, slot, &infos[count]);
    }
    count++;
  }
  control_unlock(control);
  return (int32_t)count;
}

int32_t dsmr_backend_is_alive(uint32_t registry, uint32_t backend_id) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, NULL);
  if (outcome != 0) return outcome;
  return backend_is_alive(&backend->control, backend->slot, backend_id);
}

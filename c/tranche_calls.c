/*
 * tranche_calls.c - the public calls on tranches.
 */
#include "backend.h"
#include "entry.h"
#include "status.h"
#include "tranche.h"

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
  int32_t outcome = backend_enter(registry, &backend, error);
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
  int32_t outcome = backend_enter(registry, &backend, error);
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

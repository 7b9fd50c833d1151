/*
 * database.c - the databases of a registry, and the public calls on them.
 *
 * A database is a row: a name and an id that is never given twice. An entry belongs to it by that
 * id (0: to the registry, for all databases), and every search for a name, and every commit, looks
 * under the table lock whether the row is still there. So taking the id out of the row, one store,
 * is what drops a database: from then on nobody finds what was in it, nobody adds to it, and one
 * that is made anew under the name, having another id, begins empty.
 *
 * The segments themselves go after that store. Killed in between, the dropper leaves entries
 * whose database is gone; it was a backend, so whoever reaps it goes through the whole table
 * (entry_forget_backend) and drops them. An entry that a living backend is initialising is left
 * to that backend, which may be writing to it: its commit is refused, and then it gives up.
 */
#include "database.h"

#include "dsmr.h"
#include "entry.h"
#include "os.h"
#include "status.h"

#include <string.h>

static uint32_t row_id(const struct database_row *row) {
  /* Acquire; pairs with the release in database_claim: who sees the id sees the name. */
  return atomic_load_explicit(&row->id, memory_order_acquire);
}

const struct database_row *database_row_of(const struct control *control, uint32_t database_id) {
  for (uint32_t i = 0; i < control->database_count_max; i++) {
    if (row_id(&control->databases[i]) == database_id) return &control->databases[i];
  }
  return NULL;
}

uint32_t database_name_length(const struct database_row *row) {
  return row->name_length < DSMR_NAME_SIZE ? row->name_length : DSMR_NAME_SIZE - 1;
}

static struct database_row *find_by_name(struct control *control, const char *name,
                                         uint32_t name_length) {
  for (uint32_t i = 0; i < control->database_count_max; i++) {
    struct database_row *row = &control->databases[i];
    if (row_id(row) != 0 && row->name_length == name_length &&
        memcmp(row->name, name, name_length) == 0) {
      return row;
    }
  }
  return NULL;
}

/* The id is stored last: a death before that leaves a free row. */
int32_t database_claim(struct control *control, const char *name, uint32_t name_length,
                       bool is_look, uint32_t *database_id, dsmr_error *error) {
  struct database_row *row = find_by_name(control, name, name_length);
  if (row != NULL || is_look) {
    *database_id = row != NULL ? row_id(row) : DATABASE_NONE;
    return 0;
  }
  row = (struct database_row *)(uintptr_t)database_row_of(control, 0);
  if (row == NULL) {
    return FAIL_NUMBERS(error, DSMR_E_REGISTRY_FULL, control->database_count_max,
                        control->database_count_max + 1,
                        "Cannot open database \"%.*s\" in registry \"%s\": all %u databases are "
                        "taken. Use one that is there, drop one, or use another registry.",
                        (int)name_length, name, control->place.name, control->database_count_max);
  }
  memset(row->name, 0, sizeof row->name);
  memcpy(row->name, name, name_length);
  row->name_length = name_length;
  row->created_ns = os_wall_ns();
  /* Never 0, nor one that is in use, even if the counter was overwritten. */
  do {
    *database_id = ++control->header->last_database_id;
  } while (database_row_of(control, *database_id) != NULL);
  /* Release; pairs with the acquire in row_id. */
  atomic_store_explicit(&row->id, *database_id, memory_order_release);
  return 0;
}

int32_t database_of_scope(const struct backend *backend, uint32_t scope, uint32_t *database_id,
                          dsmr_error *error) {
  *database_id = 0;
  if (scope == DSMR_SCOPE_GLOBAL) return 0;
  if (scope != DSMR_SCOPE_DATABASE) {
    return FAIL_NUMBERS(error, DSMR_E_SIZE_INVALID, DSMR_SCOPE_DATABASE, scope,
                        "%u is no scope of a segment.", scope);
  }
  *database_id = backend->database_id;
  if (database_row_of(&backend->control, *database_id) != NULL) return 0;
  return FAIL(error, DSMR_E_CLOSED,
              "Database \"%s\" of registry \"%s\" was dropped, with all its segments. Open the "
              "registry anew to begin it anew; what is global goes on.",
              backend->database, backend->control.place.name);
}

/* ---- the public calls ---------------------------------------------------------------- */

int32_t dsmr_databases(uint32_t registry, dsmr_database_info *infos, uint32_t capacity,
                       dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = backend_enter(registry, &backend, error);
  if (outcome != 0) return outcome;
  struct control *control = &backend->control;
  uint32_t count = 0;
  for (uint32_t i = 0; i < control->database_count_max; i++) {
    const struct database_row *row = &control->databases[i];
    if (row_id(row) == 0) continue;
    if (count < capacity) {
      dsmr_database_info *info = &infos[count];
      info->created_ns = row->created_ns;
      info->id = row_id(row);
      info->name_length = database_name_length(row);
      memcpy(info->name, row->name, sizeof info->name);
      info->name[sizeof info->name - 1] = '\0';
    }
    count++;
  }
  control_unlock(control);
  return (int32_t)count;
}

int32_t dsmr_database_drop(uint32_t registry, const char *name, uint32_t name_length,
                           dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = status_check_name(error, "database", name, name_length);
  if (outcome == 0) outcome = backend_enter(registry, &backend, error);
  if (outcome != 0) return outcome;
  struct control *control = &backend->control;
  /* What one that died in here has left is gone, too, when this returns. */
  backend_reap_dead(control, backend->slot);
  struct database_row *row = find_by_name(control, name, name_length);
  if (row != NULL) {
    /* The commit store. Relaxed: it takes away, and the table lock orders it. */
    atomic_store_explicit(&row->id, 0, memory_order_relaxed);
    entry_drop_homeless(control);
    control_announce(control);
  }
  control_unlock(control);
  return row != NULL;
}

/*
 * database.h - the databases of a registry: what a name means where.
 */
#ifndef DSMR_DATABASE_H
#define DSMR_DATABASE_H

#include "backend.h"

/* The database's row, or NULL. */
const struct database_row *database_row_of(const struct control *control, uint32_t database_id);

/* The id of a backend that looks on, in no database; the last that would ever be given. */
#define DATABASE_NONE UINT32_MAX

/* Finds or makes the database; who only looks makes none. Under the table lock. */
int32_t database_claim(struct control *control, const char *name, uint32_t name_length,
                       bool is_look, uint32_t *database_id, dsmr_error *error);

/*
 * The database_id that a scope (enum dsmr_scope) means to the backend: of an entry that it may
 * find or make. CLOSED if that database was dropped, SIZE_INVALID if the scope is none. Under the
 * table lock: until that is let go, the database stays.
 */
int32_t database_of_scope(const struct backend *backend, uint32_t scope, uint32_t *database_id,
                          dsmr_error *error);

/* The name's length, never more than the field holds, whatever is in memory. */
uint32_t database_name_length(const struct database_row *row);

#endif

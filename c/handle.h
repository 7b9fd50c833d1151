/*
 * handle.h - u32 handles for objects of this process.
 *
 *   31  30          16 15           0
 *  +---+--------------+--------------+
 *  | 0 |  generation  |    index     |     generation 1 to 32,767, so a handle is never 0
 *  +---+--------------+--------------+
 *
 * A handle is checked against the table's generation, and the thread that made it, at every
 * use: a stale one, another thread's, one of another kind or a made-up one finds nothing.
 * Indices are given out first freed, first used, so that a generation comes round as late as
 * possible. Bit 31 is 0: a handle is also a successful return value.
 *
 * The table is wiped by fork: in a child, every handle of the parent is stale.
 */
#ifndef DSMR_HANDLE_H
#define DSMR_HANDLE_H

#include <stdbool.h>
#include <stdint.h>

enum handle_kind { HANDLE_REGISTRY = 1, HANDLE_SEGMENT = 2, HANDLE_LOCK = 3 };

#define HANDLES_MAX 65536u

/* Prepares the (zeroed) table. Returns 0 or DSMR_E_NO_SPACE. */
int32_t handle_start(void);
/* 1 if this process (not its parent) has prepared it. */
int32_t handle_is_started(void);

/* Returns 0 when all are in use. */
uint32_t handle_create(enum handle_kind kind, void *object);
void handle_destroy(uint32_t handle);

/* The object, or NULL. */
void *handle_find(uint32_t handle, enum handle_kind kind);
/* After NULL: is it because the handle is another thread's? */
bool handle_is_foreign(uint32_t handle, enum handle_kind kind);

#endif

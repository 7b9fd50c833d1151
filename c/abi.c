/*
 * abi.c - the library's own numbers, for bindings to read instead of copy.
 *
 * Packed: one string of all names and arrays of the values beside it. A call of printf for each
 * line took 5 KiB more of a library that is to fit into 64.
 */
#include "dsmr.h"
#include "layout.h"

#include <stdio.h>
#include <string.h>

/* clang-format off */
#define NUMBERS(N)                                                                                \
  N(NAME_SIZE)                                                                                    \
  N(LABEL_SIZE)                                                                                   \
  N(BACKENDS_MAX)                                                                                 \
  N(SEGMENTS_MAX)                                                                                 \
  N(MODE_OPEN)                                                                                    \
  N(MODE_CREATE)                                                                                  \
  N(MODE_ATTACH)                                                                                  \
  N(MODE_LOOK)                                                                                    \
  N(LIFETIME_REGISTRY)                                                                            \
  N(LIFETIME_ATTACHED)                                                                            \
  N(SCOPE_GLOBAL)                                                                                 \
  N(SCOPE_DATABASE)                                                                               \
  N(FOUND)                                                                                        \
  N(INITIALIZE)                                                                                   \
  N(WAIT)                                                                                         \
  N(RESERVE)                                                                                      \
  N(SHARED)                                                                                       \
  N(EXCLUSIVE)                                                                                    \
  N(LOCK_ACQUIRED)                                                                                \
  N(LOCK_ABANDONED)                                                                               \
  N(LOCK_BUSY)                                                                                    \
  N(LOCK_NOT_YET)

#define STRUCTURES(S, F)                                                                          \
  S(error)                                                                                        \
  F(error, status)                                                                                \
  F(error, os_errno)                                                                              \
  F(error, actual)                                                                                \
  F(error, requested)                                                                             \
  F(error, message_length)                                                                        \
  F(error, message)                                                                               \
  S(registry_options)                                                                             \
  F(registry_options, mode)                                                                       \
  F(registry_options, backend_count_max)                                                          \
  F(registry_options, segment_count_max)                                                          \
  F(registry_options, timeout_ms)                                                                 \
  F(registry_options, label)                                                                      \
  S(segment_request)                                                                              \
  F(segment_request, size)                                                                        \
  F(segment_request, lifetime)                                                                    \
  F(segment_request, timeout_ms)                                                                  \
  F(segment_request, is_async)                                                                    \
  F(segment_request, scope)                                                                       \
  F(segment_request, layout)                                                                      \
  S(segment_ticket)                                                                               \
  F(segment_ticket, started_ns)                                                                   \
  F(segment_ticket, address)                                                                      \
  F(segment_ticket, size)                                                                         \
  F(segment_ticket, id)                                                                           \
  F(segment_ticket, layout)                                                                       \
  F(segment_ticket, segment)                                                                      \
  S(registry_info)                                                                                \
  F(registry_info, size)                                                                          \
  F(registry_info, created_ns)                                                                    \
  F(registry_info, instance)                                                                      \
  F(registry_info, creator_pid)                                                                   \
  F(registry_info, backend_count)                                                                 \
  F(registry_info, backend_count_max)                                                             \
  F(registry_info, segment_count)                                                                 \
  F(registry_info, segment_count_max)                                                             \
  F(registry_info, backend_id)                                                                    \
  F(registry_info, database_id)                                                                   \
  F(registry_info, status)                                                                        \
  F(registry_info, name_length)                                                                   \
  F(registry_info, database_length)                                                               \
  F(registry_info, name)                                                                          \
  F(registry_info, database)                                                                      \
  S(backend_info)                                                                                 \
  F(backend_info, backend_id)                                                                     \
  F(backend_info, pid)                                                                            \
  F(backend_info, tid)                                                                            \
  F(backend_info, database_id)                                                                    \
  F(backend_info, attached_ns)                                                                    \
  F(backend_info, segment_count)                                                                  \
  F(backend_info, is_self)                                                                        \
  F(backend_info, label_length)                                                                   \
  F(backend_info, database_length)                                                                \
  F(backend_info, waiting_length)                                                                 \
  F(backend_info, label)                                                                          \
  F(backend_info, database)                                                                       \
  F(backend_info, waiting)                                                                        \
  S(database_info)                                                                                \
  F(database_info, id)                                                                            \
  F(database_info, created_ns)                                                                    \
  F(database_info, name_length)                                                                   \
  F(database_info, name)                                                                          \
  S(segment_info)                                                                                 \
  F(segment_info, id)                                                                             \
  F(segment_info, size)                                                                           \
  F(segment_info, created_ns)                                                                     \
  F(segment_info, layout)                                                                         \
  F(segment_info, database_id)                                                                    \
  F(segment_info, creator_pid)                                                                    \
  F(segment_info, is_ready)                                                                       \
  F(segment_info, lifetime)                                                                       \
  F(segment_info, backend_count)                                                                  \
  F(segment_info, name_length)                                                                    \
  F(segment_info, name)                                                                           \
  S(lock_info)                                                                                    \
  F(lock_info, backend_id)                                                                        \
  F(lock_info, pid)                                                                               \
  F(lock_info, mode)                                                                              \
  F(lock_info, is_waiting)                                                                        \
  F(lock_info, since_ns)                                                                          \
  F(lock_info, offset)                                                                            \
  F(lock_info, segment_length)                                                                    \
  F(lock_info, tranche_length)                                                                    \
  F(lock_info, segment)                                                                           \
  F(lock_info, tranche)                                                                           \
  S(tranche_info)                                                                                 \
  F(tranche_info, id)                                                                             \
  F(tranche_info, name_length)                                                                    \
  F(tranche_info, contended)                                                                      \
  F(tranche_info, waited_ns)                                                                      \
  F(tranche_info, abandoned)                                                                      \
  F(tranche_info, name)
/* clang-format on */

/* Of all names only what differs is written down: what each kind begins with is put before it. */
#define STATUS_NAME(name, value) #name "\0"
#define STATUS_VALUE(name, value) (value),
#define STATUS_INDEX(name, value) STATUS_INDEX_##name,
#define NUMBER_NAME(name) #name "\0"
#define NUMBER_VALUE(name) (int32_t)(DSMR_##name),
static const char number_names[] = DSMR_STATUS(STATUS_NAME) "FORMAT\0" NUMBERS(NUMBER_NAME);
static const int32_t number_values[] = {
    DSMR_STATUS(STATUS_VALUE) (int32_t)DSMR_FORMAT, NUMBERS(NUMBER_VALUE)};
static_assert(DSMR_FORMAT <= INT32_MAX, "DSMR_FORMAT is told as an int32_t");
enum status_index { DSMR_STATUS(STATUS_INDEX) STATUS_COUNT };

/* A structure's name begins with "=". Values: its size and 0; a field's offset and size. */
#define STRUCTURE_NAME(type) "=" #type "\0"
#define STRUCTURE_VALUE(type) {0, sizeof(dsmr_##type)},
#define FIELD_NAME(type, field) #field "\0"
#define FIELD_VALUE(type, field) {offsetof(dsmr_##type, field), sizeof(((dsmr_##type *)0)->field)},
static const char field_names[] = STRUCTURES(STRUCTURE_NAME, FIELD_NAME);
static const uint16_t field_values[][2] = {STRUCTURES(STRUCTURE_VALUE, FIELD_VALUE)};

struct text {
  char *bytes;
  uint32_t capacity;
  uint32_t length; /* of the whole text, also when it does not fit */
};

static void add_line(struct text *text, const char *line, int length) {
  for (int i = 0; i < length; i++) {
    if (text->length < text->capacity) text->bytes[text->length] = line[i];
    text->length++;
  }
}

int32_t dsmr_abi(char *text, uint32_t capacity) {
  struct text out = {.bytes = text, .capacity = text == NULL ? 0 : capacity};
  char line[96];
  const char *name = number_names;
  for (size_t i = 0; i < sizeof number_values / sizeof number_values[0]; i++) {
    add_line(&out, line, snprintf(line, sizeof line, "DSMR_%s%s %d\n", i < STATUS_COUNT ? "E_" : "",
                                   name, number_values[i]));
    name += strlen(name) + 1;
  }
  const char *structure = "";
  name = field_names;
  for (size_t i = 0; i < sizeof field_values / sizeof field_values[0]; i++) {
    bool is_structure = name[0] == '=';
    if (is_structure) structure = name + 1;
    add_line(&out, line,
             snprintf(line, sizeof line, "dsmr_%s%s%s %u %u\n", structure, is_structure ? "" : ".",
                      is_structure ? "" : name, field_values[i][0], field_values[i][1]));
    name += strlen(name) + 1;
  }
  return (int32_t)out.length;
}

const char *dsmr_status_name(int32_t status) {
  const char *name = number_names;
  for (size_t i = 0; i < STATUS_COUNT; i++, name += strlen(name) + 1) {
    if (number_values[i] == status) return name;
  }
  return "";
}

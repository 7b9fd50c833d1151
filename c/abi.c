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
  N(DSMR_NAME_SIZE)                                                                               \
  N(DSMR_LABEL_SIZE)                                                                              \
  N(DSMR_BACKENDS_MAX)                                                                            \
  N(DSMR_SEGMENTS_MAX)                                                                            \
  N(DSMR_MODE_OPEN)                                                                               \
  N(DSMR_MODE_CREATE)                                                                             \
  N(DSMR_MODE_ATTACH)                                                                             \
  N(DSMR_LIFETIME_REGISTRY)                                                                       \
  N(DSMR_LIFETIME_ATTACHED)                                                                       \
  N(DSMR_FOUND)                                                                                   \
  N(DSMR_INITIALIZE)                                                                              \
  N(DSMR_WAIT)                                                                                    \
  N(DSMR_RESERVE)                                                                                    \
  N(DSMR_SHARED)                                                                                  \
  N(DSMR_EXCLUSIVE)                                                                               \
  N(DSMR_LOCK_ACQUIRED)                                                                           \
  N(DSMR_LOCK_ABANDONED)                                                                          \
  N(DSMR_LOCK_BUSY)                                                                               \
  N(DSMR_LOCK_NOT_YET)

#define STRUCTURES(S, F)                                                                          \
  S(dsmr_error)                                                                                   \
  F(dsmr_error, status)                                                                           \
  F(dsmr_error, os_errno)                                                                         \
  F(dsmr_error, actual)                                                                           \
  F(dsmr_error, requested)                                                                        \
  F(dsmr_error, message_length)                                                                   \
  F(dsmr_error, message)                                                                          \
  S(dsmr_registry_options)                                                                        \
  F(dsmr_registry_options, mode)                                                                  \
  F(dsmr_registry_options, backend_count_max)                                                     \
  F(dsmr_registry_options, segment_count_max)                                                     \
  F(dsmr_registry_options, timeout_ms)                                                            \
  F(dsmr_registry_options, label)                                                                 \
  S(dsmr_segment_request)                                                                         \
  F(dsmr_segment_request, size)                                                                   \
  F(dsmr_segment_request, lifetime)                                                               \
  F(dsmr_segment_request, timeout_ms)                                                             \
  F(dsmr_segment_request, is_async)                                                             \
  S(dsmr_segment_ticket)                                                                          \
  F(dsmr_segment_ticket, started_ns)                                                              \
  F(dsmr_segment_ticket, address)                                                                 \
  F(dsmr_segment_ticket, size)                                                                    \
  F(dsmr_segment_ticket, id)                                                                    \
  F(dsmr_segment_ticket, segment)                                                                 \
  S(dsmr_registry_info)                                                                           \
  F(dsmr_registry_info, size)                                                                     \
  F(dsmr_registry_info, created_ns)                                                               \
  F(dsmr_registry_info, instance)                                                                 \
  F(dsmr_registry_info, creator_pid)                                                              \
  F(dsmr_registry_info, backend_count)                                                            \
  F(dsmr_registry_info, backend_count_max)                                                        \
  F(dsmr_registry_info, segment_count)                                                            \
  F(dsmr_registry_info, segment_count_max)                                                        \
  F(dsmr_registry_info, backend_id)                                                               \
  F(dsmr_registry_info, database_id)                                                              \
  F(dsmr_registry_info, status)                                                                   \
  F(dsmr_registry_info, name_length)                                                              \
  F(dsmr_registry_info, database_length)                                                          \
  F(dsmr_registry_info, name)                                                                     \
  F(dsmr_registry_info, database)                                                                 \
  S(dsmr_backend_info)                                                                            \
  F(dsmr_backend_info, backend_id)                                                                \
  F(dsmr_backend_info, pid)                                                                       \
  F(dsmr_backend_info, tid)                                                                       \
  F(dsmr_backend_info, database_id)                                                               \
  F(dsmr_backend_info, attached_ns)                                                               \
  F(dsmr_backend_info, segment_count)                                                             \
  F(dsmr_backend_info, is_self)                                                                   \
  F(dsmr_backend_info, label_length)                                                              \
  F(dsmr_backend_info, database_length)                                                           \
  F(dsmr_backend_info, waiting_length)                                                            \
  F(dsmr_backend_info, label)                                                                     \
  F(dsmr_backend_info, database)                                                                  \
  F(dsmr_backend_info, waiting)                                                                   \
  S(dsmr_segment_info)                                                                            \
  F(dsmr_segment_info, id)                                                                        \
  F(dsmr_segment_info, size)                                                                      \
  F(dsmr_segment_info, created_ns)                                                                \
  F(dsmr_segment_info, creator_pid)                                                               \
  F(dsmr_segment_info, is_ready)                                                                  \
  F(dsmr_segment_info, lifetime)                                                                  \
  F(dsmr_segment_info, backend_count)                                                             \
  F(dsmr_segment_info, name_length)                                                               \
  F(dsmr_segment_info, name)                                                                      \
  S(dsmr_lock_info)                                                                               \
  F(dsmr_lock_info, backend_id)                                                                   \
  F(dsmr_lock_info, pid)                                                                          \
  F(dsmr_lock_info, mode)                                                                         \
  F(dsmr_lock_info, is_waiting)                                                                   \
  F(dsmr_lock_info, since_ns)                                                                     \
  F(dsmr_lock_info, offset)                                                                       \
  F(dsmr_lock_info, segment_length)                                                               \
  F(dsmr_lock_info, tranche_length)                                                               \
  F(dsmr_lock_info, segment)                                                                      \
  F(dsmr_lock_info, tranche)                                                                      \
  S(dsmr_tranche_info)                                                                            \
  F(dsmr_tranche_info, id)                                                                        \
  F(dsmr_tranche_info, name_length)                                                               \
  F(dsmr_tranche_info, contended)                                                                 \
  F(dsmr_tranche_info, waited_ns)                                                                 \
  F(dsmr_tranche_info, abandoned)                                                                 \
  F(dsmr_tranche_info, name)
/* clang-format on */

#define STATUS_NAME(name, value) "DSMR_E_" #name "\0"
#define STATUS_VALUE(name, value) (value),
#define NUMBER_NAME(name) #name "\0"
#define NUMBER_VALUE(name) (int32_t)(name),
static const char number_names[] =
    DSMR_STATUS(STATUS_NAME) "DSMR_FORMAT\0" NUMBERS(NUMBER_NAME);
static const int32_t number_values[] = {
    DSMR_STATUS(STATUS_VALUE) (int32_t)DSMR_FORMAT, NUMBERS(NUMBER_VALUE)};
static_assert(DSMR_FORMAT <= INT32_MAX, "DSMR_FORMAT is told as an int32_t");

/* A structure's name begins with "=". Values: its size and 0; a field's offset and size. */
#define STRUCTURE_NAME(type) "=" #type "\0"
#define STRUCTURE_VALUE(type) {0, sizeof(type)},
#define FIELD_NAME(type, field) #field "\0"
#define FIELD_VALUE(type, field) {offsetof(type, field), sizeof(((type *)0)->field)},
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
    add_line(&out, line, snprintf(line, sizeof line, "%s %d\n", name, number_values[i]));
    name += strlen(name) + 1;
  }
  const char *structure = "";
  name = field_names;
  for (size_t i = 0; i < sizeof field_values / sizeof field_values[0]; i++) {
    bool is_structure = name[0] == '=';
    if (is_structure) structure = name + 1;
    add_line(&out, line,
             snprintf(line, sizeof line, "%s%s%s %u %u\n", structure, is_structure ? "" : ".",
                      is_structure ? "" : name, field_values[i][0], field_values[i][1]));
    name += strlen(name) + 1;
  }
  return (int32_t)out.length;
}

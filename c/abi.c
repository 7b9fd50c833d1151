/*
 * abi.c - the library's own numbers, for bindings to read instead of copy.
 */
#include "dsmr.h"
#include "layout.h"

#include <stdarg.h>
#include <stdio.h>

struct text {
  char *bytes;
  uint32_t capacity;
  uint32_t length; /* of the whole text, also when it does not fit */
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...) {
  char line[96];
  va_list values;
  va_start(values, format);
  int wanted = vsnprintf(line, sizeof line, format, values);
  va_end(values);
  for (int i = 0; i < wanted && i < (int)sizeof line - 1; i++) {
    if (text->length < text->capacity) text->bytes[text->length] = line[i];
    text->length++;
  }
}

#define NUMBER(name) add(text, #name " %lld\n", (long long)(name))
#define SIZE_OF(type) add(text, #type " 0 %zu\n", sizeof(type))
#define FIELD(type, field) \
  add(text, #type "." #field " %zu %zu\n", offsetof(type, field), sizeof(((type *)0)->field))

static void add_numbers(struct text *text) {
#define STATUS_LINE(name, value) add(text, "DSMR_E_" #name " %d\n", (value));
  DSMR_STATUS(STATUS_LINE)
#undef STATUS_LINE
  add(text, "DSMR_FORMAT %u\n", (uint32_t)DSMR_FORMAT);
  NUMBER(DSMR_NAME_SIZE);
  NUMBER(DSMR_LABEL_SIZE);
  NUMBER(DSMR_BACKENDS_MAX);
  NUMBER(DSMR_SEGMENTS_MAX);
  NUMBER(DSMR_MODE_OPEN);
  NUMBER(DSMR_MODE_CREATE);
  NUMBER(DSMR_MODE_ATTACH);
  NUMBER(DSMR_LIFETIME_REGISTRY);
  NUMBER(DSMR_LIFETIME_ATTACHED);
  NUMBER(DSMR_FOUND);
  NUMBER(DSMR_INITIALIZE);
  NUMBER(DSMR_WAIT);
  NUMBER(DSMR_SHARED);
  NUMBER(DSMR_EXCLUSIVE);
  NUMBER(DSMR_LOCK_ACQUIRED);
  NUMBER(DSMR_LOCK_ABANDONED);
  NUMBER(DSMR_LOCK_BUSY);
  NUMBER(DSMR_LOCK_NOT_YET);
}

static void add_call_structures(struct text *text) {
  SIZE_OF(dsmr_error);
  FIELD(dsmr_error, status);
  FIELD(dsmr_error, os_errno);
  FIELD(dsmr_error, actual);
  FIELD(dsmr_error, requested);
  FIELD(dsmr_error, message_length);
  FIELD(dsmr_error, message);
  SIZE_OF(dsmr_registry_options);
  FIELD(dsmr_registry_options, mode);
  FIELD(dsmr_registry_options, backend_count_max);
  FIELD(dsmr_registry_options, segment_count_max);
  FIELD(dsmr_registry_options, timeout_ms);
  FIELD(dsmr_registry_options, label);
  SIZE_OF(dsmr_segment_request);
  FIELD(dsmr_segment_request, size);
  FIELD(dsmr_segment_request, lifetime);
  FIELD(dsmr_segment_request, timeout_ms);
  SIZE_OF(dsmr_segment_ticket);
  FIELD(dsmr_segment_ticket, started_ns);
  FIELD(dsmr_segment_ticket, address);
  FIELD(dsmr_segment_ticket, size);
  FIELD(dsmr_segment_ticket, segment);
}

static void add_info_structures(struct text *text) {
  SIZE_OF(dsmr_registry_info);
  FIELD(dsmr_registry_info, size);
  FIELD(dsmr_registry_info, created_ns);
  FIELD(dsmr_registry_info, instance);
  FIELD(dsmr_registry_info, creator_pid);
  FIELD(dsmr_registry_info, backend_count);
  FIELD(dsmr_registry_info, backend_count_max);
  FIELD(dsmr_registry_info, segment_count);
  FIELD(dsmr_registry_info, segment_count_max);
  FIELD(dsmr_registry_info, backend_id);
  FIELD(dsmr_registry_info, status);
  FIELD(dsmr_registry_info, name_length);
  FIELD(dsmr_registry_info, database_length);
  FIELD(dsmr_registry_info, name);
  FIELD(dsmr_registry_info, database);
  SIZE_OF(dsmr_backend_info);
  FIELD(dsmr_backend_info, backend_id);
  FIELD(dsmr_backend_info, pid);
  FIELD(dsmr_backend_info, tid);
  FIELD(dsmr_backend_info, attached_ns);
  FIELD(dsmr_backend_info, segment_count);
  FIELD(dsmr_backend_info, is_self);
  FIELD(dsmr_backend_info, label_length);
  FIELD(dsmr_backend_info, database_length);
  FIELD(dsmr_backend_info, waiting_length);
  FIELD(dsmr_backend_info, label);
  FIELD(dsmr_backend_info, database);
  FIELD(dsmr_backend_info, waiting);
  SIZE_OF(dsmr_segment_info);
  FIELD(dsmr_segment_info, id);
  FIELD(dsmr_segment_info, size);
  FIELD(dsmr_segment_info, created_ns);
  FIELD(dsmr_segment_info, creator_pid);
  FIELD(dsmr_segment_info, is_ready);
  FIELD(dsmr_segment_info, lifetime);
  FIELD(dsmr_segment_info, backend_count);
  FIELD(dsmr_segment_info, name_length);
  FIELD(dsmr_segment_info, name);
  SIZE_OF(dsmr_lock_info);
  FIELD(dsmr_lock_info, backend_id);
  FIELD(dsmr_lock_info, pid);
  FIELD(dsmr_lock_info, mode);
  FIELD(dsmr_lock_info, is_waiting);
  FIELD(dsmr_lock_info, since_ns);
  FIELD(dsmr_lock_info, offset);
  FIELD(dsmr_lock_info, segment_length);
  FIELD(dsmr_lock_info, tranche_length);
  FIELD(dsmr_lock_info, segment);
  FIELD(dsmr_lock_info, tranche);
  SIZE_OF(dsmr_tranche_info);
  FIELD(dsmr_tranche_info, id);
  FIELD(dsmr_tranche_info, name_length);
  FIELD(dsmr_tranche_info, contended);
  FIELD(dsmr_tranche_info, waited_ns);
  FIELD(dsmr_tranche_info, abandoned);
  FIELD(dsmr_tranche_info, name);
}

int32_t dsmr_abi(char *text, uint32_t capacity) {
  struct text out = {.bytes = text, .capacity = text == NULL ? 0 : capacity};
  add_numbers(&out);
  add_call_structures(&out);
  add_info_structures(&out);
  return (int32_t)out.length;
}

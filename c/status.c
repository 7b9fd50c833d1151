/*
 * status.c - statuses and the sentences that go with them.
 */
#include "status.h"

#include "os.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A cut inside a UTF-8 sequence would not be UTF-8: go back to the start of that one. */
static uint32_t whole_characters(const char *text, uint32_t length) {
  while (length > 0 && ((unsigned char)text[length] & 0xc0u) == 0x80u) length--;
  return length;
}

/* What a failing call wants to say beside its sentence. */
struct failure {
  int32_t status;
  int32_t os_errno;
  uint64_t actual;
  uint64_t requested;
};

static void compose(dsmr_error *error, const struct failure *failure, const char *format,
                    va_list values, const char *reason) {
  if (error == NULL) return;
  error->status = failure->status;
  error->os_errno = failure->os_errno;
  error->actual = failure->actual;
  error->requested = failure->requested;
  error->reserved = 0;
  int wanted = vsnprintf(error->message, sizeof error->message, format, values);
  uint32_t length = wanted < 0 ? 0 : (uint32_t)wanted;
  uint32_t last = (uint32_t)sizeof error->message - 1;
  if (length < last && reason != NULL) {
    wanted = snprintf(error->message + length, sizeof error->message - length, ": %s.", reason);
    length += wanted < 0 ? 0 : (uint32_t)wanted;
  }
  if (length > last) length = whole_characters(error->message, last);
  error->message[length] = '\0';
  error->message_length = length;
}

/* No sentence has a floating-point number in it, so the registers for those need not be saved. */
#if defined(__x86_64__) || defined(__aarch64__)
#define WITHOUT_FLOATS __attribute__((target("general-regs-only")))
#else
#define WITHOUT_FLOATS
#endif

WITHOUT_FLOATS int32_t status_fail(dsmr_error *error, int32_t status, const char *format, ...) {
  va_list values;
  va_start(values, format);
  compose(error, &(struct failure){.status = status}, format, values, NULL);
  va_end(values);
  return status;
}

WITHOUT_FLOATS int32_t status_fail_numbers(dsmr_error *error, int32_t status, uint64_t actual,
                                           uint64_t requested, const char *format, ...) {
  va_list values;
  va_start(values, format);
  struct failure failure = {.status = status, .actual = actual, .requested = requested};
  compose(error, &failure, format, values, NULL);
  va_end(values);
  return status;
}

WITHOUT_FLOATS int32_t status_fail_os(dsmr_error *error, int32_t outcome, const char *format, ...) {
  struct failure failure = {.status = os_status_of(-outcome), .os_errno = -outcome};
  va_list values;
  va_start(values, format);
  compose(error, &failure, format, values, os_errno_text(-outcome));
  va_end(values);
  return failure.status;
}

uint32_t status_text_length(const char *text, uint32_t size) {
  uint32_t length = 0;
  while (length < size && text[length] != '\0') length++;
  return length;
}

/* The length of the UTF-8 sequence at `text`, or 0 if it is none (RFC 3629, table 3-7 of the
 * Unicode standard: no overlong forms, no surrogates, nothing over U+10FFFF). */
static uint32_t sequence_length(const unsigned char *text, uint32_t room) {
  unsigned char first = text[0];
  if (first < 0x80) return 1;
  uint32_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || length > room) return 0;
  unsigned char low = 0x80;
  unsigned char high = 0xbf;
  if (first == 0xe0) low = 0xa0;
  if (first == 0xed) high = 0x9f;
  if (first == 0xf0) low = 0x90;
  if (first == 0xf4) high = 0x8f;
  if (text[1] < low || text[1] > high) return 0;
  for (uint32_t i = 2; i < length; i++) {
    if ((text[i] & 0xc0) != 0x80) return 0;
  }
  return length;
}

/* The name as far as it is text, for a message: what is not shows as '?'. */
void status_show_name(const char *name, uint32_t length, char shown[DSMR_NAME_SIZE]) {
  uint32_t at = 0;
  while (at < length) {
    uint32_t step = sequence_length((const unsigned char *)name + at, length - at);
    bool is_text = step > 1 || (step == 1 && (unsigned char)name[at] >= ' ' && name[at] != 0x7f);
    if (is_text) {
      memcpy(shown + at, name + at, step);
    } else {
      shown[at] = '?';
      step = 1;
    }
    at += step;
  }
  shown[at] = '\0';
}

int32_t status_check_name(dsmr_error *error, const char *what, const char *name,
                          uint32_t length) {
  if (name == NULL || length == 0) {
    return FAIL(error, DSMR_E_NAME_INVALID,
                "The %s name is empty. Give it 1 to %u bytes of UTF-8.", what, DSMR_NAME_SIZE - 1);
  }
  if (length >= DSMR_NAME_SIZE) {
    int shown = (int)whole_characters(name, 24);
    return FAIL_NUMBERS(error, DSMR_E_NAME_TOO_LONG, length, DSMR_NAME_SIZE - 1,
                        "The %s name \"%.*s...\" has %u bytes of UTF-8, %u are allowed. "
                        "Shorten it.",
                        what, shown, name, length, DSMR_NAME_SIZE - 1);
  }
  for (uint32_t at = 0; at < length;) {
    unsigned char byte = (unsigned char)name[at];
    uint32_t step = sequence_length((const unsigned char *)name + at, length - at);
    const char *fault = step == 0 ? "no UTF-8" : NULL;
    if (byte == 0) fault = "a NUL";
    if (byte == '/') fault = "a slash";
    if (fault != NULL) {
      char shown[DSMR_NAME_SIZE];
      status_show_name(name, length, shown);
      return FAIL_NUMBERS(error, DSMR_E_NAME_INVALID, at, 0,
                          "The %s name \"%s\" has %s at byte %u of %u. Names are UTF-8 without "
                          "NUL and without slash.",
                          what, shown, fault, at, length);
    }
    at += step;
  }
  return 0;
}

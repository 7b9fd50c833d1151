/*
 * status.h - how a failure is told: one status, and one sentence with the names and numbers.
 *
 * The sentences are made here, in C, and nowhere else, so that Deno, Bun and C programs read
 * the same ones. They name the thing, say what is wrong with the numbers, then the next step.
 */
#ifndef DSMR_STATUS_H
#define DSMR_STATUS_H

#include "dsmr.h"

/* Fill `error` (which may be NULL) and return the status; the second with the numbers. In
 * registers as far as they go: there are a hundred calls. */
int32_t status_fail(dsmr_error *error, int32_t status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int32_t status_fail_numbers(dsmr_error *error, int32_t status, uint64_t actual, uint64_t requested,
                            const char *format, ...) __attribute__((format(printf, 5, 6)));
#define FAIL status_fail
#define FAIL_NUMBERS status_fail_numbers

/*
 * A failure of the system: `outcome` is -errno. The sentence is completed by the system's
 * own reason: "Cannot open /dev/shm/dsmr.r.shop: Permission denied."
 */
int32_t status_fail_os(dsmr_error *error, int32_t outcome, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* 0, or NAME_INVALID or NAME_TOO_LONG; `what` says whose name it is ("segment"). */
int32_t status_check_name(dsmr_error *error, const char *what, const char *name,
                          uint32_t length);

/* The bytes before the first NUL, or all: a text field of shared memory may lack its end. */
uint32_t status_text_length(const char *text, uint32_t size);

/* The name as far as it is text to be shown, NUL-terminated; the rest as '?'. */
void status_show_name(const char *name, uint32_t length, char shown[DSMR_NAME_SIZE]);

#endif

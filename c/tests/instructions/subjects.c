/*
 * subjects.c - the calls whose instructions run.ts counts, each as often as it is told.
 *
 *   subjects LIBRARY DIRECTORY SUBJECT COUNT
 *   subjects LIBRARY DIRECTORY                 prints the subjects' names
 *
 * Everything that is needed for the first call is done before, also with a count of 0: so what a
 * count of n executes more is n calls. The library comes by its path: the file that users get, and
 * not one that is built for this machine.
 */
#include "dsmr.h"

#include "layout.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *library;

static void must(int is_good, const char *what, const char *why) {
  if (is_good) return;
  (void)fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

#define CALL(name) ((__typeof__(&(name)))find(#name))
static void *find(const char *name) {
  void *found = dlsym(library, name);
  must(found != NULL, name, "the library does not have it");
  return found;
}

static dsmr_error error;
static uint32_t registry;
static uint32_t segment;
static uint32_t lock;

static __typeof__(&dsmr_lock_acquire) acquire;
static __typeof__(&dsmr_lock_try) try_acquire;
static __typeof__(&dsmr_lock_release) release;
static __typeof__(&dsmr_segment_lookup) lookup;
static __typeof__(&dsmr_segment_detach) detach;
static __typeof__(&dsmr_segment_is_current) is_current;
static __typeof__(&dsmr_word_wait) word_wait;
static __typeof__(&dsmr_word_wake) word_wake;

static int32_t must_do(int32_t status, const char *what) {
  must(status >= 0, what, error.message);
  return status;
}

static uint32_t segment_number(uint32_t number) {
  char name[32];
  int length = snprintf(name, sizeof name, "segment-%u", number);
  dsmr_segment_request request = {.size = 4096, .timeout_ms = 10000};
  dsmr_segment_ticket ticket = {0};
  int32_t status = must_do(CALL(dsmr_segment_begin)(registry, name, (uint32_t)length, &request,
                                                    &ticket, &error),
                           "dsmr_segment_begin");
  if (status == DSMR_INITIALIZE) {
    (void)must_do(CALL(dsmr_segment_commit)(ticket.segment, &error), "dsmr_segment_commit");
  }
  return ticket.segment;
}

static void look_up(const char *name, int32_t expected) {
  dsmr_segment_ticket ticket = {0};
  int32_t status = lookup(registry, name, (uint32_t)strlen(name), 0, &ticket, &error);
  must(status == expected, "dsmr_segment_lookup", error.message);
  segment = ticket.segment;
}

static void exclusive_pair(void) {
  must(acquire(lock, DSMR_EXCLUSIVE, -1) == 0 && release(lock) == 0, "exclusive", "not had");
}

static void shared_pair(void) {
  must(acquire(lock, DSMR_SHARED, -1) == 0 && release(lock) == 0, "shared", "not had");
}

static void try_pair(void) {
  must(try_acquire(lock, DSMR_EXCLUSIVE) == 0 && release(lock) == 0, "try", "not had");
}

static void attach_detach(void) {
  look_up("segment-7", DSMR_FOUND);
  (void)must_do(detach(segment), "dsmr_segment_detach");
}

static void look_up_attached(void) { look_up("segment-0", DSMR_FOUND); }
static void look_up_nothing(void) { look_up("there-is-none", DSMR_E_NOT_FOUND); }
static void is_current_of_attached(void) { must(is_current(segment) == 1, "is_current", "no"); }
static void wait_for_other_value(void) { (void)word_wait(segment, 0, 0, 1, -1); }
static void wake_nobody(void) { (void)word_wake(segment, 0, 0, UINT32_MAX); }

static const struct {
  const char *name;
  void (*run)(void);
  uint32_t segments; /* in the registry */
  int is_biased;     /* the lock */
} subjects[] = {
    {"exclusive pair", exclusive_pair, 1, 0},
    {"shared pair", shared_pair, 1, 0},
    {"shared pair of a biased lock", shared_pair, 1, 1},
    {"tryAcquire pair", try_pair, 1, 0},
    {"attach and detach", attach_detach, 8, 0},
    {"attach and detach, of 1,000", attach_detach, 1000, 0},
    {"lookup of an attached one", look_up_attached, 1, 0},
    {"lookup of an attached one, of 1,000", look_up_attached, 1000, 0},
    {"lookup of nothing, of 1,000", look_up_nothing, 1000, 0},
    {"is_current", is_current_of_attached, 1, 0},
    {"word wait that need not wait", wait_for_other_value, 1, 0},
    {"word wake of nobody", wake_nobody, 1, 0},
};
#define SUBJECTS (sizeof subjects / sizeof subjects[0])

int main(int count, char **words) {
  must(count == 3 || count == 5, "usage", "subjects LIBRARY DIRECTORY [SUBJECT COUNT]");
  size_t chosen = SUBJECTS;
  for (size_t i = 0; i < SUBJECTS; i++) {
    if (count == 3) (void)puts(subjects[i].name);
    else if (strcmp(subjects[i].name, words[3]) == 0) chosen = i;
  }
  if (count == 3) return 0;
  must(chosen < SUBJECTS, words[3], "no such subject");
  library = dlopen(words[1], RTLD_NOW);
  must(library != NULL, words[1], library == NULL ? dlerror() : "");
  acquire = CALL(dsmr_lock_acquire);
  try_acquire = CALL(dsmr_lock_try);
  release = CALL(dsmr_lock_release);
  lookup = CALL(dsmr_segment_lookup);
  detach = CALL(dsmr_segment_detach);
  is_current = CALL(dsmr_segment_is_current);
  word_wait = CALL(dsmr_word_wait);
  word_wake = CALL(dsmr_word_wake);
  dsmr_registry_options options = {.segment_count_max = 1024, .timeout_ms = 10000};
  registry = (uint32_t)must_do(
      CALL(dsmr_registry_open)("instructions", 12, words[2], (uint32_t)strlen(words[2]), "default",
                               7, &options, &error),
      "dsmr_registry_open");
  /* The last one first: what is looked for is not the youngest. */
  for (uint32_t i = subjects[chosen].segments; i-- > 0;) {
    segment = segment_number(i);
    if (i == 7) (void)must_do(detach(segment), "dsmr_segment_detach");
  }
  lock = (uint32_t)must_do(CALL(dsmr_lock_of_segment)(segment, &error), "dsmr_lock_of_segment");
  /* A lock's first use finds it a cell of the journal. */
  exclusive_pair();
  if (subjects[chosen].is_biased) {
    /* As many readers would have done it; see lwlock_leave_readers. A pair sees it. */
    struct lwlock *words_of_lock = (struct lwlock *)CALL(dsmr_segment_address)(segment) - 1;
    atomic_store(&words_of_lock->owner, LOCK_BIAS);
    shared_pair();
  }
  for (int i = 0; i < atoi(words[4]); i++) subjects[chosen].run();
  return 0;
}

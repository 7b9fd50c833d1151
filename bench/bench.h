/*
 * bench.h - what the C benchmarks share: the clock, subjects that take turns, how to give up, and
 * how to get at a lock.
 *
 * They all work in a directory that run.ts makes and removes, so they never clean up.
 */
#ifndef DSMR_BENCH_H
#define DSMR_BENCH_H

#include "dsmr.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static inline double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static inline void sleep_ns(double ns) {
  struct timespec time = {.tv_sec = (time_t)(ns / 1e9)};
  time.tv_nsec = (long)(ns - (double)time.tv_sec * 1e9);
  nanosleep(&time, NULL);
}

/*
 * Something that is repeated `count` times in a round. A loop of its own, and not a function to
 * call in a loop: the call would cost as much as a tenth of what the fastest ones take.
 */
struct subject {
  const char *name;
  void (*run)(long count);
  long count;
  void (*after)(void); /* undoes it, outside of what is timed; or NULL */
};

#define SUBJECT(name, ...)                                           \
  static void name(long count) {                                     \
    for (long repetition = 0; repetition < count; repetition++) {    \
      __VA_ARGS__;                                                   \
    }                                                                \
  }

/*
 * Answers each line of input with one round, in which the subjects take turns: "name ns name ns
 * ...". So whoever asks can let other processes take turns with this one; harness.ts does.
 */
static inline void answer_with_rounds(const struct subject *subjects, size_t subject_count) {
  char line[256];
  while (fgets(line, sizeof line, stdin) != NULL) {
    for (size_t i = 0; i < subject_count; i++) {
      double started = now_ns();
      subjects[i].run(subjects[i].count);
      printf("%s %.3f ", subjects[i].name, (now_ns() - started) / (double)subjects[i].count);
      if (subjects[i].after != NULL) subjects[i].after();
    }
    printf("\n");
    fflush(stdout);
  }
}

static inline void must(int is_right, const char *what) {
  if (is_right) return;
  perror(what);
  exit(1);
}

/* In a child that was forked: it goes when its parent does. */
static inline void end_with_parent(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
}

static inline uint32_t open_registry(const char *directory, const char *name) {
  dsmr_error error = {0};
  int32_t handle = dsmr_registry_open(name, (uint32_t)strlen(name), directory,
                                      (uint32_t)strlen(directory), NULL, 0, NULL, &error);
  must(handle > 0, error.message);
  return (uint32_t)handle;
}

static inline uint32_t get_segment(uint32_t registry, const char *name) {
  dsmr_error error = {0};
  int32_t handle = dsmr_get_named_segment(registry, name, 4096, NULL, NULL, -1, NULL, &error);
  must(handle > 0, error.message);
  return (uint32_t)handle;
}

static inline uint32_t lock_of(uint32_t segment) {
  int32_t lock = dsmr_lock_of_segment(segment, NULL);
  must(lock > 0, "dsmr_lock_of_segment");
  return (uint32_t)lock;
}

/* glibc's own crash-safe lock. Returns 0 or an errno. */
static inline int init_robust_mutex(pthread_mutex_t *mutex) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  return pthread_mutex_init(mutex, &attributes);
}

static inline int32_t acquire(uint32_t lock, uint32_t mode) {
  int32_t outcome;
  do {
    outcome = dsmr_lock_acquire(lock, mode, -1);
  } while (outcome == DSMR_LOCK_BUSY);
  return outcome;
}

#endif

/*
 * lock.c - locks: ours from C, next to what the C library offers, in one run.
 *
 *   lock pairs               uncontended pairs: "name median-ns"
 *   lock contend SECONDS     two processes: "name ns-per-operation"
 *   lock death ROUNDS        kill -9 of the holder to the next owner running: median and worst
 *   lock ping DIR ROLE ROUNDS   one side of a ping-pong; see ping_pong.ts
 */
#include "dsmr.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 61
#define PAIRS 50000

static char directory[] = "/dev/shm/dsmr-bench-XXXXXX";

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void remove_all(void) {
  (void)dsmr_registry_destroy("lock", 4, directory, (uint32_t)strlen(directory), NULL);
  (void)rmdir(directory);
}

static void must(int is_right, const char *what) {
  if (is_right) return;
  perror(what);
  remove_all();
  exit(1);
}

static uint32_t open_in(const char *where) {
  int32_t handle =
      dsmr_registry_open("lock", 4, where, (uint32_t)strlen(where), NULL, 0, NULL, NULL);
  must(handle > 0, "dsmr_registry_open");
  return (uint32_t)handle;
}

static uint32_t segment_of(uint32_t registry) {
  int32_t handle = dsmr_get_named_segment(registry, "data", 4096, NULL, NULL, -1, NULL, NULL);
  must(handle > 0, "dsmr_get_named_segment");
  return (uint32_t)handle;
}

static uint32_t open_lock(const char *where) {
  int32_t lock = dsmr_lock_of_segment(segment_of(open_in(where)), NULL);
  must(lock > 0, "dsmr_lock_of_segment");
  return (uint32_t)lock;
}

static int32_t acquire(uint32_t lock, uint32_t mode) {
  int32_t outcome;
  do {
    outcome = dsmr_lock_acquire(lock, mode, -1);
  } while (outcome == DSMR_LOCK_BUSY);
  return outcome;
}

/* ---- subjects ---------------------------------------------------------------------------- */

/* What the C library's locks live in: memory that two processes share. */
static struct shared {
  _Atomic uint32_t word;
  pthread_mutex_t mutex;
  pthread_mutex_t robust;
  pthread_rwlock_t rwlock;
  _Atomic int go;
  _Atomic int stop;
  _Atomic long operations[2];
  _Atomic double acquired_ns;
} *shared;

static uint32_t own_lock;

static void swap_pair(void) {
  uint32_t free_word = 0;
  while (!atomic_compare_exchange_weak(&shared->word, &free_word, 1)) free_word = 0;
  (void)atomic_exchange(&shared->word, 0);
}
static void mutex_pair(void) {
  pthread_mutex_lock(&shared->mutex);
  pthread_mutex_unlock(&shared->mutex);
}
static void robust_pair(void) {
  pthread_mutex_lock(&shared->robust);
  pthread_mutex_unlock(&shared->robust);
}
static void write_pair(void) {
  pthread_rwlock_wrlock(&shared->rwlock);
  pthread_rwlock_unlock(&shared->rwlock);
}
static void read_pair(void) {
  pthread_rwlock_rdlock(&shared->rwlock);
  pthread_rwlock_unlock(&shared->rwlock);
}
static void exclusive_pair(void) {
  (void)acquire(own_lock, DSMR_EXCLUSIVE);
  (void)dsmr_lock_release(own_lock);
}
static void shared_pair(void) {
  (void)acquire(own_lock, DSMR_SHARED);
  (void)dsmr_lock_release(own_lock);
}

static const struct {
  const char *name;
  void (*pair)(void);
} subjects[] = {
    {"cas_swap", swap_pair},     {"mutex", mutex_pair},        {"robust_mutex", robust_pair},
    {"rwlock_write", write_pair}, {"rwlock_read", read_pair},   {"exclusive", exclusive_pair},
    {"shared", shared_pair},
};
#define SUBJECTS (sizeof subjects / sizeof subjects[0])

static void set_up(void) {
  must(mkdtemp(directory) != NULL, "mkdtemp");
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  must(shared != MAP_FAILED, "mmap");
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&shared->mutex, &attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&shared->robust, &attributes);
  pthread_rwlockattr_t rw_attributes;
  pthread_rwlockattr_init(&rw_attributes);
  pthread_rwlockattr_setpshared(&rw_attributes, PTHREAD_PROCESS_SHARED);
  pthread_rwlock_init(&shared->rwlock, &rw_attributes);
}

static int ascending(const void *a, const void *b) {
  double left = *(const double *)a;
  double right = *(const double *)b;
  return left < right ? -1 : left > right;
}

static void pairs(void) {
  own_lock = open_lock(directory);
  static double times[SUBJECTS][ROUNDS];
  for (int round = 0; round < ROUNDS; round++) {
    for (size_t i = 0; i < SUBJECTS; i++) {
      double started = now_ns();
      for (int pair = 0; pair < PAIRS; pair++) subjects[i].pair();
      times[i][round] = (now_ns() - started) / PAIRS;
    }
  }
  for (size_t i = 0; i < SUBJECTS; i++) {
    qsort(times[i], ROUNDS, sizeof times[i][0], ascending);
    printf("%s %.2f\n", subjects[i].name, times[i][ROUNDS / 2]);
  }
}

/* ---- two processes ------------------------------------------------------------------------ */

static void wait_for_go(void) {
  while (atomic_load(&shared->go) == 0) {
  }
}

/* One contender: as often as it can until told to stop. */
static void contender(size_t subject, int number) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  own_lock = open_lock(directory);
  wait_for_go();
  long count = 0;
  while (atomic_load_explicit(&shared->stop, memory_order_relaxed) == 0) {
    for (int i = 0; i < 64; i++) subjects[subject].pair();
    count += 64;
  }
  atomic_store(&shared->operations[number], count);
  _exit(0);
}

static void contend(double seconds) {
  for (size_t i = 0; i < SUBJECTS; i++) {
    atomic_store(&shared->go, 0);
    atomic_store(&shared->stop, 0);
    pid_t children[2];
    for (int n = 0; n < 2; n++) {
      children[n] = fork();
      must(children[n] >= 0, "fork");
      if (children[n] == 0) contender(i, n);
    }
    double started = now_ns();
    atomic_store(&shared->go, 1);
    struct timespec time = {.tv_sec = (time_t)seconds,
                            .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
    atomic_store(&shared->stop, 1);
    double elapsed = now_ns() - started;
    for (int n = 0; n < 2; n++) waitpid(children[n], NULL, 0);
    long done = atomic_load(&shared->operations[0]) + atomic_load(&shared->operations[1]);
    printf("%s %.1f\n", subjects[i].name, elapsed / (double)done);
  }
}

/* ---- death --------------------------------------------------------------------------------- */

/* Takes the lock when it is told a round, says so, and goes on when it is told again. */
static void holder(int say) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  uint32_t lock = open_lock(directory);
  if (acquire(lock, DSMR_EXCLUSIVE) < 0) _exit(1);
  (void)write(say, "h", 1);
  for (;;) pause();
}

static void waiter(int hear, int say) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  uint32_t lock = open_lock(directory);
  char byte;
  while (read(hear, &byte, 1) == 1) {
    int32_t outcome = acquire(lock, DSMR_EXCLUSIVE);
    atomic_store(&shared->acquired_ns, now_ns());
    if (outcome != DSMR_LOCK_ABANDONED) _exit(2);
    (void)dsmr_lock_mark_consistent(lock);
    (void)dsmr_lock_release(lock);
    (void)write(say, "a", 1);
  }
  _exit(0);
}

/* Until the process sleeps in a futex call: then it waits for the lock. */
static void until_asleep(pid_t pid) {
  char path[64];
  char line[64];
  snprintf(path, sizeof path, "/proc/%d/wchan", (int)pid);
  for (;;) {
    FILE *file = fopen(path, "r");
    must(file != NULL, path);
    size_t length = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[length] = '\0';
    if (strstr(line, "futex") != NULL) return;
  }
}

static void death(int rounds) {
  double *times = calloc((size_t)rounds, sizeof *times);
  int to_waiter[2];
  int from_waiter[2];
  must(times != NULL && pipe(to_waiter) == 0 && pipe(from_waiter) == 0, "pipe");
  (void)open_lock(directory);
  pid_t waiting = fork();
  if (waiting == 0) waiter(to_waiter[0], from_waiter[1]);
  char byte;
  for (int round = 0; round < rounds; round++) {
    int from_holder[2];
    must(pipe(from_holder) == 0, "pipe");
    pid_t holding = fork();
    if (holding == 0) holder(from_holder[1]);
    close(from_holder[1]);
    must(read(from_holder[0], &byte, 1) == 1, "the holder");
    close(from_holder[0]);
    must(write(to_waiter[1], "g", 1) == 1, "the waiter");
    until_asleep(waiting);
    double killed = now_ns();
    kill(holding, SIGKILL);
    must(read(from_waiter[0], &byte, 1) == 1, "the waiter");
    times[round] = (atomic_load(&shared->acquired_ns) - killed) / 1e6;
    waitpid(holding, NULL, 0);
  }
  kill(waiting, SIGKILL);
  waitpid(waiting, NULL, 0);
  qsort(times, (size_t)rounds, sizeof *times, ascending);
  printf("median_ms %.3f\np99_ms %.3f\nworst_ms %.3f\n", times[rounds / 2],
         times[(long)rounds * 99 / 100], times[rounds - 1]);
  free(times);
}

/* ---- ping-pong ------------------------------------------------------------------------------ */

/*
 * Two processes, each inside a lock of its own for the whole time, tell each other a number
 * by updateVar and wait for the other's by waitForVar.
 */
static void ping(const char *where, int role, uint64_t rounds) {
  uint32_t registry = open_in(where);
  int32_t segment = dsmr_get_named_segment(registry, "ping", 0, NULL, NULL, -1, NULL, NULL);
  must(segment > 0, "segment ping");
  int32_t own = dsmr_lock_at((uint32_t)segment, role == 0 ? 0 : 64, 0, NULL);
  int32_t other = dsmr_lock_at((uint32_t)segment, role == 0 ? 64 : 0, 0, NULL);
  must(own > 0 && other > 0, "locks");
  must(acquire((uint32_t)own, DSMR_EXCLUSIVE) >= 0, "acquire");
  uint32_t own_offset = role == 0 ? 128 : 192;
  uint32_t other_offset = role == 0 ? 192 : 128;
  _Atomic uint32_t *ready =
      (_Atomic uint32_t *)(void *)((char *)dsmr_segment_address((uint32_t)segment) + 256);
  atomic_fetch_add(ready, 1);
  while (atomic_load(ready) < 2) {
  }
  double started = now_ns();
  for (uint64_t i = 1; i <= rounds; i++) {
    if (role == 0) {
      (void)dsmr_lock_update_variable((uint32_t)own, own_offset, 0, &i, 0);
    }
    uint64_t value = i - 1;
    uint64_t since = 0;
    int32_t outcome;
    do {
      outcome = dsmr_lock_wait_for_variable((uint32_t)other, other_offset, 0, &value, &since, -1);
    } while (outcome == DSMR_LOCK_BUSY);
    must(outcome == 1, "wait_for_variable");
    if (role == 1) {
      (void)dsmr_lock_update_variable((uint32_t)own, own_offset, 0, &i, 0);
    }
  }
  if (role == 0) printf("round_trip_us %.2f\n", (now_ns() - started) / 1e3 / (double)rounds);
  /* The other one may still be looking at our lock. */
  atomic_fetch_add(ready, 1);
  while (atomic_load(ready) < 4) {
  }
}

int main(int count, char **words) {
  if (count == 5 && strcmp(words[1], "ping") == 0) {
    ping(words[2], atoi(words[3]), strtoull(words[4], NULL, 10));
    return 0;
  }
  if (count < 2) return 2;
  set_up();
  if (strcmp(words[1], "pairs") == 0) pairs();
  if (count == 3 && strcmp(words[1], "contend") == 0) contend(atof(words[2]));
  if (count == 3 && strcmp(words[1], "death") == 0) death(atoi(words[2]));
  remove_all();
  return 0;
}

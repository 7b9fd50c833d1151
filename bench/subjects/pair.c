/*
 * pair.c - taking a lock and letting it go: ours, next to what the C library and the kernel offer.
 *
 *   pair DIRECTORY pairs                   uncontended
 *   pair DIRECTORY contend MILLISECONDS    two processes that do nothing else
 *
 * Each line of input is answered with one round, a line of "name ns-per-pair" for all
 * subjects in turn; so locks.ts can let other processes take turns with this one.
 */
#include "../bench.h"

#include <fcntl.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PAIRS 20000
#define SYSTEM_CALL_PAIRS 2000 /* of those that ask the kernel each time */

/* What the C library's locks live in: memory that two processes share. */
static struct shared {
  _Alignas(64) _Atomic uint32_t word;
  _Alignas(64) pthread_mutex_t mutex;
  _Alignas(64) pthread_mutex_t robust;
  _Alignas(64) pthread_rwlock_t rwlock;
  _Alignas(64) sem_t semaphore;
  _Alignas(64) _Atomic int ready;
  _Atomic int go;
  _Atomic int stop;
  _Atomic long pairs[2];
} *shared;

static uint32_t own_segment;
static uint32_t own_lock;
/* Of a file in the directory, which is in memory; opened by each process for itself. */
static int flock_file;
static int ofd_file;

static inline void spin_lock(void) {
  uint32_t free_word = 0;
  while (!atomic_compare_exchange_weak(&shared->word, &free_word, 1)) free_word = 0;
}

static inline void set_ofd_lock(short type) {
  struct flock request = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
  must(fcntl(ofd_file, F_OFD_SETLKW, &request) == 0, "F_OFD_SETLKW");
}

#define PAIR(name, take, give) SUBJECT(name, take; give)

PAIR(cas_swap, spin_lock(), (void)atomic_exchange(&shared->word, 0))
PAIR(mutex, pthread_mutex_lock(&shared->mutex), pthread_mutex_unlock(&shared->mutex))
PAIR(robust_mutex, pthread_mutex_lock(&shared->robust), pthread_mutex_unlock(&shared->robust))
PAIR(rwlock_write, pthread_rwlock_wrlock(&shared->rwlock), pthread_rwlock_unlock(&shared->rwlock))
PAIR(rwlock_read, pthread_rwlock_rdlock(&shared->rwlock), pthread_rwlock_unlock(&shared->rwlock))
PAIR(semaphore, sem_wait(&shared->semaphore), sem_post(&shared->semaphore))
PAIR(flock_file_lock, flock(flock_file, LOCK_EX), flock(flock_file, LOCK_UN))
PAIR(ofd_lock, set_ofd_lock(F_WRLCK), set_ofd_lock(F_UNLCK))
PAIR(exclusive, (void)acquire(own_lock, DSMR_EXCLUSIVE), (void)dsmr_lock_release(own_lock))
PAIR(shared_mode, (void)acquire(own_lock, DSMR_SHARED), (void)dsmr_lock_release(own_lock))
/* The cheapest calls there are. The same two from JavaScript show what its way into C costs. */
PAIR(cheap_calls, (void)dsmr_segment_is_current(own_segment),
     (void)dsmr_segment_is_current(own_segment))

static const struct subject subjects[] = {
    {"cas_swap", cas_swap, PAIRS, NULL},
    {"mutex", mutex, PAIRS, NULL},
    {"robust_mutex", robust_mutex, PAIRS, NULL},
    {"rwlock_write", rwlock_write, PAIRS, NULL},
    {"rwlock_read", rwlock_read, PAIRS, NULL},
    {"semaphore", semaphore, PAIRS, NULL},
    {"flock", flock_file_lock, SYSTEM_CALL_PAIRS, NULL},
    {"ofd", ofd_lock, SYSTEM_CALL_PAIRS, NULL},
    {"exclusive", exclusive, PAIRS, NULL},
    {"shared", shared_mode, PAIRS, NULL},
    {"cheap_calls", cheap_calls, PAIRS, NULL},
};
#define SUBJECTS (sizeof subjects / sizeof subjects[0])
#define CONTENDED (SUBJECTS - 1) /* all but the cheap calls */

static void make_shared(void) {
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  must(shared != MAP_FAILED, "mmap");
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&shared->mutex, &attributes);
  init_robust_mutex(&shared->robust);
  pthread_rwlockattr_t rw_attributes;
  pthread_rwlockattr_init(&rw_attributes);
  pthread_rwlockattr_setpshared(&rw_attributes, PTHREAD_PROCESS_SHARED);
  pthread_rwlock_init(&shared->rwlock, &rw_attributes);
  must(sem_init(&shared->semaphore, 1, 1) == 0, "sem_init");
}

static int open_file(const char *directory, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  must(file >= 0, path);
  return file;
}

static void attach(const char *directory) {
  own_segment = get_segment(open_registry(directory, "lock"), "data");
  own_lock = lock_of(own_segment);
  flock_file = open_file(directory, "flock");
  ofd_file = open_file(directory, "ofd");
}

/* One of two: as often as it can until told to stop. */
static void contender(const char *directory, size_t subject, int number) {
  attach(directory);
  atomic_fetch_add(&shared->ready, 1);
  while (atomic_load(&shared->go) == 0) sched_yield();
  long count = 0;
  /* Once at least: on a busy machine all may be over before this one is let run. */
  do {
    subjects[subject].run(64);
    count += 64;
  } while (atomic_load_explicit(&shared->stop, memory_order_relaxed) == 0);
  atomic_store(&shared->pairs[number], count);
  _exit(0);
}

static double contended(const char *directory, size_t subject, double contend_ns) {
  atomic_store(&shared->ready, 0);
  atomic_store(&shared->go, 0);
  atomic_store(&shared->stop, 0);
  pid_t self = getpid();
  pid_t children[2];
  for (int n = 0; n < 2; n++) {
    children[n] = fork();
    must(children[n] >= 0, "fork");
    if (children[n] == 0) {
      end_with_parent(self);
      contender(directory, subject, n);
    }
  }
  while (atomic_load(&shared->ready) < 2) {
    must(waitpid(-1, NULL, WNOHANG) == 0, "a contender ended");
    sched_yield();
  }
  double started = now_ns();
  atomic_store(&shared->go, 1);
  sleep_ns(contend_ns);
  atomic_store(&shared->stop, 1);
  double elapsed = now_ns() - started;
  for (int n = 0; n < 2; n++) waitpid(children[n], NULL, 0);
  return elapsed / (double)(atomic_load(&shared->pairs[0]) + atomic_load(&shared->pairs[1]));
}

int main(int count, char **words) {
  int is_contend = count == 4 && strcmp(words[2], "contend") == 0;
  if (!is_contend && (count != 3 || strcmp(words[2], "pairs") != 0)) return 2;
  make_shared();
  if (!is_contend) {
    attach(words[1]);
    answer_with_rounds(subjects, SUBJECTS);
    return 0;
  }
  double contend_ns = atof(words[3]) * 1e6;
  char line[64];
  while (fgets(line, sizeof line, stdin) != NULL) {
    for (size_t i = 0; i < CONTENDED; i++) {
      printf("%s %.3f ", subjects[i].name, contended(words[1], i, contend_ns));
    }
    printf("\n");
    fflush(stdout);
  }
  return 0;
}

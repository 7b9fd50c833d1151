/*
 * contention.c - several processes at one lock, some to read and some to write.
 *
 *   contention DIRECTORY
 *
 * A line of input is a question, KIND PROCESSES WRITE_PERCENT MILLISECONDS; the answer is a line
 * of how many nanoseconds it took, and how often each process has had the lock. KIND is
 *
 *   dsmr      the lock of segment "data"
 *   rwlock    glibc's, process-shared
 *   robust    glibc's robust mutex, for readers and writers alike
 *
 * Inside, a writer counts in one cache line of shared memory, and a reader looks at it.
 * contention_child.ts does the same from JavaScript.
 */
#include "../bench.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PROCESSES_MAX 64
#define BATCH 32

static struct shared {
  _Alignas(64) pthread_mutex_t robust;
  _Alignas(64) pthread_rwlock_t rwlock;
  _Alignas(64) volatile uint64_t data[8];
  _Alignas(64) _Atomic int ready;
  _Alignas(64) _Atomic int go;
  _Alignas(64) _Atomic int stop;
  _Alignas(64) long counts[PROCESSES_MAX];
} *shared;

static uint32_t own_lock;

static inline void write_data(void) { shared->data[0] = shared->data[0] + 1; }
static inline void read_data(void) { (void)shared->data[0]; }

#define USE(name, take_write, give_write, take_read, give_read)    \
  static void name(int is_write) {                                 \
    if (is_write) {                                                \
      take_write;                                                  \
      write_data();                                                \
      give_write;                                                  \
    } else {                                                       \
      take_read;                                                   \
      read_data();                                                 \
      give_read;                                                   \
    }                                                              \
  }

USE(use_dsmr, (void)acquire(own_lock, DSMR_EXCLUSIVE), (void)dsmr_lock_release(own_lock),
    (void)acquire(own_lock, DSMR_SHARED), (void)dsmr_lock_release(own_lock))
USE(use_rwlock, pthread_rwlock_wrlock(&shared->rwlock), pthread_rwlock_unlock(&shared->rwlock),
    pthread_rwlock_rdlock(&shared->rwlock), pthread_rwlock_unlock(&shared->rwlock))
USE(use_robust, pthread_mutex_lock(&shared->robust), pthread_mutex_unlock(&shared->robust),
    pthread_mutex_lock(&shared->robust), pthread_mutex_unlock(&shared->robust))

static const struct kind {
  const char *name;
  void (*use)(int is_write);
} kinds[] = {
    {"dsmr", use_dsmr}, {"rwlock", use_rwlock}, {"robust", use_robust}};

static const struct kind *kind_named(const char *name) {
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    if (strcmp(kinds[i].name, name) == 0) return &kinds[i];
  }
  fprintf(stderr, "no kind %s\n", name);
  exit(2);
}

static void make_shared(void) {
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  must(shared != MAP_FAILED, "mmap");
  must(init_robust_mutex(&shared->robust) == 0, "robust mutex");
  pthread_rwlockattr_t attributes;
  pthread_rwlockattr_init(&attributes);
  pthread_rwlockattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_rwlock_init(&shared->rwlock, &attributes);
}

static void contender(const char *directory, const struct kind *kind, int number,
                      uint32_t write_percent) {
  own_lock = lock_of(get_segment(open_registry(directory, "lock"), "data"));
  uint32_t random = 2463534242u + (uint32_t)number;
  atomic_fetch_add(&shared->ready, 1);
  while (atomic_load(&shared->go) == 0) sched_yield();
  long count = 0;
  /* Once at least: on a busy machine all may be over before this one is let run. */
  do {
    for (int i = 0; i < BATCH; i++) {
      random ^= random << 13;
      random ^= random >> 17;
      random ^= random << 5;
      kind->use(random % 100 < write_percent);
    }
    count += BATCH;
  } while (atomic_load_explicit(&shared->stop, memory_order_relaxed) == 0);
  shared->counts[number] = count;
  _exit(0);
}

static void contend(const char *directory, const struct kind *kind, int processes,
                    uint32_t write_percent, double milliseconds) {
  atomic_store(&shared->ready, 0);
  atomic_store(&shared->go, 0);
  atomic_store(&shared->stop, 0);
  pid_t self = getpid();
  for (int n = 0; n < processes; n++) {
    pid_t child = fork();
    must(child >= 0, "fork");
    if (child > 0) continue;
    end_with_parent(self);
    contender(directory, kind, n, write_percent);
  }
  while (atomic_load(&shared->ready) < processes) {
    must(waitpid(-1, NULL, WNOHANG) == 0, "a contender ended");
    sched_yield();
  }
  double started = now_ns();
  atomic_store(&shared->go, 1);
  sleep_ns(milliseconds * 1e6);
  atomic_store(&shared->stop, 1);
  for (int n = 0; n < processes; n++) must(waitpid(-1, NULL, 0) > 0, "waitpid");
  printf("%.0f", now_ns() - started);
  for (int n = 0; n < processes; n++) printf(" %ld", shared->counts[n]);
  printf("\n");
  fflush(stdout);
}

int main(int count, char **words) {
  if (count != 2) return 2;
  make_shared();
  char line[256];
  while (fgets(line, sizeof line, stdin) != NULL) {
    char name[32];
    int processes;
    unsigned write_percent;
    double milliseconds;
    int read = sscanf(line, "%31s %d %u %lf", name, &processes, &write_percent, &milliseconds);
    if (read != 4 || processes < 1 || processes > PROCESSES_MAX) return 2;
    contend(words[1], kind_named(name), processes, write_percent, milliseconds);
  }
  return 0;
}

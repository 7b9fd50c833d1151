/*
 * process.c - what belongs to the process as a whole.
 *
 * The hardest race: a thread starts the library while another does. `started_pid` goes
 * 0 -> STARTING -> pid by compare-and-swap; losers wait for the pid. In a forked child it
 * holds the parent's pid, so the first call there starts again, and forgets first.
 */
#include "process.h"

#include "dsmr.h"
#include "handle.h"
#include "os.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define STARTING UINT32_MAX

static _Atomic uint32_t started_pid;
static pthread_key_t thread_key;
static uint64_t process_number; /* random, anew in a forked child */
static bool has_thread_key;
#define MAPPING_BUCKETS 1024u
static struct mapping *mappings[MAPPING_BUCKETS]; /* by inode; under the process lock */

/* ---- latches ---------------------------------------------------------------------- */

#define LATCH_SLEEP_NS 50000000u

/*
 * 0 free, 1 held, 2 held and perhaps waited for. Not a pthread mutex: its size differs
 * between C libraries on some machines, and this library serves all of them.
 */
void latch_lock(_Atomic uint32_t *latch) {
  uint32_t seen = 0;
  /* Acquire; pairs with the release in latch_unlock. */
  if (atomic_compare_exchange_strong_explicit(latch, &seen, 1, memory_order_acquire,
                                              memory_order_relaxed)) {
    return;
  }
  /* Having waited, mark it waited for: others may still sleep, and our release wakes one. */
  while (atomic_exchange_explicit(latch, 2, memory_order_acquire) != 0) {
    os_futex_wait(latch, 2, LATCH_SLEEP_NS);
  }
}

void latch_unlock(_Atomic uint32_t *latch) {
  /* Release; pairs with the acquires in latch_lock. */
  if (atomic_exchange_explicit(latch, 0, memory_order_release) == 2) os_futex_wake(latch, 1);
}

static _Atomic uint32_t process_latch;

void process_lock(void) { latch_lock(&process_latch); }
void process_unlock(void) { latch_unlock(&process_latch); }

/* ---- start, threads, fork ---------------------------------------------------------- */

static int32_t start(void (*thread_ends)(void *list)) {
  if (!has_thread_key && pthread_key_create(&thread_key, thread_ends) != 0) {
    return DSMR_E_NO_SPACE;
  }
  has_thread_key = true;
  os_stay_loaded();
  if (os_random(&process_number) != 0) return DSMR_E_UNSUPPORTED;
  return handle_start();
}

int32_t process_start(void (*thread_ends)(void *list), void (*after_fork)(void)) {
  uint32_t pid = os_pid();
  for (;;) {
    /* Acquire; pairs with the release below: the key and the table are there. */
    uint32_t seen = atomic_load_explicit(&started_pid, memory_order_acquire);
    if (seen == pid) return 0;
    if (seen == STARTING) {
      os_futex_wait(&started_pid, STARTING, LATCH_SLEEP_NS);
      continue;
    }
    if (!atomic_compare_exchange_strong_explicit(&started_pid, &seen, STARTING,
                                                 memory_order_acquire, memory_order_relaxed)) {
      continue;
    }
    if (seen != 0) {
      /* A forked child. Another thread of the parent may have held the lock. */
      atomic_store_explicit(&process_latch, 0, memory_order_relaxed);
      memset(mappings, 0, sizeof mappings);
      /* The thread that forked still has the parent's list in it, and need not be this one. */
      if (has_thread_key) (void)pthread_key_delete(thread_key);
      has_thread_key = false;
      after_fork();
    }
    int32_t outcome = start(thread_ends);
    /* Release; pairs with the acquire above. */
    atomic_store_explicit(&started_pid, outcome == 0 ? pid : 0, memory_order_release);
    os_futex_wake(&started_pid, UINT32_MAX);
    return outcome;
  }
}

bool process_is_started(void) {
  return atomic_load_explicit(&started_pid, memory_order_acquire) == os_pid();
}

/* A key of its own: a thread may have one and not the other. */
static pthread_key_t end_key;
static bool has_end_key;

bool process_on_thread_end(void (*ends)(void *argument), void *argument) {
  process_lock();
  if (!has_end_key) has_end_key = pthread_key_create(&end_key, ends) == 0;
  bool is_there = has_end_key;
  process_unlock();
  return is_there && pthread_setspecific(end_key, argument) == 0;
}

uint64_t process_thread_number(void) { return process_number + os_tid(); }

void process_set_thread_list(void *list) { pthread_setspecific(thread_key, list); }

void *process_thread_list(void) { return pthread_getspecific(thread_key); }

/* ---- mappings ----------------------------------------------------------------------- */

static struct mapping **bucket_of(uint64_t inode) { return &mappings[inode % MAPPING_BUCKETS]; }

int32_t mapping_acquire(int fd, uint64_t device, uint64_t inode, uint64_t size,
                        struct mapping **mapping) {
  struct mapping **bucket = bucket_of(inode);
  process_lock();
  /* An inode that we have mapped cannot be given to another file meanwhile. */
  for (struct mapping *m = *bucket; m != NULL; m = m->next) {
    if (m->device == device && m->inode == inode && m->size == size) {
      m->use_count++;
      *mapping = m;
      process_unlock();
      return 0;
    }
  }
  struct mapping *m = calloc(1, sizeof *m);
  int32_t outcome = m == NULL ? -ENOMEM : os_map(fd, size, &m->address);
  if (outcome == 0) {
    m->device = device;
    m->inode = inode;
    m->size = size;
    m->use_count = 1;
    m->end = MAPPING_UNMAPPED;
    m->next = *bucket;
    *bucket = m;
    *mapping = m;
  } else {
    free(m);
  }
  process_unlock();
  return outcome;
}

/* The addresses that read as zeros for a while, oldest first. Under the process lock. */
#define ZEROS_MAX 256u
#define ZEROS_BYTES_MAX (UINT64_C(1) << 40)
static struct zeros {
  void *address;
  uint64_t size;
} kept_zeros[ZEROS_MAX];
static uint32_t zeros_first;
static uint32_t zeros_count;
static uint64_t zeros_bytes;

static struct zeros forget_oldest_zeros(void) {
  struct zeros oldest = kept_zeros[zeros_first];
  zeros_first = (zeros_first + 1) % ZEROS_MAX;
  zeros_count--;
  zeros_bytes -= oldest.size;
  return oldest;
}

static void remember_zeros(const struct mapping *mapping) {
  struct zeros gone = {0};
  process_lock();
  if (zeros_count == ZEROS_MAX || (zeros_count > 0 && zeros_bytes > ZEROS_BYTES_MAX)) {
    gone = forget_oldest_zeros();
  }
  uint32_t next = (zeros_first + zeros_count) % ZEROS_MAX;
  kept_zeros[next] = (struct zeros){mapping->address, mapping->size};
  zeros_count++;
  zeros_bytes += mapping->size;
  process_unlock();
  if (gone.size != 0) os_unmap(gone.address, gone.size);
}

void mapping_release(struct mapping *mapping) {
  process_lock();
  bool is_last = --mapping->use_count == 0;
  if (is_last) {
    struct mapping **link = bucket_of(mapping->inode);
    while (*link != mapping) link = &(*link)->next;
    *link = mapping->next;
  }
  process_unlock();
  if (!is_last) return;
  /* Unmapping a large segment takes long: not under the lock. */
  if (mapping->end == MAPPING_UNMAPPED) {
    os_unmap(mapping->address, mapping->size);
  } else {
    os_unmap_to_zeros(mapping->address, mapping->size);
    if (mapping->end == MAPPING_ZEROS_FOR_A_WHILE) remember_zeros(mapping);
  }
  free(mapping);
}

void mapping_set_end(struct mapping *mapping, enum mapping_end end) {
  process_lock();
  if (mapping->end < (uint32_t)end) mapping->end = (uint32_t)end;
  process_unlock();
}

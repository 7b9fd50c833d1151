/*
 * postgres.c - PostgreSQL's LWLock, where it lives: a library that its server loads at its start,
 * with SQL functions that take the lock and let it go inside of backends.
 *
 *   pairs() -> text                    a round, "name ns-per-pair ...", as pair.c gives it
 *   contend(number, use, writes)       one of several backends at the lock
 *   let_contend(backends, ms) -> text  lets them begin, and stops them; the answer is how many
 *                                      nanoseconds it took until they were told, and until all
 *                                      had stopped, and how often each has had the lock
 *
 * `use` is "exclusive" or "shared": bare pairs, as two processes do them in pair.c; or "mixed", as
 * many do them in scaling/contention.c, of which `writes` in a hundred are in exclusive mode.
 *
 * The lock is the only one of a named tranche, which the server is asked for while it starts, and
 * makes in its own shared memory. PostgreSQL has had this way since 9.6; with 15 came the hook.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/pmsignal.h"
#include "storage/shmem.h"
#include "utils/builtins.h"

#include "../bench.h"

#include <sched.h>
#include <stdatomic.h>

#define NAME "dsmr_bench"
#define PAIRS 20000
#define BACKENDS_MAX 16
#define BARE_BATCH 64
#define MIXED_BATCH 32
#define LOOK (1L << 20) /* after so many uses, at what else has happened */
#define WAITING_US 50

/* Zeroed when it is made, and by let_contend() when all is over: there is nobody to meet then. */
static struct shared {
  _Alignas(64) _Atomic uint32_t word;
  _Alignas(64) volatile uint64_t data[8];
  _Alignas(64) _Atomic int ready;
  _Alignas(64) _Atomic int go;
  _Alignas(64) _Atomic int stop;
  _Alignas(64) _Atomic int done;
  _Alignas(64) long counts[BACKENDS_MAX];
} *shared;

static LWLock *lock;

static inline void spin_lock(void) {
  uint32_t free_word = 0;
  while (!atomic_compare_exchange_weak(&shared->word, &free_word, 1)) free_word = 0;
}

#define PAIR(name, take, give) SUBJECT(name, take; give)

PAIR(cas_swap, spin_lock(), (void)atomic_exchange(&shared->word, 0))
PAIR(exclusive, (void)LWLockAcquire(lock, LW_EXCLUSIVE), LWLockRelease(lock))
PAIR(shared_mode, (void)LWLockAcquire(lock, LW_SHARED), LWLockRelease(lock))

static const struct subject subjects[] = {
    {"cas_swap", cas_swap, PAIRS, NULL},
    {"exclusive", exclusive, PAIRS, NULL},
    {"shared", shared_mode, PAIRS, NULL},
};
#define SUBJECTS (sizeof subjects / sizeof subjects[0])

/* ---- memory and lock, asked for while the server starts ------------------------------------- */

PG_MODULE_MAGIC;

static shmem_startup_hook_type startup_before;

static void request(void) {
  /* The server aligns it to its own cache lines, which may be shorter than what we ask for. */
  RequestAddinShmemSpace(sizeof *shared + _Alignof(struct shared));
  RequestNamedLWLockTranche(NAME, 1);
}

#if PG_VERSION_NUM >= 150000
static shmem_request_hook_type request_before;

static void request_when_asked(void) {
  if (request_before != NULL) request_before();
  request();
}
#endif

static void find_or_make(void) {
  if (startup_before != NULL) startup_before();
  LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
  bool found;
  char *memory = ShmemInitStruct(NAME, sizeof *shared + _Alignof(struct shared), &found);
  shared = (struct shared *)TYPEALIGN(_Alignof(struct shared), memory);
  if (!found) memset(shared, 0, sizeof *shared);
  lock = &GetNamedLWLockTranche(NAME)->lock;
  LWLockRelease(AddinShmemInitLock);
}

extern PGDLLEXPORT void _PG_init(void);

void _PG_init(void) {
  if (!process_shared_preload_libraries_in_progress) {
    elog(ERROR, "%s belongs in shared_preload_libraries", NAME);
  }
#if PG_VERSION_NUM >= 150000
  request_before = shmem_request_hook;
  shmem_request_hook = request_when_asked;
#else
  request();
#endif
  startup_before = shmem_startup_hook;
  shmem_startup_hook = find_or_make;
}

/* ---- a round, uncontended --------------------------------------------------------------------- */

PG_FUNCTION_INFO_V1(pairs);

Datum pairs(PG_FUNCTION_ARGS) {
  char answer[256];
  int length = 0;
  for (size_t i = 0; i < SUBJECTS; i++) {
    double started = now_ns();
    subjects[i].run(subjects[i].count);
    length += snprintf(answer + length, sizeof answer - (size_t)length, "%s %.3f ",
                       subjects[i].name, (now_ns() - started) / (double)subjects[i].count);
  }
  PG_RETURN_TEXT_P(cstring_to_text(answer));
}

/* ---- several backends ------------------------------------------------------------------------- */

/*
 * A backend that waits for another does so for ever if the server is killed, which would have ended
 * both: so it looks after it. While the server lives, it ends them all when one of them dies.
 */
static void end_with_server(void) {
  CHECK_FOR_INTERRUPTS();
  if (!PostmasterIsAlive()) proc_exit(1);
}

static void use_mixed(uint32_t *random, int writes) {
  for (int i = 0; i < MIXED_BATCH; i++) {
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    if (*random % 100 < (uint32_t)writes) {
      LWLockAcquire(lock, LW_EXCLUSIVE);
      shared->data[0] = shared->data[0] + 1;
    } else {
      LWLockAcquire(lock, LW_SHARED);
      (void)shared->data[0];
    }
    LWLockRelease(lock);
  }
}

PG_FUNCTION_INFO_V1(contend);

Datum contend(PG_FUNCTION_ARGS) {
  int number = PG_GETARG_INT32(0);
  const char *use = text_to_cstring(PG_GETARG_TEXT_PP(1));
  int writes = PG_GETARG_INT32(2);
  if (number < 0 || number >= BACKENDS_MAX) elog(ERROR, "no backend %d", number);
  const struct subject *bare = NULL;
  for (size_t i = 1; i < SUBJECTS; i++) {
    if (strcmp(subjects[i].name, use) == 0) bare = &subjects[i];
  }
  if (bare == NULL && strcmp(use, "mixed") != 0) elog(ERROR, "no use %s", use);
  uint32_t random = 2463534242u + (uint32_t)number;
  atomic_fetch_add(&shared->ready, 1);
  while (atomic_load(&shared->go) == 0) {
    end_with_server();
    sched_yield();
  }
  long count = 0;
  /* Once at least: on a busy machine all may be over before this one is let run. */
  do {
    if (bare != NULL) {
      bare->run(BARE_BATCH);
      count += BARE_BATCH;
    } else {
      use_mixed(&random, writes);
      count += MIXED_BATCH;
    }
    if (count % LOOK == 0) end_with_server();
  } while (atomic_load_explicit(&shared->stop, memory_order_relaxed) == 0);
  shared->counts[number] = count;
  /* Publishes the count to let_contend(). */
  atomic_fetch_add(&shared->done, 1);
  PG_RETURN_VOID();
}

/* One that never comes has failed: whoever asked both then stops the server. */
static void wait_until(_Atomic int *arrived, int everybody) {
  while (atomic_load(arrived) < everybody) {
    end_with_server();
    sleep_ns(WAITING_US * 1e3);
  }
}

PG_FUNCTION_INFO_V1(let_contend);

Datum let_contend(PG_FUNCTION_ARGS) {
  int backends = PG_GETARG_INT32(0);
  double milliseconds = PG_GETARG_FLOAT8(1);
  if (backends < 1 || backends > BACKENDS_MAX) elog(ERROR, "%d backends", backends);
  wait_until(&shared->ready, backends);
  double started = now_ns();
  atomic_store(&shared->go, 1);
  sleep_ns(milliseconds * 1e6);
  atomic_store(&shared->stop, 1);
  double told = now_ns() - started;
  wait_until(&shared->done, backends);
  char answer[32 * (BACKENDS_MAX + 2)];
  int length = snprintf(answer, sizeof answer, "%.0f %.0f", told, now_ns() - started);
  for (int n = 0; n < backends; n++) {
    length += snprintf(answer + length, sizeof answer - (size_t)length, " %ld", shared->counts[n]);
  }
  /* All have let go of it, and none is asked again before this has answered. */
  atomic_store(&shared->ready, 0);
  atomic_store(&shared->go, 0);
  atomic_store(&shared->stop, 0);
  atomic_store(&shared->done, 0);
  PG_RETURN_TEXT_P(cstring_to_text(answer));
}

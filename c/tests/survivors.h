/*
 * survivors.h - who lives through the deaths of lock_kill_test.c, and what they check.
 *
 * The survivors are this process; the keeper, which where the operation says so is inside the
 * lock from before until after; and the waiter, which sleeps until it gets it. They are in one
 * registry, which lives through all the deaths of one operation.
 */
#ifndef SURVIVORS_H
#define SURVIVORS_H

#define LOCKS 4u
#include "party.h"

#include "layout.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>

/* For what must come; nothing is checked to be fast. */
#ifndef PATIENCE_MS
#define PATIENCE_MS 60000
#endif
/* Slots are given in order: this process, the keeper, the waiter, and then who is to die. */
#define LIVE_BACKENDS 3
#define WAITER_SLOT 2u
#define SLOTS 16u /* of place_enter's registry */

/* The lock that operations are about, in the segment's bytes. */
#define MAIN 1u
/* The user's data: a variable, and whether somebody is half-way through changing the rest. */
enum { VARIABLE = 0, HALF_DONE = 1 };
#define NEW_VALUE 7u

enum told {
  NEVER,  /* not abandoned, wherever the child dies */
  ALWAYS,
  BEGINS, /* from some point on */
  ENDS,   /* until some point */
};

struct operation {
  void (*prepare)(void); /* in the child, before */
  void (*act)(void);
  uint32_t keeper; /* the mode in which that one is inside; 0 = it is not */
  uint32_t leaves; /* ... until the child looks at the clock for this time; 0 = to the end */
  uint32_t dead;   /* the mode in which somebody has died inside just before; 0 = nobody */
  struct order waiter; /* what it does: `mode`, and if that is not 0, how */
  enum told told;
  bool has_several; /* exclusive are locks 0, 1 and 2, not just MAIN; and 3 is held shared */
  bool updates;     /* the variable */
  bool is_biased;   /* the lock is; the keeper and the dead one, if shared, are in by their marks */
};

static const struct operation *operation;
static struct place here; /* this process */
static struct place mine; /* the child */
static struct party keeper;
static struct party waiter;
static _Atomic uint32_t *asked; /* the keeper to leave; 2: it has left */
static const unsigned char *control;
static int descriptors;

static inline struct lwlock *lock_of(uint32_t i) {
  return (struct lwlock *)(dsmr_segment_address(here.segment)) + (int)i - (i == 0 ? 1 : 0);
}

static inline _Atomic uint64_t *data_of(const struct place *place, uint32_t i) {
  return (_Atomic uint64_t *)dsmr_segment_address(place->segment) + i;
}

/* ---- the child's clock ------------------------------------------------------------------ */

static uint64_t clock_ns; /* 0: the real one */
static uint64_t clock_step_ns;
static uint32_t clock_looks;

/* Stands in for libc's. */
int clock_gettime(clockid_t which, struct timespec *now) {
  if (clock_ns == 0 || which != CLOCK_MONOTONIC) {
    return (int)syscall(SYS_clock_gettime, which, now);
  }
  clock_ns += clock_step_ns;
  now->tv_sec = (time_t)(clock_ns / 1000000000u);
  now->tv_nsec = (long)(clock_ns % 1000000000u);
  if (++clock_looks == operation->leaves) {
    atomic_store(asked, 1);
    (void)os_futex_wake(asked, 1);
    while (atomic_load(asked) != 2) os_futex_wait(asked, 1, 1000000000);
  }
  return 0;
}

/* From now on the child's time is its own. */
static inline void stop_clock(void) {
  struct timespec now;
  CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
  clock_ns = (uint64_t)now.tv_sec * 1000000000u - 1000000000u;
  /* Who meets the dead sleeps once for what is left of its time: let that be little. */
  clock_step_ns = operation->dead != 0 ? 200000 : 3000000;
}

static inline void take_mine(uint32_t lock, uint32_t mode, int32_t outcome) {
  CHECK_INT(take(mine.locks[lock], mode, PATIENCE_MS), outcome);
}

/* The registry as the survivors see it, mapped a second time. */
static inline void map_control(void) {
  char path[512];
  check_path("dsmr.r.", path);
  int file = open(path, O_RDONLY);
  struct stat status;
  CHECK(file >= 0 && fstat(file, &status) == 0);
  control = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, file, 0);
  CHECK(control != MAP_FAILED);
  close(file);
}

/* ---- survivors ------------------------------------------------------------------------------ */

static inline int32_t get(uint32_t lock, uint32_t mode) {
  return CHECK_OK(take(here.locks[lock], mode, PATIENCE_MS));
}

static inline void leave(uint32_t lock) { CHECK_OK(dsmr_lock_release(here.locks[lock])); }

/* Nobody comes in beside somebody who is inside in this mode. */
static inline void check_is_kept(uint32_t mode) {
  CHECK_INT(dsmr_lock_try(here.locks[MAIN], DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
  CHECK((dsmr_lock_state(here.locks[MAIN]) & (mode == DSMR_EXCLUSIVE ? 8 : 16)) != 0);
  if (mode == DSMR_EXCLUSIVE) {
    CHECK_INT(dsmr_lock_try(here.locks[MAIN], DSMR_SHARED), DSMR_LOCK_BUSY);
  }
}

/* Which locks the records of a slot name: bit i is lock i, bit LOCKS + i that it waits for it. */
static inline uint32_t records_of(const struct backend_slot *slot) {
  uint32_t named = 0;
  for (uint32_t k = 0; k < HELD_CELLS + 2; k++) {
    uint64_t record = atomic_load(k < HELD_CELLS    ? &slot->held[k]
                                  : k == HELD_CELLS ? &slot->waiting_lock
                                                    : &slot->watched_lock);
    uint64_t line = HELD_LINE(record);
    uint32_t lock = line == SEGMENT_LOCK_OFFSET / LOCK_SIZE
                        ? 0
                        : (uint32_t)(line - SEGMENT_DATA_OFFSET / LOCK_SIZE);
    if (record != 0 && lock < LOCKS) named |= 1u << (k < HELD_CELLS ? lock : LOCKS + lock);
  }
  return named;
}

/*
 * Every mark in a lock has its record in the journal, or the next tenant of the slot inherits
 * it. Whoever takes the lock takes out strangers that it meets, too, and would hide that: so
 * this comes first. The waiter may be acting meanwhile: it is left out, and as it may be
 * reaping, which takes away the mark and then the record, the records are read first.
 */
static inline void check_marks(void) {
  const struct control_header *header = (const void *)control;
  const struct backend_slot *slots = (const void *)(control + header->backends_offset);
  uint32_t named[SLOTS];
  uint32_t generations[SLOTS];
  CHECK_INT(header->backend_count_max, SLOTS);
  for (uint32_t n = 0; n < SLOTS; n++) {
    named[n] = records_of(&slots[n]);
    generations[n] = SLOT_GENERATION(atomic_load(&slots[n].word));
  }
  for (uint32_t i = 0; i < LOCKS; i++) {
    uint64_t readers = atomic_load(&lock_of(i)->readers[0]);
    uint32_t owner = LOCK_TOKEN(atomic_load(&lock_of(i)->owner));
    uint32_t starving = LOCK_TOKEN(atomic_load(&lock_of(i)->starving));
    for (uint32_t n = 0; n < SLOTS; n++) {
      if (n == WAITER_SLOT) continue;
      uint32_t token = LOCK_TOKEN_OF(BACKEND_ID(generations[n], n));
      bool has_mark = (readers >> n & 1) != 0 || owner == token;
      if (has_mark) CHECK((named[n] & 1u << i) != 0);
      if (starving == token) CHECK((named[n] & 1u << (LOCKS + i)) != 0);
      /* Of an earlier tenant: that one was reaped and the mark is still there. */
      if (owner != token) CHECK(owner == 0 || LOCK_TOKEN_SLOT(owner) != n);
      if (starving != token) CHECK(starving == 0 || LOCK_TOKEN_SLOT(starving) != n);
    }
  }
}

/* The keeper is where it was, whatever the dead one did; then it leaves. */
static inline void dismiss_keeper(void) {
  uint32_t mode = operation->keeper;
  if (mode == 0) return;
  if (atomic_load(asked) == 0) {
    check_is_kept(mode);
    if (mode == DSMR_SHARED && operation->waiter.mode == 0) {
      CHECK_INT(get(MAIN, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
      leave(MAIN);
    }
    /* Reaps; and lists the keeper, and who waits. */
    int32_t listed = operation->waiter.mode != 0 ? 2 : 1;
    CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), listed);
    check_is_kept(mode);
  }
  if (operation->leaves == 0) {
    CHECK_INT(ask(&keeper, STATE, MAIN, 0) & ~4, mode == DSMR_EXCLUSIVE ? 2 + 8 : 1 + 16);
    CHECK_INT(ask(&keeper, LEAVE, MAIN, 0), 0);
  } else {
    uint32_t not_yet = 0;
    (void)atomic_compare_exchange_strong(asked, &not_yet, 1);
    (void)os_futex_wake(asked, 1);
    CHECK_INT(party_outcome(&keeper), 0);
  }
}

/* The flag may be that of the child, which starves already. */
static inline bool waiter_is_listed(void) {
  const struct control_header *header = (const void *)control;
  const struct backend_slot *slots = (const void *)(control + header->backends_offset);
  return atomic_load(&slots[WAITER_SLOT].waiting_lock) != 0;
}

static inline void send_waiter(void) {
  struct order order = operation->waiter;
  if (order.mode == 0) return;
  struct lwlock *lock = lock_of(MAIN);
  bool is_draining = LOCK_TOKEN(atomic_load(&lock->owner)) == 0;
  order.lock = MAIN;
  if (order.what != WATCH) order.value = (uint64_t)-1;
  party_send(&waiter, order);
  for (bool is_asleep = false; !is_asleep; sched_yield()) {
    uint32_t owner = atomic_load(&lock->owner);
    if (is_draining) is_asleep = (atomic_load(&lock->drain) & 1) != 0;
    else if (order.what == TAKE) is_asleep = (owner & LOCK_STARVING) != 0 && waiter_is_listed();
    else is_asleep = (owner & LOCK_WAITERS) != 0 && (atomic_load(&lock->events) & 1) != 0;
  }
}

/* What has come of its waiting. Calls that end with a slice are made again. */
static inline struct answer waiter_answer(void) {
  enum what what = operation->waiter.what;
  for (;;) {
    struct pollfd answers = {waiter.answers, POLLIN, 0};
    CHECK_INT(poll(&answers, 1, PATIENCE_MS), 1);
    struct answer answer = party_answer(&waiter);
    bool goes_on = (what == WATCH && answer.outcome == DSMR_LOCK_BUSY) ||
                   (what == OR_WAIT && answer.outcome == DSMR_LOCK_NOT_YET);
    if (!goes_on) return answer;
    party_send(&waiter, (struct order){what, MAIN, operation->waiter.mode, answer.value});
  }
}

/* The waiter has got what it waited for. Tells whether it found the lock abandoned. */
static inline bool dismiss_waiter(void) {
  uint32_t mode = operation->waiter.mode;
  if (mode == 0) return false;
  struct answer answer = waiter_answer();
  if (operation->waiter.what == WATCH) {
    CHECK(answer.outcome == 0 || (answer.outcome == 1 && answer.value == NEW_VALUE));
    return false;
  }
  if (operation->waiter.what == OR_WAIT) {
    CHECK_INT(answer.outcome, DSMR_LOCK_BUSY);
    return false;
  }
  CHECK(answer.outcome == DSMR_LOCK_ACQUIRED || answer.outcome == DSMR_LOCK_ABANDONED);
  check_is_kept(mode);
  int32_t state = ask(&waiter, STATE, MAIN, 0);
  CHECK_INT(state & ~4, mode == DSMR_EXCLUSIVE ? 2 + 8 : 1 + 16);
  if (mode == DSMR_EXCLUSIVE) {
    CHECK_INT((state & 4) != 0, answer.outcome == DSMR_LOCK_ABANDONED);
  }
  CHECK_INT(ask(&waiter, LEAVE, MAIN, 0), 0);
  return answer.outcome == DSMR_LOCK_ABANDONED;
}

/* The lock can be had in each mode. Tells whether it is abandoned, and ends that. */
static inline bool check_lock(uint32_t lock) {
  CHECK_INT(get(lock, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  leave(lock);
  bool is_abandoned = get(lock, DSMR_EXCLUSIVE) == DSMR_LOCK_ABANDONED;
  CHECK_INT(ask(&keeper, TRY, lock, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
  CHECK_INT(ask(&keeper, TRY, lock, DSMR_SHARED), DSMR_LOCK_BUSY);
  leave(lock);
  if (!is_abandoned) return false;
  CHECK_INT(get(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ABANDONED);
  CHECK_OK(dsmr_lock_mark_consistent(here.locks[lock]));
  leave(lock);
  CHECK_INT(get(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  leave(lock);
  return true;
}

/* Lock, slots and tables show nothing of the dead. */
static inline void check_nothing_is_left(void) {
  CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), 0);
  for (uint32_t i = 0; i < LOCKS; i++) {
    const struct lwlock *lock = lock_of(i);
    CHECK_INT(atomic_load(&lock->owner), 0);
    CHECK_INT(atomic_load(&lock->phase), 0);
    CHECK_INT(atomic_load(&lock->starving), 0);
    for (int k = 0; k < 4; k++) CHECK_INT(atomic_load(&lock->readers[k]), 0);
  }
  const struct control_header *header = (const void *)control;
  const struct backend_slot *slots = (const void *)(control + header->backends_offset);
  uint32_t live = 0;
  for (uint32_t i = 0; i < header->backend_count_max; i++) {
    if (SLOT_STATE(atomic_load(&slots[i].word)) == SLOT_LIVE) live++;
    CHECK_INT(atomic_load(&slots[i].waiting_lock), 0);
    CHECK_INT(atomic_load(&slots[i].watched_lock), 0);
    for (uint32_t k = 0; k < HELD_CELLS; k++) CHECK_INT(atomic_load(&slots[i].held[k]), 0);
  }
  CHECK_INT(live, LIVE_BACKENDS);
  const struct entry *entries = (const void *)(control + header->entries_offset);
  int ready = 0;
  for (uint32_t i = 0; i < header->entry_capacity; i++) {
    uint32_t state = ENTRY_STATE(atomic_load(&entries[i].word));
    CHECK(state == ENTRY_EMPTY || state == ENTRY_TOMBSTONE || state == ENTRY_READY);
    if (state == ENTRY_READY) ready++;
  }
  dsmr_segment_info info;
  CHECK_INT(ready, 1);
  CHECK_INT(dsmr_segments(here.registry, &info, 1, &check_error), 1);
  CHECK_INT(info.is_ready, 1);
  CHECK_INT(info.size, SEGMENT_SIZE);
  CHECK_INT(info.backend_count, LIVE_BACKENDS);
  CHECK_INT(check_count(check_directory, ""), 2);
  CHECK_INT(check_descriptors(), descriptors);
}

/* Examines what is left. Returns of how many locks it shows that they are let go, or, where
 * that is the effect, whether there was one abandoned. */
static inline uint32_t survive(bool reaps_first) {
  check_marks();
  /* Who wants a lock reaps who is in the way; but sleeps first, so not each time. */
  if (reaps_first) CHECK_OK(dsmr_locks(here.registry, NULL, 0, &check_error));
  dismiss_keeper();
  bool was_told = dismiss_waiter();
  bool is_abandoned = check_lock(MAIN);
  if (was_told) CHECK(is_abandoned);
  if (operation->waiter.what == TAKE && operation->waiter.mode == DSMR_EXCLUSIVE) {
    CHECK_INT(was_told, is_abandoned);
  }
  uint32_t abandoned = is_abandoned ? 1 : 0;
  uint32_t exclusive = operation->has_several ? 3 : 1;
  for (uint32_t i = 0; operation->has_several && i < exclusive; i++) {
    if (i != MAIN && check_lock(i)) abandoned++;
  }
  check_nothing_is_left();
  if (atomic_exchange(data_of(&here, HALF_DONE), 0) != 0) CHECK(is_abandoned);
  uint64_t value = atomic_exchange(data_of(&here, VARIABLE), 0);
  CHECK(value == 0 || (value == NEW_VALUE && operation->updates));
  if (operation->told == NEVER) CHECK_INT(abandoned, 0);
  if (operation->told == ALWAYS) CHECK_INT(abandoned, exclusive);
  if (operation->told == BEGINS) return abandoned;
  return operation->told == ENDS ? exclusive - abandoned : 0;
}

#endif

/*
 * lock_wakeup_test.c - no wake-up is ever lost.
 *
 * Every sleep of the library is bounded, so a lost wake-up would only be a delay. Here the
 * library is built with bounds of hours (build.zig), and each test hands a lock around so that
 * every hand-over needs its wake-up: who has the lock keeps it until another one has said in
 * the lock's words that it sleeps, or is about to. One lost, and the next one to have the lock
 * waits for that for ever: the test's alarm tells.
 */
#define LOCKS 4u
#include "party.h"

#include "claim.h"
#include "layout.h"

_Static_assert(LWLOCK_SLEEP_MAX_NS > UINT64_C(1000000000) * CHECK_PATIENCE_S, "outlasts the test");

static struct place here;

static struct lwlock *lock_words(void) {
  return (struct lwlock *)(void *)((char *)dsmr_segment_address(here.segment) + 64);
}

struct relay {
  _Atomic uint32_t turns;   /* hand-overs so far */
  _Atomic uint32_t members; /* who still takes part */
  _Atomic uint32_t marks;   /* how often a reader had it by its mark */
  bool is_biased;           /* BIAS is set whenever it can be */
};

enum { TURNS = CHECK_EMULATED ? 500 : 10000 };

typedef bool (*is_asleep)(void);

static bool somebody_waits_to_come_in(void) {
  return (atomic_load(&lock_words()->owner) & (LOCK_WAITERS | LOCK_STARVING)) != 0;
}
static bool writer_waits_for_readers(void) { return (atomic_load(&lock_words()->drain) & 1) != 0; }
static bool somebody_watches(void) { return (atomic_load(&lock_words()->events) & 1) != 0; }

/* Soon enough to meet the other one between its look and its sleep, where there are two
 * processors; without keeping it from the only one. */
static void glance(uint32_t *times) {
  if (++*times % 256 != 0) os_pause();
  else sched_yield();
}

/* Not at all, or until the other one, which has said so, is really asleep, or in between. */
static void linger(uint64_t *seed) {
  static const uint64_t lengths[4] = {1, 8, 32, 512};
  uint64_t length = check_random(seed) % lengths[check_random(seed) % 4];
  for (uint64_t i = 0; i < length; i++) os_pause();
}

static void member(struct relay *relay, uint32_t mode, is_asleep others_sleep) {
  uint64_t seed = (uint64_t)getpid();
  uint32_t times = 0;
  struct claim *claim = NULL;
  CHECK_OK(claim_find(here.locks[1], &claim));
  for (bool is_over = false; !is_over;) {
    /* Every reader tries its mark first. */
    claim->is_marking = relay->is_biased;
    CHECK_INT(dsmr_lock_acquire(here.locks[1], mode, -1), DSMR_LOCK_ACQUIRED);
    if (claim->is_marked) atomic_fetch_add(&relay->marks, 1);
    uint32_t turn = atomic_fetch_add(&relay->turns, 1);
    is_over = turn >= TURNS;
    while (!is_over && !others_sleep() && atomic_load(&relay->members) > 1 &&
           atomic_load(&relay->turns) <= TURNS) {
      glance(&times);
    }
    linger(&seed);
    if (is_over) atomic_fetch_sub(&relay->members, 1);
    CHECK_INT(dsmr_lock_release(here.locks[1]), 0);
    if (is_over || !relay->is_biased || mode != DSMR_EXCLUSIVE) continue;
    /* As lwlock_leave_readers does it; then it is somebody else's turn. */
    uint32_t nobody = 0;
    (void)atomic_compare_exchange_strong(&lock_words()->owner, &nobody, LOCK_BIAS);
    while (atomic_load(&relay->turns) == turn + 1 && atomic_load(&relay->members) > 1) {
      glance(&times);
    }
  }
}

static pid_t start_member(struct relay *relay, uint32_t mode, is_asleep others_sleep) {
  pid_t child = check_fork();
  if (child != 0) return child;
  place_enter(&here);
  member(relay, mode, others_sleep);
  _exit(0);
}

/* The first `writers` of `count` processes are writers, the others readers. */
static void hand_around_with(int writers, int count, bool is_biased) {
  if (CHECK_TSAN) check_skip("processes: ThreadSanitizer watches threads");
  place_enter(&here);
  struct relay *relay = check_shared(sizeof *relay);
  relay->is_biased = is_biased;
  atomic_store(&relay->members, (uint32_t)count);
  pid_t children[8];
  for (int i = 0; i < count; i++) {
    /* A reader is in a writer's way alone, which has the owner word by then. */
    children[i] = i < writers ? start_member(relay, DSMR_EXCLUSIVE, somebody_waits_to_come_in)
                              : start_member(relay, DSMR_SHARED, writer_waits_for_readers);
  }
  for (int i = 0; i < count; i++) CHECK_CHILD(children[i]);
  printf("      %u hand-overs among %d processes, %u to marked readers\n",
         atomic_load(&relay->turns), count, atomic_load(&relay->marks));
  if (is_biased) CHECK(atomic_load(&relay->marks) > 0);
}

static void hand_around(int writers, int count) { hand_around_with(writers, count, false); }

static void writers_hand_a_lock_around(void) { hand_around(2, 2); }
static void three_writers_hand_a_lock_around(void) { hand_around(3, 3); }
static void eight_writers_hand_a_lock_around(void) { hand_around(8, 8); }
static void writer_and_reader_hand_a_lock_around(void) { hand_around(1, 2); }
static void writer_and_readers_hand_a_lock_around(void) { hand_around(1, 4); }
static void writers_and_readers_hand_a_lock_around(void) { hand_around(2, 4); }
static void writer_and_seven_marked_readers_hand_a_lock_around(void) { hand_around_with(1, 8, true); }
static void writer_and_marked_readers_hand_a_lock_around(void) { hand_around_with(1, 4, true); }
static void writers_and_marked_readers_hand_a_lock_around(void) { hand_around_with(2, 4, true); }

/* ---- who waits without wanting it ------------------------------------------------------------ */

/* Waits for one value after the other, each until it is another. */
static void watch_values(uint64_t last) {
  uint64_t value = 0;
  while (value < last) {
    uint64_t started = 0;
    CHECK_INT(dsmr_lock_wait_for_variable(here.locks[1], 0, 0, &value, &started, -1), 1);
  }
}

static void every_update_of_a_variable_wakes_who_waits_for_it(void) {
  if (CHECK_TSAN) check_skip("processes: ThreadSanitizer watches threads");
  place_enter(&here);
  CHECK_INT(dsmr_lock_acquire(here.locks[1], DSMR_EXCLUSIVE, -1), DSMR_LOCK_ACQUIRED);
  pid_t child = check_fork();
  if (child == 0) {
    place_enter(&here);
    watch_values(TURNS);
    _exit(0);
  }
  uint64_t seed = 11;
  for (uint64_t value = 1; value <= TURNS; value++) {
    while (!somebody_watches()) sched_yield();
    linger(&seed);
    CHECK_INT(dsmr_lock_update_variable(here.locks[1], 0, 0, &value, 0), 0);
  }
  CHECK_CHILD(child);
}

static void every_release_wakes_who_waits_for_it_alone(void) {
  if (CHECK_TSAN) check_skip("processes: ThreadSanitizer watches threads");
  place_enter(&here);
  struct relay *relay = check_shared(sizeof *relay);
  pid_t child = check_fork();
  if (child == 0) {
    place_enter(&here);
    for (uint32_t turn = 1; turn <= TURNS; turn++) {
      while (atomic_load(&relay->members) < turn) sched_yield();
      uint64_t started = 0;
      CHECK_INT(dsmr_lock_acquire_or_wait(here.locks[1], &started, -1), DSMR_LOCK_BUSY);
      atomic_store(&relay->turns, turn);
    }
    _exit(0);
  }
  uint64_t seed = 12;
  for (uint32_t turn = 1; turn <= TURNS; turn++) {
    CHECK_INT(dsmr_lock_acquire(here.locks[1], DSMR_EXCLUSIVE, -1), DSMR_LOCK_ACQUIRED);
    atomic_store(&relay->members, turn);
    while (!somebody_watches() || !somebody_waits_to_come_in()) sched_yield();
    linger(&seed);
    CHECK_INT(dsmr_lock_release(here.locks[1]), 0);
    while (atomic_load(&relay->turns) < turn) sched_yield();
  }
  CHECK_CHILD(child);
}

static const struct check_test tests[] = {
    TEST(writers_hand_a_lock_around),
    TEST(three_writers_hand_a_lock_around),
    TEST(eight_writers_hand_a_lock_around),
    TEST(writer_and_reader_hand_a_lock_around),
    TEST(writer_and_readers_hand_a_lock_around),
    TEST(writers_and_readers_hand_a_lock_around),
    TEST(writer_and_seven_marked_readers_hand_a_lock_around),
    TEST(writer_and_marked_readers_hand_a_lock_around),
    TEST(writers_and_marked_readers_hand_a_lock_around),
    TEST(every_update_of_a_variable_wakes_who_waits_for_it),
    TEST(every_release_wakes_who_waits_for_it_alone),
};
CHECK_MAIN(tests)

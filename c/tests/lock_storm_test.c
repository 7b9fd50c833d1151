/*
 * lock_storm_test.c - many at the same locks at once, in processes that get killed and in
 * threads. Every exclusive section changes two counters in step: whoever is inside, in any
 * mode, finds them equal, unless it was told that somebody died in there.
 */
#include "party.h"

#include <stdatomic.h>

/* The locks that are fought for: the segment's own, and one in its bytes. */
#define FOUGHT_FOR 2u
#define PROCESSES 6
#define THREADS 4

static atomic_uint *use_count;

struct pair {
  /* Volatile: a kill must be able to come between the two. */
  volatile uint64_t first;
  volatile uint64_t second;
};

/* The counters of a lock lie in the first 64 bytes of the segment. */
static struct pair *pair_of(const struct place *place, uint32_t lock) {
  return (struct pair *)dsmr_segment_address(place->segment) + lock;
}

/* One acquisition, of any kind; may not get it. */
static int32_t come_in(uint32_t lock, uint32_t mode, uint64_t random) {
  uint64_t started = 0;
  int32_t outcome;
  switch (random & 7) {
    case 0:
      return dsmr_lock_try(lock, mode);
    case 1:
      return take(lock, mode, (int32_t)(random >> 8 & 3));
    case 2:
      if (mode != DSMR_EXCLUSIVE) return take(lock, mode, -1);
      do {
        outcome = dsmr_lock_acquire_or_wait(lock, &started, -1);
      } while (outcome == DSMR_LOCK_NOT_YET);
      return outcome;
    default:
      return take(lock, mode, -1);
  }
}

/* One use of a random lock, if it is to be had. */
static void use(const struct place *place, uint64_t *seed) {
  uint64_t random = check_random(seed);
  uint32_t which = (uint32_t)(random >> 16) % FOUGHT_FOR;
  uint32_t mode = (random >> 24 & 3) == 0 ? DSMR_SHARED : DSMR_EXCLUSIVE;
  uint32_t lock = place->locks[which];
  struct pair *pair = pair_of(place, which);
  int32_t outcome = come_in(lock, mode, random >> 32);
  if (outcome == DSMR_LOCK_BUSY || outcome == DSMR_E_TIMEOUT) return;
  CHECK(outcome == DSMR_LOCK_ACQUIRED || outcome == DSMR_LOCK_ABANDONED);
  if (outcome == DSMR_LOCK_ABANDONED) {
    CHECK_INT(mode, DSMR_EXCLUSIVE);
    /* A death between two additions: at most one of them is missing. */
    CHECK(pair->first - pair->second <= 1);
    pair->second = pair->first;
    CHECK_INT(dsmr_lock_mark_consistent(lock), 0);
  }
  bool is_abandoned = (dsmr_lock_state(lock) & 4) != 0;
  if (!is_abandoned) CHECK_INT(pair->first, pair->second);
  if (mode == DSMR_EXCLUSIVE) {
    pair->first++;
    for (volatile uint32_t i = (uint32_t)(random >> 48) % 64; i > 0;) i = i - 1;
    pair->second++;
  } else if (!is_abandoned) {
    CHECK_INT(pair->first, pair->second);
  }
  CHECK_INT(dsmr_lock_release(lock), 0);
}

/* Everybody has left: nothing is held, and everything can be had. */
static void check_all_is_free(const struct place *place) {
  CHECK_INT(dsmr_locks(place->registry, NULL, 0, &check_error), 0);
  CHECK_INT(dsmr_backends(place->registry, NULL, 0, &check_error), 1);
  for (uint32_t i = 0; i < FOUGHT_FOR; i++) {
    CHECK_INT(dsmr_lock_state(place->locks[i]) & ~4, 0);
    int32_t outcome = dsmr_lock_try(place->locks[i], DSMR_EXCLUSIVE);
    CHECK(outcome == DSMR_LOCK_ACQUIRED || outcome == DSMR_LOCK_ABANDONED);
    if (outcome == DSMR_LOCK_ACQUIRED) {
      CHECK_INT(pair_of(place, i)->first, pair_of(place, i)->second);
    }
    CHECK(pair_of(place, i)->first > 0);
    CHECK_INT(dsmr_lock_release(place->locks[i]), 0);
  }
}

static pid_t start_user(uint64_t seed, uint32_t uses) {
  pid_t child = check_fork();
  if (child != 0) return child;
  static struct place place;
  place_enter(&place);
  while (atomic_fetch_add_explicit(use_count, 1, memory_order_relaxed) < uses) use(&place, &seed);
  _exit(0);
}

static void storm_without_kills_loses_no_addition(void) {
  if (CHECK_TSAN) check_skip("processes: ThreadSanitizer watches threads");
  static struct place place;
  place_enter(&place);
  struct gate go = gate_make();
  pid_t children[PROCESSES];
  for (int i = 0; i < PROCESSES; i++) {
    children[i] = check_fork();
    if (children[i] != 0) continue;
    place_enter(&place);
    gate_pass(&go);
    for (int k = 0; k < 20000; k++) {
      uint32_t which = (uint32_t)k % FOUGHT_FOR;
      CHECK_INT(take(place.locks[which], DSMR_EXCLUSIVE, -1), DSMR_LOCK_ACQUIRED);
      pair_of(&place, which)->first++;
      pair_of(&place, which)->second++;
      CHECK_INT(dsmr_lock_release(place.locks[which]), 0);
    }
    _exit(0);
  }
  for (int i = 0; i < PROCESSES; i++) gate_open(&go);
  for (int i = 0; i < PROCESSES; i++) CHECK_CHILD(children[i]);
  for (uint32_t i = 0; i < FOUGHT_FOR; i++) {
    CHECK_INT(pair_of(&place, i)->first, PROCESSES * 20000 / FOUGHT_FOR);
  }
  check_all_is_free(&place);
}

static void storm_with_kills_shows_nobody_a_half_made_change(void) {
  if (CHECK_TSAN) check_skip("kills processes: ThreadSanitizer watches threads");
  enum { KILLS = 400, USES = 200000 };
  use_count = check_shared(sizeof *use_count);
  static struct place place;
  place_enter(&place);
  uint64_t seed = 4711;
  pid_t children[PROCESSES];
  for (int i = 0; i < PROCESSES; i++) children[i] = start_user(check_random(&seed) | 1, UINT32_MAX);
  for (int kills = 0; kills < KILLS; kills++) {
    /* The moment is random, not a length of time: how far the others get does not matter. */
    for (volatile uint64_t spins = check_random(&seed) % 400000; spins > 0;) spins = spins - 1;
    int i = (int)(check_random(&seed) % PROCESSES);
    CHECK_KILL(children[i]);
    children[i] = start_user(check_random(&seed) | 1, UINT32_MAX);
  }
  for (int i = 0; i < PROCESSES; i++) CHECK_KILL(children[i]);
  /* Those who come after them, and live, find it in working order. */
  atomic_store(use_count, 0);
  for (int i = 0; i < PROCESSES; i++) children[i] = start_user(check_random(&seed) | 1, USES);
  for (int i = 0; i < PROCESSES; i++) CHECK_CHILD(children[i]);
  check_all_is_free(&place);
}

/* ---- threads ------------------------------------------------------------------------------ */

/* Plain memory, at the same address for all threads: ThreadSanitizer sees whether the lock
 * orders what is done to it. */
static uint64_t plain[FOUGHT_FOR][2];

static void *use_in_a_thread(void *argument) {
  uint64_t seed = *(const uint64_t *)argument;
  struct place *place = malloc(sizeof *place);
  CHECK(place != NULL);
  place_enter(place);
  for (int i = 0; i < 5000; i++) {
    uint64_t random = check_random(&seed);
    uint32_t which = (uint32_t)(random >> 16) % FOUGHT_FOR;
    uint32_t lock = place->locks[which];
    uint32_t mode = (random >> 24 & 3) == 0 ? DSMR_SHARED : DSMR_EXCLUSIVE;
    int32_t outcome = come_in(lock, mode, random >> 32);
    if (outcome == DSMR_LOCK_BUSY || outcome == DSMR_E_TIMEOUT) continue;
    CHECK_INT(outcome, DSMR_LOCK_ACQUIRED);
    CHECK_INT(plain[which][0], plain[which][1]);
    if (mode == DSMR_EXCLUSIVE) {
      plain[which][0]++;
      plain[which][1]++;
    }
    CHECK_INT(dsmr_lock_release(lock), 0);
    if ((random >> 40 & 255) == 0) CHECK_OK(dsmr_locks(place->registry, NULL, 0, NULL));
  }
  CHECK_OK(dsmr_registry_close(place->registry));
  free(place);
  return NULL;
}

static void racing_threads_are_ordered_by_the_lock(void) {
  static struct place place;
  place_enter(&place);
  static uint64_t seeds[THREADS];
  pthread_t threads[THREADS];
  for (uint64_t i = 0; i < THREADS; i++) {
    seeds[i] = 2000 + i;
    CHECK(pthread_create(&threads[i], NULL, use_in_a_thread, &seeds[i]) == 0);
  }
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  for (uint32_t i = 0; i < FOUGHT_FOR; i++) {
    CHECK(plain[i][0] > 0);
    CHECK_INT(plain[i][0], plain[i][1]);
    CHECK_INT(dsmr_lock_state(place.locks[i]), 0);
  }
  CHECK_INT(dsmr_locks(place.registry, NULL, 0, &check_error), 0);
}

static const struct check_test tests[] = {
    TEST(storm_without_kills_loses_no_addition),
    TEST(storm_with_kills_shows_nobody_a_half_made_change),
    TEST(racing_threads_are_ordered_by_the_lock),
};
CHECK_MAIN(tests)

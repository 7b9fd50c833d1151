/*
 * watch_storm_test.c - many who wait by watches against many who block, with aborts and kills.
 *
 * Everybody has a quota, so who starves is found by the test that does not end. What is done
 * inside tells who was not alone there.
 */
#include "watching.h"

#define FOUGHT_FOR 3u
#define THREADS 6
#define PROCESSES 6

/* Waits by watches; gives up at a random moment if `random` says so. The outcome, or
 * DSMR_LOCK_NOT_YET if it gave up. */
static int32_t come_in_or_not(uint32_t lock, uint32_t mode, uint64_t random) {
  uint32_t gives_up_after = (random & 7) == 0 ? (uint32_t)(random >> 3 & 3) : UINT32_MAX;
  for (uint32_t round = 0;; round++) {
    int32_t outcome = dsmr_lock_watch(lock, mode);
    /* A dead process is in the way, and the others were in the tables for 5 ms. */
    if (outcome == DSMR_E_TIMEOUT) {
      sched_yield();
      continue;
    }
    CHECK_OK(outcome);
    if (outcome <= 0xffff) return outcome;
    uint32_t watch = (uint32_t)outcome;
    if (round >= gives_up_after) {
      /* In either order, fired or not. */
      if ((random & 64) != 0) (void)dsmr_watch_end(watch);
      CHECK_INT(dsmr_lock_cancel(lock), 0);
      if ((random & 64) == 0) (void)dsmr_watch_end(watch);
      return DSMR_LOCK_NOT_YET;
    }
    uint32_t id = 0;
    while (answer_within(PATIENCE_MS, &id, 1) == 0) continue;
    CHECK_INT(id, watch);
  }
}

/* ---- threads ------------------------------------------------------------------------------ */

/* Plain memory: ThreadSanitizer sees whether the lock orders what is done to it. */
static uint64_t plain[FOUGHT_FOR][2];

struct fighter {
  uint64_t seed;
  uint32_t quota;
  bool is_watching;
};

static void *fight(void *argument) {
  struct fighter fighter = *(const struct fighter *)argument;
  struct place *place = malloc(sizeof *place);
  CHECK(place != NULL);
  place_enter(place);
  if (fighter.is_watching) hang_doorbell();
  while (fighter.quota > 0) {
    uint64_t random = check_random(&fighter.seed);
    uint32_t which = (uint32_t)(random >> 16) % FOUGHT_FOR;
    uint32_t lock = place->locks[which];
    uint32_t mode = (random >> 24 & 3) == 0 ? DSMR_SHARED : DSMR_EXCLUSIVE;
    int32_t outcome = fighter.is_watching ? come_in_or_not(lock, mode, random >> 32)
                                          : take(lock, mode, -1);
    if (outcome == DSMR_LOCK_NOT_YET) continue;
    CHECK_INT(outcome, DSMR_LOCK_ACQUIRED);
    CHECK_INT(plain[which][0], plain[which][1]);
    if (mode == DSMR_EXCLUSIVE) {
      plain[which][0]++;
      if ((random >> 40 & 15) == 0) sched_yield();
      plain[which][1]++;
    }
    CHECK_INT(dsmr_lock_release(lock), 0);
    fighter.quota--;
  }
  /* Half of them leave it to the end of the thread. */
  if ((fighter.seed & 1) != 0) CHECK_OK(dsmr_registry_close(place->registry));
  free(place);
  return NULL;
}

static void threads_that_watch_and_threads_that_block_all_finish(void) {
  static struct place place;
  place_enter(&place);
  static struct fighter fighters[THREADS];
  pthread_t threads[THREADS];
  for (uint32_t i = 0; i < THREADS; i++) {
    fighters[i] = (struct fighter){700 + i, CHECK_EMULATED || CHECK_TSAN ? 500 : 20000, i % 3 != 2};
    CHECK(pthread_create(&threads[i], NULL, fight, &fighters[i]) == 0);
  }
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  for (uint32_t i = 0; i < FOUGHT_FOR; i++) {
    CHECK(plain[i][0] > 0);
    CHECK_INT(plain[i][0], plain[i][1]);
    CHECK_INT(dsmr_lock_state(place.locks[i]), 0);
    CHECK_INT(dsmr_lock_try(place.locks[i], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  }
  CHECK_INT(dsmr_locks(place.registry, NULL, 0, &check_error), FOUGHT_FOR);
  CHECK_INT(dsmr_backends(place.registry, NULL, 0, &check_error), 1);
}

/* Attach, wait, and end or detach in the middle of it: the watching thread looks on. */
static void *come_and_go(void *argument) {
  uint64_t seed = *(const uint64_t *)argument;
  for (int i = 0; i < (CHECK_EMULATED ? 20 : 100); i++) {
    struct place *place = malloc(sizeof *place);
    CHECK(place != NULL);
    place_enter(place);
    hang_doorbell();
    uint64_t random = check_random(&seed);
    for (uint32_t k = 0; k < FOUGHT_FOR; k++) {
      uint32_t mode = (random >> k & 1) != 0 ? DSMR_SHARED : DSMR_EXCLUSIVE;
      CHECK_OK(dsmr_lock_watch(place->locks[k], mode));
    }
    CHECK_OK(dsmr_word_watch(place->segment, 0, 0, 0));
    if ((random & 8) != 0) sched_yield();
    if ((random & 16) != 0) CHECK_OK(dsmr_lock_release_all(place->registry));
    if ((random & 32) != 0) CHECK_OK(dsmr_segment_detach(place->segment));
    CHECK_OK(dsmr_registry_close(place->registry));
    free(place);
  }
  return NULL;
}

static void memory_that_goes_while_it_is_watched_is_not_looked_at(void) {
  static struct place place;
  place_enter(&place);
  static uint64_t seeds[THREADS];
  pthread_t threads[THREADS];
  for (uint64_t i = 0; i < THREADS; i++) {
    seeds[i] = 31 + i;
    CHECK(pthread_create(&threads[i], NULL, come_and_go, &seeds[i]) == 0);
  }
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  for (uint32_t i = 0; i < FOUGHT_FOR; i++) {
    int32_t outcome = CHECK_OK(dsmr_lock_try(place.locks[i], DSMR_EXCLUSIVE));
    CHECK(outcome <= DSMR_LOCK_ABANDONED);
  }
  CHECK_INT(dsmr_backends(place.registry, NULL, 0, &check_error), 1);
}

/* ---- processes ------------------------------------------------------------------------------ */

/* Changed in two steps, under lock `i`; in the segment's own bytes. */
static _Atomic uint64_t *pair_of(const struct place *place, uint32_t i) {
  return (_Atomic uint64_t *)dsmr_segment_address(place->segment) + i * (size_t)2;
}

static void use(const struct place *place, uint64_t random, bool is_watching) {
  uint32_t which = (uint32_t)(random >> 16) % FOUGHT_FOR;
  uint32_t lock = place->locks[which];
  _Atomic uint64_t *pair = pair_of(place, which);
  uint32_t mode = (random >> 24 & 3) == 0 ? DSMR_SHARED : DSMR_EXCLUSIVE;
  int32_t outcome =
      is_watching ? come_in_or_not(lock, mode, random >> 32) : CHECK_OK(take(lock, mode, -1));
  if (outcome == DSMR_LOCK_NOT_YET) return;
  if (outcome == DSMR_LOCK_ABANDONED) {
    CHECK(atomic_load(&pair[0]) - atomic_load(&pair[1]) <= 1);
    atomic_store(&pair[1], atomic_load(&pair[0]));
    CHECK_INT(dsmr_lock_mark_consistent(lock), 0);
  }
  if ((dsmr_lock_state(lock) & 4) == 0) CHECK_INT(atomic_load(&pair[0]), atomic_load(&pair[1]));
  if (mode == DSMR_EXCLUSIVE) {
    atomic_fetch_add(&pair[0], 1);
    atomic_fetch_add(&pair[1], 1);
  }
  CHECK_INT(dsmr_lock_release(lock), 0);
}

static pid_t start_user(uint64_t seed, uint32_t quota, bool is_watching) {
  pid_t child = check_fork();
  if (child != 0) return child;
  static struct place place;
  place_enter(&place);
  hang_doorbell();
  for (; quota > 0; quota--) use(&place, check_random(&seed), is_watching);
  _exit(0);
}

static void killed_watchers_keep_nobody_out(void) {
  if (CHECK_TSAN) check_skip("kills processes: ThreadSanitizer watches threads");
  static struct place place;
  place_enter(&place);
  uint64_t seed = 4242;
  pid_t children[PROCESSES];
  for (int i = 0; i < PROCESSES; i++) {
    children[i] = start_user(check_random(&seed) | 1, UINT32_MAX, i % 3 != 2);
  }
  for (int kills = 0; kills < (CHECK_EMULATED ? 20 : 300); kills++) {
    for (volatile uint64_t spins = check_random(&seed) % 400000; spins > 0;) spins = spins - 1;
    int i = (int)(check_random(&seed) % PROCESSES);
    CHECK_KILL(children[i]);
    children[i] = start_user(check_random(&seed) | 1, UINT32_MAX, i % 3 != 2);
  }
  for (int i = 0; i < PROCESSES; i++) CHECK_KILL(children[i]);
  /* Those who come after them, and live, finish. */
  for (int i = 0; i < PROCESSES; i++) {
    children[i] = start_user(check_random(&seed) | 1, CHECK_EMULATED ? 100 : 10000, i % 3 != 2);
  }
  for (int i = 0; i < PROCESSES; i++) CHECK_CHILD(children[i]);
  CHECK_INT(dsmr_locks(place.registry, NULL, 0, &check_error), 0);
  CHECK_INT(dsmr_backends(place.registry, NULL, 0, &check_error), 1);
  for (uint32_t i = 0; i < FOUGHT_FOR; i++) {
    CHECK(atomic_load(&pair_of(&place, i)[0]) > 0);
    CHECK_INT(dsmr_lock_state(place.locks[i]) & ~4, 0);
    CHECK_OK(dsmr_lock_try(place.locks[i], DSMR_EXCLUSIVE));
  }
}

static const struct check_test tests[] = {
    TEST(threads_that_watch_and_threads_that_block_all_finish),
    TEST(memory_that_goes_while_it_is_watched_is_not_looked_at),
    TEST(killed_watchers_keep_nobody_out),
};
CHECK_MAIN(tests)

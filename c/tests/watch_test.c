/*
 * watch_test.c - waiting without blocking: what fires a watch, what ends one, what is refused.
 *
 * Backends of one thread stand in for each other's opponents where nobody has to die: `here`
 * waits, `other` is in the way.
 */
#include "watching.h"

#include "layout.h"

static struct place here;
static struct place other;

static const uint32_t modes[] = {DSMR_SHARED, DSMR_EXCLUSIVE};

static void enter_both(void) {
  place_enter(&here);
  place_enter(&other);
  hang_doorbell();
}

static void other_takes(uint32_t lock, uint32_t mode) {
  CHECK_INT(take(other.locks[lock], mode, 5000), DSMR_LOCK_ACQUIRED);
}

static void other_leaves(uint32_t lock) { CHECK_INT(dsmr_lock_release(other.locks[lock]), 0); }

static struct lwlock *lock_of(uint32_t i) {
  return (struct lwlock *)(dsmr_segment_address(here.segment)) + (int)i - (i == 0 ? 1 : 0);
}

static _Atomic uint32_t *word_of(uint32_t i) {
  return (_Atomic uint32_t *)dsmr_segment_address(here.segment) + i;
}

/* Nobody has left anything in the lock. */
static void check_is_free(uint32_t lock) {
  CHECK_INT(atomic_load(&lock_of(lock)->starving), 0);
  CHECK_INT(dsmr_lock_try(other.locks[lock], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  other_leaves(lock);
  CHECK_INT(atomic_load(&lock_of(lock)->owner), 0);
}

/* ---- locks ------------------------------------------------------------------------------- */

static void free_lock_is_had_at_once(void) {
  place_enter(&here); /* and needs no doorbell */
  for (int i = 0; i < 2; i++) {
    CHECK_INT(dsmr_lock_watch(here.locks[i], modes[i]), DSMR_LOCK_ACQUIRED);
    CHECK_FAILS(dsmr_lock_watch(here.locks[i], modes[i]), DSMR_E_ALREADY_HELD);
    CHECK_OK(dsmr_lock_release(here.locks[i]));
  }
}

static void release_fires(void) {
  enter_both();
  for (int i = 0; i < 8; i++) {
    uint32_t mine = modes[i & 1];
    uint32_t others = modes[i >> 1 & 1];
    uint32_t lock = (uint32_t)i >> 2;
    other_takes(lock, others);
    int32_t watch = CHECK_OK(dsmr_lock_watch(here.locks[lock], mine));
    if (watch == DSMR_LOCK_ACQUIRED) {
      CHECK(mine == DSMR_SHARED && others == DSMR_SHARED);
      other_leaves(lock);
    } else {
      check_is_silent();
      CHECK_INT(count_of(here.registry, getpid(), true), 1);
      CHECK_INT(count_of(here.registry, getpid(), false), 1);
      other_leaves(lock);
      check_fires(watch);
      CHECK_INT(dsmr_lock_watch(here.locks[lock], mine), DSMR_LOCK_ACQUIRED);
    }
    CHECK_INT(dsmr_lock_state(here.locks[lock]) & ~32, mine == DSMR_SHARED ? 1 + 16 : 2 + 8);
    CHECK_OK(dsmr_lock_release(here.locks[lock]));
    check_is_free(lock);
  }
}

static void last_reader_fires(void) {
  place_enter(&here);
  struct party readers[3] = {party_start(), party_start(), party_start()};
  place_enter(&other);
  hang_doorbell();
  for (int i = 0; i < 3; i++) {
    CHECK_INT(ask(&readers[i], TAKE, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  }
  int32_t watch = dsmr_lock_watch(here.locks[1], DSMR_EXCLUSIVE);
  CHECK(watch > 0xffff);
  /* It has the lock's word: nobody else comes in. */
  CHECK_INT(dsmr_lock_try(other.locks[1], DSMR_SHARED), DSMR_LOCK_BUSY);
  for (int i = 0; i < 3; i++) {
    if (i == 1) CHECK_KILL(readers[i].pid);
    else CHECK_INT(ask(&readers[i], LEAVE, 1, 0), 0);
    check_fires(watch);
    watch = dsmr_lock_watch(here.locks[1], DSMR_EXCLUSIVE);
    if (i < 2) CHECK(watch > 0xffff);
  }
  CHECK_INT(watch, DSMR_LOCK_ACQUIRED);
  CHECK_OK(dsmr_lock_release(here.locks[1]));
  check_is_free(1);
}

static void death_of_the_holder_fires(void) {
  place_enter(&here);
  struct party holders[4];
  for (int i = 0; i < 4; i++) {
    holders[i] = party_start();
    CHECK_INT(ask(&holders[i], TAKE, (uint32_t)i, modes[i & 1]), DSMR_LOCK_ACQUIRED);
  }
  hang_doorbell();
  for (int i = 0; i < 4; i++) {
    uint32_t mode = i < 2 ? DSMR_EXCLUSIVE : DSMR_SHARED;
    if (i == 2) continue; /* shared beside shared */
    int32_t watch = dsmr_lock_watch(here.locks[i], mode);
    CHECK_KILL(holders[i].pid);
    check_fires(watch);
    bool is_told = mode == DSMR_EXCLUSIVE && modes[i & 1] == DSMR_EXCLUSIVE;
    CHECK_INT(await_lock(here.locks[i], mode), is_told);
    CHECK_OK(dsmr_lock_release(here.locks[i]));
  }
}

static void watched_claim_refuses_other_uses(void) {
  enter_both();
  other_takes(1, DSMR_EXCLUSIVE);
  uint32_t lock = here.locks[1];
  CHECK_FAILS(dsmr_lock_watch(lock, 3), DSMR_E_SIZE_INVALID);
  int32_t watch = CHECK_OK(dsmr_lock_watch(lock, DSMR_EXCLUSIVE));
  uint64_t started = 0;
  CHECK_FAILS(dsmr_lock_acquire(lock, DSMR_EXCLUSIVE, 0), DSMR_E_ALREADY_HELD);
  CHECK_FAILS(dsmr_lock_try(lock, DSMR_SHARED), DSMR_E_ALREADY_HELD);
  CHECK_FAILS(dsmr_lock_acquire_or_wait(lock, &started, 0), DSMR_E_ALREADY_HELD);
  CHECK_FAILS(dsmr_lock_watch(lock, DSMR_SHARED), DSMR_E_ALREADY_HELD);
  CHECK_FAILS(dsmr_lock_release(lock), DSMR_E_NOT_HELD);
  CHECK_INT(dsmr_lock_cancel(lock), 0);
  CHECK_INT(dsmr_watch_end((uint32_t)watch), 1);
  CHECK_INT(dsmr_watch_end((uint32_t)watch), 0);
  CHECK_INT(dsmr_lock_try(lock, DSMR_SHARED), DSMR_LOCK_BUSY);
  other_leaves(1);
  check_is_silent();
  check_is_free(1);
  CHECK_INT(dsmr_lock_try(lock, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
}

static void thread_without_doorbell_watches_nothing(void) {
  place_enter(&here);
  place_enter(&other);
  uint64_t value = 0;
  uint32_t seen = 0;
  uint32_t id = 0;
  dsmr_error error = {0};
  other_takes(1, DSMR_EXCLUSIVE);
  other_takes(2, DSMR_SHARED);
  CHECK_FAILS(dsmr_lock_watch(here.locks[1], DSMR_EXCLUSIVE), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_lock_watch(here.locks[2], DSMR_EXCLUSIVE), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_lock_watch_variable(here.locks[1], 0, 0, &value), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_word_watch(here.segment, 0, 0, 0), DSMR_E_UNSUPPORTED);
  CHECK_INT(dsmr_registry_watch(here.registry, &seen, &error), 0);
  CHECK_FAILS(dsmr_registry_watch(here.registry, &seen, &error), DSMR_E_UNSUPPORTED);
  CHECK_INT(error.status, DSMR_E_UNSUPPORTED);
  CHECK(error.message_length > 0);
  CHECK_INT(dsmr_doorbell_answer(&id, 1), 0);
  /* Nothing is left behind: readers come in beside the reader, and both claims are idle. */
  CHECK_INT(dsmr_lock_try(here.locks[2], DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(dsmr_lock_try(here.locks[1], DSMR_SHARED), DSMR_LOCK_BUSY);
}

static void arguments_are_checked(void) {
  enter_both();
  uint64_t value = 0;
  dsmr_segment_ticket ticket = {.entry = UINT32_MAX};
  CHECK_FAILS(dsmr_lock_watch(12345, DSMR_SHARED), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_lock_watch_variable(12345, 0, 0, &value), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_lock_watch_variable(here.locks[1], 4, 0, &value), DSMR_E_SIZE_INVALID);
  CHECK_FAILS(dsmr_word_watch(12345, 0, 0, 0), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_word_watch(here.segment, 2, 0, 0), DSMR_E_SIZE_INVALID);
  CHECK_FAILS(dsmr_word_watch(here.segment, SEGMENT_SIZE, 0, 0), DSMR_E_SIZE_INVALID);
  CHECK_FAILS(dsmr_word_wait(here.segment, 0, 1, 0, 0), DSMR_E_SIZE_INVALID);
  CHECK_FAILS(dsmr_word_wake(here.segment, 1, 0, 1), DSMR_E_SIZE_INVALID);
  CHECK_FAILS(dsmr_segment_watch(12345, &ticket, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_segment_watch(here.registry, &ticket, &check_error), DSMR_E_SIZE_INVALID);
  CHECK_INT(dsmr_watch_end(0), 0);
  CHECK_INT(dsmr_watch_end(UINT32_MAX), 0);
  CHECK_INT(dsmr_doorbell(&check_error), doorbell);
}

/* By the backend that waits: its event loop goes on, and may do either. */
static void own_updates_and_releases_are_watched(void) {
  enter_both();
  uint64_t value = 0;
  for (uint32_t i = 0; i < 2; i++) {
    CHECK_INT(dsmr_lock_try(here.locks[1], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    int32_t watch = CHECK_OK(dsmr_lock_watch_variable(here.locks[1], 0, 0, &value));
    CHECK(watch > 0xffff);
    uint64_t next = value + 1;
    if (i == 0) CHECK_INT(dsmr_lock_update_variable(here.locks[1], 0, 0, &next, 0), 0);
    CHECK_INT(dsmr_lock_release(here.locks[1]), 0);
    uint32_t id = 0;
    CHECK_INT(answer_within(PATIENCE_MS, &id, 1), 1);
    CHECK_INT((int32_t)id, watch);
    CHECK_INT(dsmr_lock_watch_variable(here.locks[1], 0, 0, &value), DSMR_LOCK_ACQUIRED);
    CHECK_INT(dsmr_lock_try(here.locks[1], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    watch = dsmr_lock_watch_variable(here.locks[1], 0, 0, &value);
    CHECK(i == 0 ? watch == 1 && value == 1 : watch > 0xffff);
    (void)dsmr_watch_end((uint32_t)watch);
    CHECK_INT(dsmr_lock_release(here.locks[1]), 0);
  }
}

/* More waits than the journal has cells; what comes of them needs one each. */
static void watched_waits_need_no_journal(void) {
  enter_both();
  static struct place third;
  place_enter(&third);
  int32_t watches[LOCKS];
  for (uint32_t i = 0; i < LOCKS; i++) {
    const struct place *holder = i < HELD_MAX ? &other : &third;
    CHECK_INT(dsmr_lock_try(holder->locks[i], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    watches[i] = CHECK_OK(dsmr_lock_watch(here.locks[i], DSMR_EXCLUSIVE));
    CHECK(watches[i] > 0xffff);
  }
  CHECK_INT(dsmr_lock_release_all(other.registry), HELD_MAX);
  CHECK_INT(dsmr_lock_release_all(third.registry), LOCKS - HELD_MAX);
  for (uint32_t fired = 0; fired < LOCKS;) {
    uint32_t ids[LOCKS];
    fired += (uint32_t)answer_within(PATIENCE_MS, ids, LOCKS);
  }
  for (uint32_t i = 0; i < LOCKS; i++) {
    int32_t outcome = i < HELD_MAX ? 0 : DSMR_E_NO_SPACE;
    CHECK_INT(dsmr_lock_watch(here.locks[i], DSMR_EXCLUSIVE), outcome);
    if (outcome < 0) CHECK_FAILS(dsmr_lock_try(here.locks[i], DSMR_SHARED), outcome);
  }
  CHECK_INT(dsmr_lock_release_all(here.registry), HELD_MAX);
  /* Also the claims that there was no room for are idle. */
  for (uint32_t i = HELD_MAX; i < LOCKS; i++) {
    CHECK_INT(dsmr_lock_try(here.locks[i], DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  }
}

static void release_all_ends_watched_waits(void) {
  enter_both();
  other_takes(1, DSMR_EXCLUSIVE);
  other_takes(2, DSMR_SHARED);
  CHECK_INT(dsmr_lock_watch(here.locks[3], DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK(dsmr_lock_watch(here.locks[1], DSMR_EXCLUSIVE) > 0xffff);
  CHECK(dsmr_lock_watch(here.locks[2], DSMR_EXCLUSIVE) > 0xffff);
  CHECK_INT(dsmr_lock_release_all(here.registry), 1);
  for (uint32_t i = 1; i < 4; i++) {
    if (i < 3) other_leaves(i);
    check_is_free(i);
    CHECK_INT(dsmr_lock_try(here.locks[i], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  }
}

/* It has waited long, and is the one that the others queue behind. */
static void starve(uint32_t lock) {
  CHECK(dsmr_lock_watch(here.locks[lock], DSMR_EXCLUSIVE) > 0xffff);
  (void)poll(NULL, 0, 5);
  CHECK(dsmr_lock_watch(here.locks[lock], DSMR_EXCLUSIVE) > 0xffff);
  CHECK(atomic_load(&lock_of(lock)->starving) != 0);
}

static void who_starves_and_does_not_come_is_passed_over(void) {
  enter_both();
  static struct place third;
  place_enter(&third);
  for (uint32_t i = 0; i < 4; i++) {
    uint32_t lock = i & 1;
    other_takes(lock, DSMR_EXCLUSIVE);
    starve(lock);
    other_leaves(lock);
    /* This thread does not listen: it waits here for the same lock, as another backend. */
    CHECK_INT(take(third.locks[lock], modes[i >> 1], 20000), DSMR_LOCK_ACQUIRED);
    CHECK_OK(dsmr_lock_release(third.locks[lock]));
    uint32_t ids[8];
    while (answer_within(0, ids, 8) > 0) continue;
    CHECK_INT(dsmr_lock_watch(here.locks[lock], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_OK(dsmr_lock_release(here.locks[lock]));
    check_is_free(lock);
  }
}

static void who_starves_and_gives_up_leaves_nothing(void) {
  enter_both();
  for (uint32_t i = 0; i < 2; i++) {
    other_takes(i, DSMR_EXCLUSIVE);
    starve(i);
    CHECK_INT(dsmr_lock_cancel(here.locks[i]), 0);
    CHECK_INT(atomic_load(&lock_of(i)->starving), 0);
    other_leaves(i);
    check_is_free(i);
  }
}

static void watched_wait_closes_no_cycle(void) {
  place_enter(&here);
  struct party b = party_start();
  hang_doorbell();
  CHECK_INT(dsmr_lock_try(here.locks[1], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&b, TAKE, 2, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK(dsmr_lock_watch(here.locks[2], DSMR_EXCLUSIVE) > 0xffff);
  party_send(&b, (struct order){TAKE, 1, DSMR_EXCLUSIVE, 300});
  CHECK_INT(party_outcome(&b), DSMR_E_TIMEOUT);
}

/* ---- variables and words --------------------------------------------------------------------- */

static void variable_that_changes_fires(void) {
  enter_both();
  uint64_t value = 0;
  CHECK_INT(dsmr_lock_watch_variable(here.locks[1], 0, 0, &value), 0);
  other_takes(1, DSMR_EXCLUSIVE);
  value = 5;
  CHECK_INT(dsmr_lock_watch_variable(here.locks[1], 0, 0, &value), 1);
  CHECK_INT(value, 0);
  int32_t watch = CHECK_OK(dsmr_lock_watch_variable(here.locks[1], 0, 0, &value));
  uint64_t updated = 9;
  CHECK_OK(dsmr_lock_update_variable(other.locks[1], 0, 0, &updated, 0));
  check_fires(watch);
  CHECK_INT(dsmr_lock_watch_variable(here.locks[1], 0, 0, &value), 1);
  CHECK_INT(value, 9);
  watch = CHECK_OK(dsmr_lock_watch_variable(here.locks[1], 0, 0, &value));
  int32_t second = CHECK_OK(
      dsmr_lock_watch_variable(here.locks[1], UINT32_MAX, UINT32_MAX, &value));
  CHECK(second > 0xffff && second != watch);
  check_is_silent();
  other_leaves(1);
  uint32_t ids[4];
  for (int32_t fired = 0; fired < 2;) fired += answer_within(PATIENCE_MS, ids, 4);
  CHECK_INT(dsmr_lock_watch_variable(here.locks[1], 0, 0, &value), 0);
}

static void word_that_changes_or_wakes_fires(void) {
  enter_both();
  CHECK_INT(dsmr_word_watch(here.segment, 4, 0, 1), 0);
  CHECK_INT(dsmr_word_wait(here.segment, 4, 0, 1, -1), 0);
  CHECK_INT(dsmr_word_wait(here.segment, 4, 0, 0, 10), 0);
  CHECK_INT(dsmr_word_wake(here.segment, 4, 0, 1), 0);
  uint32_t ids[8];
  for (uint32_t round = 0; round < 3; round++) {
    bool changes = round < 2;
    if (!changes && !os_futex_can_wait_any()) break;
    for (int i = 0; i < 3; i++) CHECK(dsmr_word_watch(here.segment, 4, 0, round) > 0xffff);
    check_is_silent();
    if (changes) atomic_store(word_of(1), round + 1);
    /* The second time nobody is told: it is found by looking. */
    if (round != 1) CHECK_OK(dsmr_word_wake(other.segment, 4, 0, UINT32_MAX));
    int32_t fired = 0;
    while (fired < 3) fired += answer_within(PATIENCE_MS, ids, 8);
    CHECK_INT(fired, 3);
  }
}

/* ---- what comes and goes ------------------------------------------------------------------------ */

static int32_t wait_for_segment(dsmr_segment_ticket *ticket) {
  CHECK_INT(check_begin(here.registry, "x", 64, ticket), DSMR_WAIT);
  return CHECK_OK(dsmr_segment_watch(here.registry, ticket, &check_error));
}

/* Begins to initialise "x"; when told, gives it up; does it again; when told, is done. */
static pid_t start_initialiser(const struct gate *begun, const struct gate *goes_on) {
  pid_t child = check_fork();
  if (child != 0) return child;
  dsmr_segment_ticket ticket;
  place_enter(&other);
  for (int commits = 0; commits < 2; commits++) {
    CHECK_INT(check_begin(other.registry, "x", 64, &ticket), DSMR_INITIALIZE);
    gate_open(begun);
    gate_pass(goes_on);
    if (commits != 0) CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
    else CHECK_OK(dsmr_segment_abort(ticket.segment, &check_error));
    gate_pass(goes_on);
  }
  _exit(0);
}

static void end_of_an_initialisation_fires(void) {
  place_enter(&here);
  struct gate begun = gate_make();
  struct gate goes_on = gate_make();
  pid_t child = start_initialiser(&begun, &goes_on);
  hang_doorbell();
  dsmr_segment_ticket ticket;
  for (int commits = 0; commits < 2; commits++) {
    gate_pass(&begun);
    int32_t watch = wait_for_segment(&ticket);
    check_is_silent();
    gate_open(&goes_on);
    check_fires(watch);
    if (commits == 0) gate_open(&goes_on);
  }
  CHECK_INT(dsmr_segment_watch(here.registry, &ticket, &check_error), 0);
  CHECK_INT(check_begin(here.registry, "x", 64, &ticket), DSMR_FOUND);
  gate_open(&goes_on);
  CHECK_CHILD(child);
}

static void death_of_the_initialiser_fires(void) {
  place_enter(&here);
  struct gate begun = gate_make();
  struct gate goes_on = gate_make();
  pid_t child = start_initialiser(&begun, &goes_on);
  gate_pass(&begun);
  hang_doorbell();
  dsmr_segment_ticket ticket;
  int32_t watch = wait_for_segment(&ticket);
  CHECK_KILL(child);
  check_fires(watch);
  CHECK_INT(dsmr_segment_watch(here.registry, &ticket, &check_error), 0);
  CHECK_INT(check_begin(here.registry, "x", 64, &ticket), DSMR_INITIALIZE);
}

/* Until nothing changes any more. */
static int32_t watch_registry(uint32_t *seen) {
  int32_t watch;
  do {
    watch = CHECK_OK(dsmr_registry_watch(here.registry, seen, &check_error));
    if (watch == 0) CHECK_OK(dsmr_backends(here.registry, NULL, 0, &check_error));
  } while (watch == 0);
  return watch;
}

static void change_of_the_registry_fires(void) {
  place_enter(&here);
  struct party mortal = party_start();
  place_enter(&other);
  hang_doorbell();
  uint32_t seen = 0;
  for (int i = 0; i < 5; i++) {
    int32_t watch = watch_registry(&seen);
    check_is_silent();
    uint32_t before = seen;
    if (i == 0) (void)check_create(other.registry, "new", 64, 0, 1);
    if (i == 1) CHECK_OK(dsmr_segment_drop(other.registry, NAME("new"), 0, &check_error));
    if (i == 2) CHECK_OK(dsmr_registry_close(other.registry));
    if (i == 3) place_enter(&other);
    if (i == 4) CHECK_KILL(mortal.pid);
    check_fires(watch);
    CHECK_INT(dsmr_registry_watch(here.registry, &seen, &check_error), 0);
    if (i < 4) CHECK(seen != before);
  }
  CHECK_INT(dsmr_backends(here.registry, NULL, 0, &check_error), 2);
}

static void destroyed_registry_fires_all(void) {
  place_enter(&here);
  struct gate begun = gate_make();
  struct gate goes_on = gate_make();
  (void)start_initialiser(&begun, &goes_on);
  gate_pass(&begun);
  enter_both();
  uint64_t value = 0;
  uint32_t seen = 0;
  dsmr_segment_ticket ticket;
  other_takes(1, DSMR_EXCLUSIVE);
  (void)wait_for_segment(&ticket);
  (void)watch_registry(&seen);
  CHECK(dsmr_lock_watch(here.locks[1], DSMR_SHARED) > 0xffff);
  CHECK(dsmr_lock_watch_variable(here.locks[1], 0, 0, &value) > 0xffff);
  CHECK(dsmr_word_watch(here.segment, 8, 0, 0) > 0xffff);
  CHECK_INT(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error), 1);
  uint32_t ids[8];
  for (int32_t fired = 0; fired < 5;) fired += answer_within(PATIENCE_MS, ids, 8);
  CHECK_FAILS(dsmr_lock_watch(here.locks[1], DSMR_SHARED), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_lock_watch_variable(here.locks[1], 0, 0, &value), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_word_watch(here.segment, 8, 0, 0), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_registry_watch(here.registry, &seen, &check_error), DSMR_E_CLOSED);
}

static const struct check_test tests[] = {
    TEST(free_lock_is_had_at_once),
    TEST(release_fires),
    TEST(last_reader_fires),
    TEST(death_of_the_holder_fires),
    TEST(watched_claim_refuses_other_uses),
    TEST(thread_without_doorbell_watches_nothing),
    TEST(arguments_are_checked),
    TEST(own_updates_and_releases_are_watched),
    TEST(watched_waits_need_no_journal),
    TEST(release_all_ends_watched_waits),
    TEST(who_starves_and_does_not_come_is_passed_over),
    TEST(who_starves_and_gives_up_leaves_nothing),
    TEST(watched_wait_closes_no_cycle),
    TEST(variable_that_changes_fires),
    TEST(word_that_changes_or_wakes_fires),
    TEST(end_of_an_initialisation_fires),
    TEST(death_of_the_initialiser_fires),
    TEST(change_of_the_registry_fires),
    TEST(destroyed_registry_fires_all),
};
CHECK_MAIN(tests)

/*
 * lock_calls_test.c - what goes with the lock: variables, offsets, handles, limits, tranches,
 * and who is seen to hold and to wait.
 */
#include "party.h"

static struct place here;

static int32_t leave(uint32_t lock) { return dsmr_lock_release(here.locks[lock]); }
static int32_t get(uint32_t lock, uint32_t mode) { return take(here.locks[lock], mode, -1); }

/* ---- waiting without taking ------------------------------------------------------------ */

/* Sends slices until one says something else than to call again. */
static struct answer go_on(const struct party *party, struct order order, int32_t again) {
  for (;;) {
    struct answer answer = party_answer(party);
    if (answer.outcome != again) return answer;
    party_send(party, order);
  }
}

static void acquire_or_wait_takes_a_free_lock_and_only_waits_for_a_held_one(void) {
  place_enter(&here);
  struct party a = party_start();
  struct order order = {OR_WAIT, 1, 0, (uint64_t)-1};
  CHECK_INT(ask(&a, OR_WAIT, 1, 0), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&a, STATE, 1, 0), 2 + 8);
  CHECK_INT(ask(&a, LEAVE, 1, 0), 0);
  CHECK_INT(get(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&a, OR_WAIT, 1, 0), DSMR_LOCK_NOT_YET);
  party_send(&a, order);
  CHECK_INT(leave(1), 0);
  CHECK_INT(go_on(&a, order, DSMR_LOCK_NOT_YET).outcome, DSMR_LOCK_BUSY);
  CHECK_INT(ask(&a, STATE, 1, 0), 0);
  uint64_t started = 0;
  CHECK_INT(dsmr_lock_acquire_or_wait(here.locks[1], &started, 0), DSMR_LOCK_ACQUIRED);
  party_send(&a, (struct order){OR_WAIT, 1, 0, 30});
  CHECK_INT(party_outcome(&a), DSMR_E_TIMEOUT);
  CHECK_INT(leave(1), 0);
  CHECK_INT(ask(&a, OR_WAIT, 1, 0), DSMR_LOCK_ACQUIRED);
}

static void acquire_or_wait_ends_when_the_holder_dies(void) {
  place_enter(&here);
  struct party a = party_start();
  struct party b = party_start();
  struct order order = {OR_WAIT, 0, 0, (uint64_t)-1};
  CHECK_INT(ask(&a, TAKE, 0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&b, OR_WAIT, 0, 0), DSMR_LOCK_NOT_YET);
  party_send(&b, order);
  CHECK_KILL(a.pid);
  CHECK_INT(go_on(&b, order, DSMR_LOCK_NOT_YET).outcome, DSMR_LOCK_BUSY);
  CHECK_INT(ask(&b, OR_WAIT, 0, 0), DSMR_LOCK_ABANDONED);
}

/* Nobody else may ever clear its mark away: the next call would wait for nobody, again and again. */
static void acquire_or_wait_is_not_kept_out_by_a_dead_reader(void) {
  place_enter(&here);
  struct party a = party_start();
  struct party b = party_start();
  CHECK_INT(ask(&a, TAKE, 0, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_KILL(a.pid);
  CHECK_INT(ask(&b, OR_WAIT, 0, 0), DSMR_LOCK_BUSY);
  CHECK_INT(ask(&b, OR_WAIT, 0, 0), DSMR_LOCK_ACQUIRED);
}

static void variable_is_waited_for_until_it_changes_or_the_lock_is_let_go(void) {
  place_enter(&here);
  struct party a = party_start();
  uint64_t *variable = dsmr_segment_address(here.segment);
  uint64_t value = UINT64_C(0x0123456789abcdef);
  struct order order = {WATCH, 1, 0, 0};
  /* Free: nothing to wait for. */
  party_send(&a, order);
  CHECK_INT(party_outcome(&a), 0);
  CHECK_INT(get(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  party_send(&a, order);
  CHECK_INT(party_outcome(&a), DSMR_LOCK_BUSY);
  party_send(&a, order);
  CHECK_INT(dsmr_lock_update_variable(here.locks[1], 0, 0, &value, 0), 0);
  struct answer answer = go_on(&a, order, DSMR_LOCK_BUSY);
  CHECK_INT(answer.outcome, 1);
  CHECK_INT(answer.value, value);
  /* Another value than expected is found at once. */
  party_send(&a, order);
  CHECK_INT(party_outcome(&a), 1);
  order.value = value;
  party_send(&a, order);
  CHECK_INT(party_outcome(&a), DSMR_LOCK_BUSY);
  party_send(&a, order);
  value++;
  CHECK_INT(dsmr_lock_update_variable(here.locks[1], 0, 0, &value, 1), 0);
  answer = go_on(&a, order, DSMR_LOCK_BUSY);
  CHECK(answer.outcome == 0 || (answer.outcome == 1 && answer.value == value));
  CHECK_INT(*variable, value);
  CHECK_FAILS(leave(1), DSMR_E_NOT_HELD);
  /* Readers are no reason to wait. */
  CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  party_send(&a, order);
  CHECK_INT(party_outcome(&a), 0);
}

static void variable_of_a_dead_holder_is_waited_for_no_more(void) {
  place_enter(&here);
  struct party a = party_start();
  struct party b = party_start();
  struct order order = {WATCH, 0, 0, 0};
  CHECK_INT(ask(&a, TAKE, 0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  party_send(&b, order);
  CHECK_INT(party_outcome(&b), DSMR_LOCK_BUSY);
  party_send(&b, order);
  CHECK_KILL(a.pid);
  CHECK_INT(go_on(&b, order, DSMR_LOCK_BUSY).outcome, 0);
}

static void variable_has_its_limits(void) {
  place_enter(&here);
  struct party a = party_start();
  static const uint32_t bad[][2] = {{4, 0},                {1, 0}, {SEGMENT_SIZE, 0},
                                    {SEGMENT_SIZE - 4, 0}, {0, 1}, {UINT32_MAX - 7, UINT32_MAX}};
  uint64_t value = 1;
  uint64_t started = 0;
  CHECK_INT(get(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&a, TAKE, 0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_FAILS(dsmr_lock_update_variable(here.locks[1], bad[i][0], bad[i][1], &value, 1),
                DSMR_E_SIZE_INVALID);
    CHECK_FAILS(dsmr_lock_wait_for_variable(here.locks[0], bad[i][0], bad[i][1], &value, &started,
                                            -1),
                DSMR_E_SIZE_INVALID);
  }
  CHECK_INT(dsmr_lock_state(here.locks[1]), 2 + 8);
  value = 0;
  CHECK_FAILS(dsmr_lock_wait_for_variable(here.locks[0], 0, 0, &value, &started, 30),
              DSMR_E_TIMEOUT);
  CHECK_INT(dsmr_lock_update_variable(here.locks[1], SEGMENT_SIZE - 8, 0, &value, 0), 0);
}

/* ---- making locks, and handles ---------------------------------------------------------- */

static void lock_is_only_where_one_was_made(void) {
  place_enter(&here);
  static const uint32_t bad[][2] = {{32, 0},           {1, 0}, {SEGMENT_SIZE, 0},
                                    {SEGMENT_SIZE - 32, 0}, {0, 1}, {UINT32_MAX - 63, UINT32_MAX}};
  uint32_t tranche =
      (uint32_t)CHECK_OK(dsmr_tranche_new(here.registry, NAME("t"), 0, &check_error));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_FAILS(dsmr_lock_at(here.segment, bad[i][0], bad[i][1], &check_error),
                DSMR_E_SIZE_INVALID);
    CHECK_FAILS(dsmr_lock_init(here.segment, bad[i][0], bad[i][1], tranche, &check_error),
                DSMR_E_SIZE_INVALID);
  }
  CHECK_FAILS(dsmr_lock_at(here.segment, 0, 0, &check_error), DSMR_E_CORRUPT);
  memset(dsmr_segment_address(here.segment), 0xff, 64);
  CHECK_FAILS(dsmr_lock_at(here.segment, 0, 0, &check_error), DSMR_E_CORRUPT);
  static const uint32_t none[] = {0, 1, UINT32_MAX, 0x80000000u};
  for (int i = 0; i < 4; i++) {
    CHECK_FAILS(dsmr_lock_init(here.segment, 0, 0, none[i], &check_error), DSMR_E_NOT_FOUND);
  }
  CHECK_INT(dsmr_tranche_drop(here.registry, tranche, &check_error), 1);
  CHECK_FAILS(dsmr_lock_init(here.segment, 0, 0, tranche, &check_error), DSMR_E_NOT_FOUND);
  CHECK_FAILS(dsmr_lock_at(here.segment, 0, 0, &check_error), DSMR_E_CORRUPT);
}

static void lock_that_is_held_is_not_made_anew(void) {
  place_enter(&here);
  struct party a = party_start();
  uint32_t tranche =
      (uint32_t)CHECK_OK(dsmr_tranche_new(here.registry, NAME("t"), 0, &check_error));
  for (uint32_t mode = DSMR_SHARED; mode <= DSMR_EXCLUSIVE; mode++) {
    CHECK_INT(ask(&a, TAKE, 1, mode), DSMR_LOCK_ACQUIRED);
    CHECK_FAILS(dsmr_lock_init(here.segment, 64, 0, tranche, &check_error), DSMR_E_ALREADY_HELD);
    CHECK_INT(dsmr_lock_try(here.locks[1], DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
    CHECK_INT(ask(&a, LEAVE, 1, 0), 0);
  }
  /* Made anew it is not abandoned any more. */
  CHECK_INT(ask(&a, TAKE, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&a, DETACH, 0, 0), 0);
  CHECK_INT(dsmr_lock_state(here.locks[1]), 4);
  CHECK_INT(dsmr_lock_init(here.segment, 64, 0, tranche, &check_error), 0);
  CHECK_INT(get(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
}

/* More locks than the journal has cells, some of them held all the time: an idle lock's cell
 * goes to the next one, a held lock's never. */
static void more_locks_in_turn_than_the_journal_has_cells(void) {
  place_enter(&here);
  struct party other = party_start();
  for (uint32_t i = 0; i < 60; i++) CHECK_INT(get(2 * i, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  for (uint32_t round = 0; round < 3; round++) {
    for (uint32_t i = 0; i < LOCKS; i++) {
      if (i % 2 == 0 && i < 120) continue;
      CHECK_INT(get(i, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
      CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), 61);
      CHECK_INT(leave(i), 0);
    }
  }
  for (uint32_t i = 0; i < 60; i++) CHECK_INT(ask(&other, TRY, 2 * i, DSMR_EXCLUSIVE), 2);
  CHECK_INT(dsmr_lock_release_all(here.registry), 60);
  for (uint32_t i = 0; i < 60; i++) CHECK_INT(ask(&other, TRY, 2 * i, DSMR_EXCLUSIVE), 0);
  CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), 60);
}

static void backend_holds_128_locks_and_no_more(void) {
  place_enter(&here);
  uint64_t started = 0;
  for (uint32_t i = 0; i < 128; i++) {
    CHECK_INT(get(i, i % 2 == 0 ? DSMR_SHARED : DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  }
  for (uint32_t mode = DSMR_SHARED; mode <= DSMR_EXCLUSIVE; mode++) {
    CHECK_FAILS(get(128, mode), DSMR_E_NO_SPACE);
    CHECK_FAILS(dsmr_lock_try(here.locks[128], mode), DSMR_E_NO_SPACE);
  }
  CHECK_FAILS(dsmr_lock_acquire_or_wait(here.locks[128], &started, -1), DSMR_E_NO_SPACE);
  CHECK_FAILS(dsmr_lock_explain(here.locks[128], DSMR_E_NO_SPACE, -1, &check_error),
              DSMR_E_NO_SPACE);
  CHECK_INT(check_error.actual, 128);
  CHECK_INT(dsmr_lock_state(here.locks[128]), 0);
  CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), 128);
  CHECK_INT(leave(77), 0);
  CHECK_INT(get(128, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_FAILS(get(77, DSMR_SHARED), DSMR_E_NO_SPACE);
  CHECK_INT(dsmr_lock_release_all(here.registry), 128);
}

/* Every call on the lock says so. */
static void check_all_fail(uint32_t lock, int32_t status) {
  uint64_t value = 0;
  CHECK_FAILS(dsmr_lock_acquire(lock, DSMR_EXCLUSIVE, -1), status);
  CHECK_FAILS(dsmr_lock_try(lock, DSMR_SHARED), status);
  CHECK_FAILS(dsmr_lock_acquire_or_wait(lock, &value, -1), status);
  CHECK_FAILS(dsmr_lock_cancel(lock), status);
  CHECK_FAILS(dsmr_lock_release(lock), status);
  CHECK_FAILS(dsmr_lock_mark_consistent(lock), status);
  CHECK_FAILS(dsmr_lock_state(lock), status);
  CHECK_FAILS(dsmr_lock_update_variable(lock, 0, 0, &value, 0), status);
  CHECK_FAILS(dsmr_lock_wait_for_variable(lock, 0, 0, &value, &value, -1), status);
  dsmr_error error = {0};
  CHECK_FAILS(dsmr_lock_explain(lock, status, -1, &error), status);
  CHECK(error.message_length > 0);
}

static void lock_of_a_detached_segment_or_a_closed_registry_is_closed(void) {
  place_enter(&here);
  uint32_t old[2] = {here.locks[0], here.locks[1]};
  CHECK_INT(get(0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_OK(dsmr_segment_detach(here.segment));
  for (int i = 0; i < 2; i++) check_all_fail(old[i], DSMR_E_CLOSED);
  check_all_fail(0, DSMR_E_CLOSED);
  check_all_fail(UINT32_MAX, DSMR_E_CLOSED);
  check_all_fail(here.registry, DSMR_E_CLOSED);
  place_use(&here, CHECK_OK(dsmr_get_named_segment(here.registry, "s", 0, NULL, NULL, -1, NULL,
                                                   &check_error)));
  for (int i = 0; i < 2; i++) check_all_fail(old[i], DSMR_E_CLOSED);
  CHECK_INT(get(0, DSMR_EXCLUSIVE), DSMR_LOCK_ABANDONED);
  CHECK_OK(dsmr_registry_close(here.registry));
  check_all_fail(here.locks[0], DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_lock_of_segment(here.segment, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_lock_at(here.segment, 64, 0, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_lock_release_all(here.registry), DSMR_E_CLOSED);
}

static void destroying_the_registry_ends_the_waiting(void) {
  place_enter(&here);
  struct party a = party_start();
  struct party b = party_start();
  CHECK_INT(get(0, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  send_waiting(here.registry, &a, TAKE, 0, DSMR_EXCLUSIVE);
  send_waiting(here.registry, &b, TAKE, 0, DSMR_EXCLUSIVE);
  CHECK_INT(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error), 1);
  CHECK_INT(party_outcome(&a), DSMR_E_CLOSED);
  CHECK_INT(party_outcome(&b), DSMR_E_CLOSED);
  CHECK_INT(leave(0), 0);
}

static void *use_in_another_thread(void *argument) {
  (void)argument;
  check_all_fail(here.locks[0], DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_lock_of_segment(here.segment, &check_error), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_lock_at(here.segment, 64, 0, &check_error), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_lock_init(here.segment, 0, 0, 1, &check_error), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_lock_release_all(here.registry), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_locks(here.registry, NULL, 0, &check_error), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_tranches(here.registry, NULL, 0, &check_error), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_tranche_new(here.registry, NAME("t"), 0, &check_error), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_tranche_drop(here.registry, 1, &check_error), DSMR_E_UNSUPPORTED);
  return NULL;
}

static void lock_belongs_to_the_thread_that_got_it(void) {
  place_enter(&here);
  CHECK_INT(get(0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, use_in_another_thread, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK_INT(dsmr_lock_state(here.locks[0]), 2 + 8);
  CHECK_INT(leave(0), 0);
}

/* ---- tranches --------------------------------------------------------------------------- */

/* The tranche of this name; its id is UINT32_MAX if there is none. */
static dsmr_tranche_info tranche_named(const char *name) {
  static dsmr_tranche_info infos[1100];
  int32_t count = CHECK_OK(dsmr_tranches(here.registry, infos, 1100, &check_error));
  for (int32_t i = 0; i < count; i++) {
    CHECK_INT(infos[i].name_length, strlen(infos[i].name));
    if (strcmp(infos[i].name, name) == 0) return infos[i];
  }
  return (dsmr_tranche_info){.id = UINT32_MAX};
}

static void tranches_are_1024_and_their_ids_are_not_given_again(void) {
  here.registry = check_open("r", 4, 4);
  static uint32_t ids[1024];
  CHECK_INT(dsmr_tranches(here.registry, NULL, 0, &check_error), 0);
  for (int i = 0; i < 1024; i++) {
    ids[i] = (uint32_t)CHECK_OK(dsmr_tranche_new(here.registry, NAME("t"), 0, &check_error));
    CHECK(ids[i] > 0);
    for (int k = 0; i % 64 == 0 && k < i; k++) CHECK(ids[k] != ids[i]);
  }
  CHECK_FAILS(dsmr_tranche_new(here.registry, NAME("u"), 0, &check_error), DSMR_E_TRANCHES_FULL);
  CHECK_INT(check_error.actual, 1024);
  CHECK_INT(dsmr_tranches(here.registry, NULL, 0, &check_error), 1024);
  for (int round = 0; round < 3; round++) {
    CHECK_INT(dsmr_tranche_drop(here.registry, ids[500], &check_error), 1);
    CHECK_INT(dsmr_tranche_drop(here.registry, ids[500], &check_error), 0);
    CHECK_INT(dsmr_tranches(here.registry, NULL, 0, &check_error), 1023);
    uint32_t id = (uint32_t)CHECK_OK(dsmr_tranche_new(here.registry, NAME("u"), 0, &check_error));
    for (int i = 0; i < 1024; i++) CHECK(ids[i] != id);
    CHECK_INT(dsmr_tranche_drop(here.registry, ids[500], &check_error), 0);
    CHECK_INT(tranche_named("u").id, id);
    ids[500] = id;
  }
  static const uint32_t none[] = {0, UINT32_MAX, 0x80000000u};
  for (int i = 0; i < 3; i++) {
    CHECK_INT(dsmr_tranche_drop(here.registry, none[i], &check_error), 0);
  }
  CHECK_FAILS(dsmr_tranche_new(here.registry, "", 0, 0, &check_error), DSMR_E_NAME_INVALID);
  CHECK_FAILS(dsmr_tranche_new(here.registry, NAME("a/b"), 0, &check_error), DSMR_E_NAME_INVALID);
  char name[64];
  memset(name, 'n', 64);
  CHECK_FAILS(dsmr_tranche_new(here.registry, name, 64, 0, &check_error), DSMR_E_NAME_TOO_LONG);
}

static void tranche_of_a_segment_goes_with_it(void) {
  place_enter(&here);
  CHECK_OK(dsmr_tranche_new(here.registry, NAME("stays"), 0, &check_error));
  CHECK(tranche_named("kind").id != UINT32_MAX);
  CHECK_INT(tranche_named("s").id, 0);
  CHECK_INT(dsmr_tranches(here.registry, NULL, 0, &check_error), 3);
  CHECK_FAILS(dsmr_tranche_new(here.registry, NAME("t"), 12345, &check_error), DSMR_E_CLOSED);
  CHECK_INT(dsmr_segment_drop(here.registry, NAME("s"), 0, &check_error), 1);
  CHECK_OK(dsmr_segment_detach(here.segment));
  CHECK_INT(tranche_named("kind").id, UINT32_MAX);
  CHECK_INT(tranche_named("s").id, UINT32_MAX);
  CHECK_INT(dsmr_tranches(here.registry, NULL, 0, &check_error), 1);
  /* So does that of a segment that was given up while it was being made. */
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(here.registry, "x", 64, &ticket), DSMR_INITIALIZE);
  CHECK_OK(dsmr_tranche_new(here.registry, NAME("x's"), ticket.segment, &check_error));
  CHECK_INT(dsmr_segment_abort(ticket.segment, &check_error), 0);
  CHECK_INT(dsmr_tranches(here.registry, NULL, 0, &check_error), 1);
}

static void locks_of_a_dropped_tranche_work_without_a_name(void) {
  place_enter(&here);
  struct party a = party_start();
  CHECK_INT(dsmr_tranche_drop(here.registry, tranche_named("kind").id, &check_error), 1);
  CHECK_INT(get(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  send_waiting(here.registry, &a, PASS, 1, DSMR_SHARED);
  dsmr_lock_info infos[2];
  CHECK_INT(dsmr_locks(here.registry, infos, 2, &check_error), 2);
  CHECK_INT(infos[0].tranche_length, 0);
  CHECK_INT(infos[0].offset, 64);
  CHECK_INT(leave(1), 0);
  CHECK_INT(party_outcome(&a), DSMR_LOCK_ACQUIRED);
}

static void tranche_counts_waits_and_deaths_inside(void) {
  place_enter(&here);
  static const char names[2][5] = {"s", "kind"};
  for (uint32_t lock = 0; lock < 2; lock++) {
    struct party a = party_start();
    CHECK_INT(ask(&a, PASS, lock, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(tranche_named(names[lock]).contended, 0);
    CHECK_INT(tranche_named(names[lock]).waited_ns, 0);
    for (uint64_t i = 1; i < 4; i++) {
      CHECK_INT(get(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
      send_waiting(here.registry, &a, PASS, lock, i % 2 == 0 ? DSMR_SHARED : DSMR_EXCLUSIVE);
      CHECK_INT(leave(lock), 0);
      CHECK_INT(party_outcome(&a), DSMR_LOCK_ACQUIRED);
      CHECK_INT(tranche_named(names[lock]).contended, i);
    }
    CHECK(tranche_named(names[lock]).waited_ns > 0);
    CHECK_INT(tranche_named(names[lock]).abandoned, 0);
    for (uint64_t i = 1; i < 3; i++) {
      CHECK_INT(ask(&a, TAKE, lock, DSMR_EXCLUSIVE), i == 1 ? 0 : DSMR_LOCK_ABANDONED);
      CHECK_KILL(a.pid);
      CHECK_INT(get(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ABANDONED);
      CHECK_INT(leave(lock), 0);
      CHECK_INT(tranche_named(names[lock]).abandoned, i);
      a = party_start();
    }
  }
}

/* ---- looking in -------------------------------------------------------------------------- */

static void listing_says_who_holds_and_who_waits_for_what(void) {
  place_enter(&here);
  struct party a = party_start();
  struct party b = party_start();
  CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), 0);
  CHECK_INT(get(0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(get(2, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  send_waiting(here.registry, &a, TAKE, 0, DSMR_SHARED);
  send_waiting(here.registry, &b, TAKE, 2, DSMR_EXCLUSIVE);
  dsmr_lock_info infos[5];
  memset(infos, 0x55, sizeof infos);
  CHECK_INT(dsmr_locks(here.registry, infos, 1, &check_error), 4);
  CHECK_INT(infos[1].pid, 0x55555555);
  CHECK_INT(dsmr_locks(here.registry, infos, 5, &check_error), 4);
  dsmr_registry_info self;
  CHECK_OK(dsmr_registry_describe(here.registry, &self, &check_error));
  uint32_t seen = 0;
  for (int i = 0; i < 4; i++) {
    bool is_own = infos[i].offset == UINT64_MAX;
    uint32_t holder_mode = is_own ? DSMR_EXCLUSIVE : DSMR_SHARED;
    CHECK_TEXT(infos[i].segment, "s");
    CHECK_INT(infos[i].segment_length, 1);
    CHECK_TEXT(infos[i].tranche, is_own ? "s" : "kind");
    CHECK_INT(infos[i].tranche_length, is_own ? 1 : 4);
    if (!is_own) CHECK_INT(infos[i].offset, 128);
    if (infos[i].is_waiting != 0) {
      CHECK_INT(infos[i].pid, is_own ? a.pid : b.pid);
      CHECK_INT(infos[i].mode, 3 - holder_mode);
      CHECK(infos[i].since_ns >= self.created_ns);
    } else {
      CHECK_INT(infos[i].pid, getpid());
      CHECK_INT(infos[i].backend_id, self.backend_id);
      CHECK_INT(infos[i].mode, holder_mode);
      CHECK_INT(infos[i].since_ns, 0);
    }
    seen |= 1u << (2 * (infos[i].is_waiting != 0) + is_own);
  }
  CHECK_INT(seen, 15);
  CHECK_KILL(a.pid);
  CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), 3);
  CHECK_INT(dsmr_lock_release_all(here.registry), 2);
  CHECK_INT(party_outcome(&b), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&b, LEAVE, 2, 0), 0);
  CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), 0);
}

static const struct check_test tests[] = {
    TEST(acquire_or_wait_takes_a_free_lock_and_only_waits_for_a_held_one),
    TEST(acquire_or_wait_ends_when_the_holder_dies),
    TEST(acquire_or_wait_is_not_kept_out_by_a_dead_reader),
    TEST(variable_is_waited_for_until_it_changes_or_the_lock_is_let_go),
    TEST(variable_of_a_dead_holder_is_waited_for_no_more),
    TEST(variable_has_its_limits),
    TEST(lock_is_only_where_one_was_made),
    TEST(lock_that_is_held_is_not_made_anew),
    TEST(more_locks_in_turn_than_the_journal_has_cells),
    TEST(backend_holds_128_locks_and_no_more),
    TEST(lock_of_a_detached_segment_or_a_closed_registry_is_closed),
    TEST(destroying_the_registry_ends_the_waiting),
    TEST(lock_belongs_to_the_thread_that_got_it),
    TEST(tranches_are_1024_and_their_ids_are_not_given_again),
    TEST(tranche_of_a_segment_goes_with_it),
    TEST(locks_of_a_dropped_tranche_work_without_a_name),
    TEST(tranche_counts_waits_and_deaths_inside),
    TEST(listing_says_who_holds_and_who_waits_for_what),
};
CHECK_MAIN(tests)

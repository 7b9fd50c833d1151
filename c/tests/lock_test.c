/*
 * lock_test.c - LWLocks: who comes in, who is told what, and what a death leaves.
 */
#include "party.h"

#include <poll.h>

static struct place here;

static int32_t leave(uint32_t lock) { return dsmr_lock_release(here.locks[lock]); }
static int32_t attempt(uint32_t lock, uint32_t mode) {
  return dsmr_lock_try(here.locks[lock], mode);
}
static int32_t get(uint32_t lock, uint32_t mode) { return take(here.locks[lock], mode, -1); }

static const uint32_t modes[2] = {DSMR_SHARED, DSMR_EXCLUSIVE};

/* ---- modes --------------------------------------------------------------------------- */

static void exclusive_excludes_all_and_shared_is_for_many(void) {
  place_enter(&here);
  struct party a = party_start();
  struct party b = party_start();
  for (uint32_t lock = 0; lock < 2; lock++) {
    CHECK_INT(get(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(&a, TRY, lock, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
    CHECK_INT(ask(&a, TRY, lock, DSMR_SHARED), DSMR_LOCK_BUSY);
    CHECK_INT(leave(lock), 0);
    CHECK_INT(ask(&a, TAKE, lock, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(&b, TAKE, lock, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(attempt(lock, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
    CHECK_INT(get(lock, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(lock), 0);
    CHECK_INT(ask(&a, LEAVE, lock, 0), 0);
    CHECK_INT(attempt(lock, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
    CHECK_INT(ask(&b, LEAVE, lock, 0), 0);
    CHECK_INT(attempt(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  }
  /* One lock is not the other. */
  CHECK_INT(ask(&a, TRY, 2, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
}

static void held_lock_is_already_held_in_any_mode(void) {
  place_enter(&here);
  uint64_t started = 0;
  uint64_t value = 0;
  for (int i = 0; i < 4; i++) {
    CHECK_INT(get(0, modes[i / 2]), DSMR_LOCK_ACQUIRED);
    CHECK_FAILS(get(0, modes[i % 2]), DSMR_E_ALREADY_HELD);
    CHECK_FAILS(attempt(0, modes[i % 2]), DSMR_E_ALREADY_HELD);
    CHECK_FAILS(dsmr_lock_acquire_or_wait(here.locks[0], &started, -1), DSMR_E_ALREADY_HELD);
    CHECK_INT(dsmr_lock_wait_for_variable(here.locks[0], 0, 0, &value, &started, -1),
              i / 2 == 1 ? DSMR_E_ALREADY_HELD : 0);
    CHECK_INT(dsmr_lock_state(here.locks[0]), i / 2 == 1 ? 2 + 8 : 1 + 16);
    CHECK_INT(leave(0), 0);
    CHECK_INT(dsmr_lock_state(here.locks[0]), 0);
  }
  /* The same lock asked for again is the same handle, and so noticed. */
  CHECK_INT(dsmr_lock_of_segment(here.segment, &check_error), here.locks[0]);
  CHECK_INT(dsmr_lock_at(here.segment, 64, 0, &check_error), here.locks[1]);
}

static void mode_that_is_none_is_refused(void) {
  place_enter(&here);
  static const uint32_t bad[] = {0, 3, 4, UINT32_MAX};
  for (int i = 0; i < 4; i++) {
    CHECK_FAILS(get(0, bad[i]), DSMR_E_SIZE_INVALID);
    CHECK_FAILS(attempt(0, bad[i]), DSMR_E_SIZE_INVALID);
  }
  CHECK_INT(dsmr_lock_state(here.locks[0]), 0);
}

static void what_is_not_held_cannot_be_released_updated_or_marked(void) {
  place_enter(&here);
  struct party a = party_start();
  uint64_t value = 9;
  CHECK_INT(ask(&a, TAKE, 0, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_FAILS(leave(0), DSMR_E_NOT_HELD);
  for (int is_shared = 0; is_shared < 2; is_shared++) {
    if (is_shared == 1) CHECK_INT(get(0, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_FAILS(dsmr_lock_mark_consistent(here.locks[0]), DSMR_E_NOT_HELD);
    CHECK_FAILS(dsmr_lock_update_variable(here.locks[0], 0, 0, &value, 1), DSMR_E_NOT_HELD);
  }
  CHECK_INT(*(uint64_t *)dsmr_segment_address(here.segment), 0);
  CHECK_INT(leave(0), 0);
  CHECK_FAILS(leave(0), DSMR_E_NOT_HELD);
  /* The other one's is untouched. */
  CHECK_INT(ask(&a, LEAVE, 0, 0), 0);
  CHECK_FAILS(dsmr_lock_explain(here.locks[1], DSMR_E_NOT_HELD, -1, &check_error),
              DSMR_E_NOT_HELD);
  CHECK(strstr(check_error.message, "\"kind\"") != NULL);
}

static void try_that_fails_disturbs_nobody(void) {
  place_enter(&here);
  struct party reader = party_start();
  struct party other = party_start();
  CHECK_INT(ask(&reader, TAKE, 0, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  for (int i = 0; i < 1000; i++) CHECK_INT(attempt(0, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
  CHECK_INT(dsmr_lock_state(here.locks[0]), 16);
  CHECK_INT(ask(&other, TRY, 0, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&other, LEAVE, 0, 0), 0);
  CHECK_INT(ask(&reader, LEAVE, 0, 0), 0);
  CHECK_INT(ask(&other, TAKE, 0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  for (int i = 0; i < 1000; i++) CHECK_INT(attempt(0, modes[i % 2]), DSMR_LOCK_BUSY);
  CHECK_INT(ask(&other, STATE, 0, 0), 2 + 8);
  CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), 1);
}

static void try_finds_out_that_the_holder_is_dead(void) {
  place_enter(&here);
  for (int i = 0; i < 4; i++) {
    uint32_t held = modes[i / 2];
    struct party holder = party_start();
    CHECK_INT(ask(&holder, TAKE, 0, held), DSMR_LOCK_ACQUIRED);
    if (held == DSMR_EXCLUSIVE || modes[i % 2] == DSMR_EXCLUSIVE) {
      CHECK_INT(attempt(0, modes[i % 2]), DSMR_LOCK_BUSY);
    }
    CHECK_KILL(holder.pid);
    /* The first try after the death has it: no waiter came by and reaped. */
    bool is_told = held == DSMR_EXCLUSIVE && modes[i % 2] == DSMR_EXCLUSIVE;
    CHECK_INT(attempt(0, modes[i % 2]), is_told ? DSMR_LOCK_ABANDONED : DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(0), 0);
    CHECK_INT(get(0, DSMR_EXCLUSIVE), held == DSMR_EXCLUSIVE);
    CHECK_INT(dsmr_lock_mark_consistent(here.locks[0]), 0);
    CHECK_INT(leave(0), 0);
  }
}

/* Takes every lock that a backend can, and lets go of them. */
static void check_journal_is_free(void) {
  for (uint32_t i = 2; i < 130; i++) CHECK_INT(get(i, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  for (uint32_t i = 2; i < 130; i++) CHECK_INT(leave(i), 0);
}

static void waiting_that_times_out_leaves_nothing(void) {
  place_enter(&here);
  struct party holder = party_start();
  struct party other = party_start();
  for (int i = 0; i < 4; i++) {
    uint32_t wanted = modes[i % 2];
    uint32_t held = modes[i / 2];
    if (wanted == DSMR_SHARED && held == DSMR_SHARED) continue;
    CHECK_INT(ask(&holder, TAKE, 0, held), DSMR_LOCK_ACQUIRED);
    CHECK_FAILS(take(here.locks[0], wanted, 30), DSMR_E_TIMEOUT);
    for (int k = 0; k < 200; k++) CHECK_FAILS(take(here.locks[0], wanted, 0), DSMR_E_TIMEOUT);
    CHECK_FAILS(dsmr_lock_explain(here.locks[0], DSMR_E_TIMEOUT, 30, &check_error),
                DSMR_E_TIMEOUT);
    CHECK_INT(check_error.actual, holder.pid);
    CHECK_INT(check_error.requested, 30);
    CHECK(strstr(check_error.message, "\"s\"") != NULL);
    CHECK_INT(count_of(here.registry, getpid(), true) + count_of(here.registry, getpid(), false),
              0);
    /* Neither a claim nor a bit nor a name in the queue is left. */
    if (held == DSMR_SHARED) {
      CHECK_INT(ask(&other, TRY, 0, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
      CHECK_INT(ask(&other, LEAVE, 0, 0), 0);
    }
    CHECK_INT(ask(&holder, LEAVE, 0, 0), 0);
    CHECK_INT(ask(&other, TRY, 0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(&other, LEAVE, 0, 0), 0);
    check_journal_is_free();
  }
}

static void waiting_that_is_cancelled_leaves_nothing(void) {
  place_enter(&here);
  struct party holder = party_start();
  struct party other = party_start();
  for (int i = 0; i < 2; i++) {
    CHECK_INT(ask(&holder, TAKE, 0, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(dsmr_lock_acquire(here.locks[0], DSMR_EXCLUSIVE, -1), DSMR_LOCK_BUSY);
    CHECK_INT(count_of(here.registry, getpid(), true), 1);
    CHECK_FAILS(attempt(0, DSMR_SHARED), DSMR_E_ALREADY_HELD);
    /* Its place among the waiters is kept: readers stay out. */
    CHECK_INT(ask(&other, TRY, 0, DSMR_SHARED), DSMR_LOCK_BUSY);
    if (i == 0) CHECK_INT(dsmr_lock_cancel(here.locks[0]), 0);
    else CHECK_INT(dsmr_lock_release_all(here.registry), 0);
    CHECK_INT(count_of(here.registry, getpid(), true), 0);
    CHECK_INT(ask(&other, TRY, 0, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(&other, LEAVE, 0, 0), 0);
    CHECK_INT(ask(&holder, LEAVE, 0, 0), 0);
    CHECK_INT(attempt(0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(dsmr_lock_cancel(here.locks[0]), 0);
    CHECK_INT(dsmr_lock_state(here.locks[0]), 2 + 8);
    CHECK_INT(leave(0), 0);
  }
  check_journal_is_free();
}

static void release_all_lets_go_of_every_lock_of_the_backend(void) {
  place_enter(&here);
  struct party a = party_start();
  CHECK_INT(ask(&a, TAKE, 3, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  for (uint32_t i = 0; i < 4; i++) {
    CHECK_INT(get(i, i == 3 ? DSMR_SHARED : DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  }
  CHECK_INT(dsmr_lock_release_all(here.registry), 4);
  CHECK_INT(dsmr_lock_release_all(here.registry), 0);
  for (uint32_t i = 0; i < 3; i++) {
    CHECK_INT(ask(&a, TRY, i, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  }
  CHECK_INT(ask(&a, STATE, 3, 0), 1 + 16);
  CHECK_INT(ask(&a, LEAVE_ALL, 0, 0), 4);
  check_journal_is_free();
}

/* ---- death --------------------------------------------------------------------------- */

static void killed_exclusive_holder_leaves_it_abandoned_until_marked(void) {
  place_enter(&here);
  struct party b = party_start();
  for (uint32_t lock = 0; lock < 2; lock++) {
    struct party a = party_start();
    CHECK_INT(ask(&a, TAKE, lock, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    /* One waits already when it happens, the other comes later. */
    if (lock == 0) send_waiting(here.registry, &b, TAKE, lock, DSMR_EXCLUSIVE);
    CHECK_KILL(a.pid);
    int32_t outcome =
        lock == 0 ? party_outcome(&b) : ask(&b, TAKE, lock, DSMR_EXCLUSIVE);
    CHECK_INT(outcome, DSMR_LOCK_ABANDONED);
    CHECK_INT(ask(&b, STATE, lock, 0) & ~32, 2 + 4 + 8);
    CHECK_INT(ask(&b, LEAVE, lock, 0), 0);
    for (int i = 0; i < 3; i++) {
      CHECK_INT(get(lock, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
      CHECK_INT(dsmr_lock_state(here.locks[lock]), 1 + 4 + 16);
      CHECK_INT(ask(&b, PASS, lock, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
      CHECK_FAILS(dsmr_lock_mark_consistent(here.locks[lock]), DSMR_E_NOT_HELD);
      CHECK_INT(leave(lock), 0);
      CHECK_INT(ask(&b, PASS, lock, DSMR_EXCLUSIVE), DSMR_LOCK_ABANDONED);
      CHECK_INT(attempt(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ABANDONED);
      CHECK_INT(leave(lock), 0);
    }
    CHECK_INT(get(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ABANDONED);
    CHECK_INT(dsmr_lock_mark_consistent(here.locks[lock]), 0);
    CHECK_INT(dsmr_lock_state(here.locks[lock]), 2 + 8);
    CHECK_INT(leave(lock), 0);
    CHECK_INT(ask(&b, PASS, lock, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  }
}

static void killed_shared_holders_are_taken_out_of_it(void) {
  place_enter(&here);
  struct party writer = party_start();
  for (int round = 0; round < 3; round++) {
    struct party readers[3];
    for (int i = 0; i < 3; i++) {
      readers[i] = party_start();
      CHECK_INT(ask(&readers[i], TAKE, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    }
    if (round == 0) send_waiting(here.registry, &writer, TAKE, 1, DSMR_EXCLUSIVE);
    for (int i = 0; i < 3; i++) CHECK_KILL(readers[i].pid);
    int32_t outcome =
        round == 0 ? party_outcome(&writer) : ask(&writer, TAKE, 1, DSMR_EXCLUSIVE);
    CHECK_INT(outcome, DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(&writer, STATE, 1, 0), 2 + 8);
    CHECK_INT(ask(&writer, LEAVE, 1, 0), 0);
  }
}

static void killed_waiters_are_in_nobodys_way(void) {
  place_enter(&here);
  struct party b = party_start();
  struct party c = party_start();
  for (int i = 0; i < 2; i++) {
    struct party a = party_start();
    CHECK_INT(get(0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    send_waiting(here.registry, &a, TAKE, 0, modes[i]);
    send_waiting(here.registry, &b, PASS, 0, DSMR_EXCLUSIVE);
    send_waiting(here.registry, &c, PASS, 0, DSMR_SHARED);
    CHECK_KILL(a.pid);
    CHECK_INT(leave(0), 0);
    CHECK_INT(party_outcome(&b), DSMR_LOCK_ACQUIRED);
    CHECK_INT(party_outcome(&c), DSMR_LOCK_ACQUIRED);
    CHECK_INT(get(0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(0), 0);
  }
}

static void killed_writer_that_waited_for_the_readers_keeps_nobody_out(void) {
  place_enter(&here);
  struct party a = party_start();
  struct party b = party_start();
  struct party c = party_start();
  CHECK_INT(get(0, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  send_waiting(here.registry, &a, TAKE, 0, DSMR_EXCLUSIVE);
  CHECK_INT(ask(&b, TRY, 0, DSMR_SHARED), DSMR_LOCK_BUSY);
  send_waiting(here.registry, &b, PASS, 0, DSMR_SHARED);
  CHECK_KILL(a.pid);
  /* The readers come in while the first one is still inside. */
  CHECK_INT(party_outcome(&b), DSMR_LOCK_ACQUIRED);
  a = party_start();
  send_waiting(here.registry, &a, TAKE, 0, DSMR_EXCLUSIVE);
  send_waiting(here.registry, &b, TAKE, 0, DSMR_SHARED);
  send_waiting(here.registry, &c, TAKE, 0, DSMR_EXCLUSIVE);
  CHECK_KILL(a.pid);
  /* Which of the two comes first is nobody's business; both do, and neither finds it bad. */
  struct pollfd answers[2] = {{b.answers, POLLIN, 0}, {c.answers, POLLIN, 0}};
  CHECK_INT(leave(0), 0);
  CHECK(poll(answers, 2, -1) >= 1);
  const struct party *first = answers[0].revents != 0 ? &b : &c;
  const struct party *second = first == &b ? &c : &b;
  CHECK_INT(party_outcome(first), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(first, LEAVE, 0, 0), 0);
  CHECK_INT(party_outcome(second), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(second, LEAVE, 0, 0), 0);
  CHECK_INT(attempt(0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
}

static void stopped_holder_is_waited_for_and_never_robbed(void) {
  place_enter(&here);
  struct party a = party_start();
  for (int i = 0; i < 2; i++) {
    CHECK_INT(ask(&a, TAKE, 0, modes[i]), DSMR_LOCK_ACQUIRED);
    int status;
    CHECK(kill(a.pid, SIGSTOP) == 0);
    CHECK(waitpid(a.pid, &status, WUNTRACED) == a.pid && WIFSTOPPED(status));
    CHECK_FAILS(take(here.locks[0], DSMR_EXCLUSIVE, 150), DSMR_E_TIMEOUT);
    CHECK_INT(attempt(0, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
    CHECK_INT(count_of(here.registry, a.pid, false), 1);
    CHECK(kill(a.pid, SIGCONT) == 0);
    CHECK_INT(ask(&a, STATE, 0, 0) & ~32, modes[i] == DSMR_SHARED ? 1 + 16 : 2 + 8);
    CHECK_INT(ask(&a, LEAVE, 0, 0), 0);
    CHECK_INT(get(0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(0), 0);
  }
}

static void lock_of_a_dropped_segment_survives_its_holder(void) {
  place_enter(&here);
  struct party a = party_start();
  struct party b = party_start();
  CHECK_INT(ask(&a, TAKE, 0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&a, TAKE, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(dsmr_segment_drop(here.registry, NAME("s"), 0, &check_error), 1);
  /* The name's next segment has a lock of its own. */
  struct party newcomer = party_start();
  CHECK_INT(ask(&newcomer, TRY, 0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_KILL(a.pid);
  CHECK_INT(ask(&b, TAKE, 0, DSMR_EXCLUSIVE), DSMR_LOCK_ABANDONED);
  CHECK_INT(ask(&b, MARK, 0, 0), 0);
  CHECK_INT(ask(&b, LEAVE, 0, 0), 0);
  CHECK_INT(get(0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(get(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&newcomer, STATE, 0, 0), 2 + 8);
}

static void leaving_while_inside_counts_as_dying(void) {
  place_enter(&here);
  static const enum what ways[] = {DETACH, CLOSE, END_THREAD};
  for (uint32_t lock = 0; lock < 2; lock++) {
    for (int i = 0; i < 3; i++) {
      struct party a = party_start();
      if (ways[i] != END_THREAD) {
        CHECK_INT(ask(&a, TAKE, lock, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
        CHECK_INT(ask(&a, TAKE, 2, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
      }
      CHECK_INT(ask(&a, ways[i], lock, 0), 0);
      CHECK_INT(attempt(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ABANDONED);
      CHECK_INT(dsmr_lock_mark_consistent(here.locks[lock]), 0);
      CHECK_INT(leave(lock), 0);
      CHECK_INT(attempt(2, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
      CHECK_INT(leave(2), 0);
      CHECK_KILL(a.pid);
    }
  }
}

/* ---- deadlock ------------------------------------------------------------------------- */

/* Each of `count` parties holds its own lock and wants the next one's. */
static void check_deadlock(const struct party *parties, uint32_t count, uint32_t holds) {
  uint32_t wants = DSMR_SHARED + DSMR_EXCLUSIVE - holds;
  struct pollfd answers[4];
  for (uint32_t i = 0; i < count; i++) CHECK_INT(ask(&parties[i], TAKE, i, holds), 0);
  for (uint32_t i = 0; i < count; i++) {
    party_send(&parties[i], (struct order){TAKE, (i + 1) % count, wants, (uint64_t)-1});
    answers[i] = (struct pollfd){parties[i].answers, POLLIN, 0};
  }
  /* Only one can answer: what the others want stays held until it has given way. */
  CHECK(poll(answers, count, -1) == 1);
  uint32_t loser = 0;
  while (answers[loser].revents == 0) loser++;
  CHECK_INT(party_outcome(&parties[loser]), DSMR_E_DEADLOCK);
  CHECK_INT(ask(&parties[loser], LEAVE_ALL, 0, 0), 1);
  for (uint32_t i = 1; i < count; i++) {
    const struct party *next = &parties[(loser + count - i) % count];
    CHECK_INT(party_outcome(next), DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(next, LEAVE_ALL, 0, 0), 2);
  }
}

static void exactly_one_of_a_cycle_gets_deadlock_and_the_others_the_locks(void) {
  place_enter(&here);
  struct party parties[3];
  for (int i = 0; i < 3; i++) parties[i] = party_start();
  for (int round = 0; round < 4; round++) {
    check_deadlock(parties, 2, DSMR_EXCLUSIVE);
    check_deadlock(parties, 2, DSMR_SHARED);
    check_deadlock(parties, 3, DSMR_EXCLUSIVE);
    check_deadlock(parties, 3, DSMR_SHARED);
  }
}

static const struct check_test tests[] = {
    TEST(exclusive_excludes_all_and_shared_is_for_many),
    TEST(held_lock_is_already_held_in_any_mode),
    TEST(mode_that_is_none_is_refused),
    TEST(what_is_not_held_cannot_be_released_updated_or_marked),
    TEST(try_that_fails_disturbs_nobody),
    TEST(try_finds_out_that_the_holder_is_dead),
    TEST(waiting_that_times_out_leaves_nothing),
    TEST(waiting_that_is_cancelled_leaves_nothing),
    TEST(release_all_lets_go_of_every_lock_of_the_backend),
    TEST(killed_exclusive_holder_leaves_it_abandoned_until_marked),
    TEST(killed_shared_holders_are_taken_out_of_it),
    TEST(killed_waiters_are_in_nobodys_way),
    TEST(killed_writer_that_waited_for_the_readers_keeps_nobody_out),
    TEST(stopped_holder_is_waited_for_and_never_robbed),
    TEST(lock_of_a_dropped_segment_survives_its_holder),
    TEST(leaving_while_inside_counts_as_dying),
    TEST(exactly_one_of_a_cycle_gets_deadlock_and_the_others_the_locks),
};
CHECK_MAIN(tests)

/*
 * lock_properties_test.c - what a lock promises while everybody lives: a stopped waiter is in
 * nobody's way, no kind of wait is a hang, and nobody starves.
 *
 * The hardest thing is to stop a process in just the right wait. So the tests read the lock's
 * own words, and go on when these say that it has come so far.
 */
#define LOCKS 8u
#define BACKENDS 256u
#include "party.h"

#include "layout.h"

#include <poll.h>

static struct place here;

static int32_t leave(uint32_t lock) { return dsmr_lock_release(here.locks[lock]); }
static int32_t get(uint32_t lock, uint32_t mode) { return take(here.locks[lock], mode, -1); }

static const uint32_t modes[2] = {DSMR_SHARED, DSMR_EXCLUSIVE};

/* The words of lock 1 and up; lock 0 is not in the data. */
static struct lwlock *words_of(uint32_t lock) {
  return (struct lwlock *)(void *)((char *)dsmr_segment_address(here.segment) + 64 * lock);
}

static void stop(const struct party *party) {
  int status;
  CHECK(kill(party->pid, SIGSTOP) == 0);
  CHECK(waitpid(party->pid, &status, WUNTRACED) == party->pid && WIFSTOPPED(status));
}

static void go_on(const struct party *party) { CHECK(kill(party->pid, SIGCONT) == 0); }

/* ---- who is stopped while it waits ------------------------------------------------------- */

/* Stops the party, which waits for lock 1, as soon as the others queue behind it. */
static void stop_starving_one(const struct party *party, uint32_t mode, int32_t timeout_ms) {
  party_send(party, (struct order){TAKE, 1, mode, (uint64_t)(int64_t)timeout_ms});
  while (atomic_load(&words_of(1)->starving) == 0) sched_yield();
  stop(party);
  CHECK(atomic_load(&words_of(1)->starving) != 0);
}

/* In each mode, by waiting and, once the stopped one has had its chance, by trying. */
static void check_others_get_it(const struct party *other) {
  for (int i = 0; i < 2; i++) {
    CHECK_INT(ask(other, PASS, 1, modes[i]), DSMR_LOCK_ACQUIRED);
    while (ask(other, TRY, 1, modes[i]) == DSMR_LOCK_BUSY) sched_yield();
    CHECK_INT(ask(other, LEAVE, 1, 0), 0);
  }
}

static void stopped_waiter_keeps_nobody_from_a_free_lock(void) {
  place_enter(&here);
  struct party holder = party_start();
  struct party waiter = party_start();
  struct party other = party_start();
  for (int i = 0; i < 2; i++) {
    CHECK_INT(ask(&holder, TAKE, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    stop_starving_one(&waiter, modes[i], -1);
    /* One waits for it already when it is let go, the others come later. */
    send_waiting(here.registry, &other, PASS, 1, DSMR_EXCLUSIVE);
    CHECK_INT(ask(&holder, LEAVE, 1, 0), 0);
    CHECK_INT(party_outcome(&other), DSMR_LOCK_ACQUIRED);
    check_others_get_it(&other);
    CHECK_INT(ask(&other, TAKE, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    go_on(&waiter);
    CHECK_INT(ask(&other, LEAVE, 1, 0), 0);
    CHECK_INT(party_outcome(&waiter), DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(&waiter, LEAVE, 1, 0), 0);
    CHECK_INT(atomic_load(&words_of(1)->starving), 0);
  }
}

static void stopped_waiter_with_a_timeout_gets_it_or_the_timeout(void) {
  place_enter(&here);
  struct party holder = party_start();
  struct party waiter = party_start();
  struct party other = party_start();
  for (int i = 0; i < 4; i++) {
    bool is_late = i % 2 == 1;
    CHECK_INT(ask(&holder, TAKE, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    stop_starving_one(&waiter, modes[i / 2], is_late ? 500 : 200000);
    CHECK_INT(ask(&holder, LEAVE, 1, 0), 0);
    check_others_get_it(&other);
    CHECK_INT(ask(&other, TAKE, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    go_on(&waiter);
    if (is_late) CHECK_INT(party_outcome(&waiter), DSMR_E_TIMEOUT);
    CHECK_INT(ask(&other, LEAVE, 1, 0), 0);
    if (!is_late) CHECK_INT(party_outcome(&waiter), DSMR_LOCK_ACQUIRED);
    if (!is_late) CHECK_INT(ask(&waiter, LEAVE, 1, 0), 0);
    CHECK_INT(atomic_load(&words_of(1)->starving), 0);
    CHECK_INT(ask(&other, TRY, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(&other, LEAVE, 1, 0), 0);
  }
}

/* A slice has ended, and its caller does something else. */
static void waiter_that_never_calls_again_keeps_nobody_out(void) {
  place_enter(&here);
  struct party holder = party_start();
  struct party other = party_start();
  for (int i = 0; i < 2; i++) {
    CHECK_INT(ask(&holder, TAKE, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(dsmr_lock_acquire(here.locks[1], modes[i], -1), DSMR_LOCK_BUSY);
    CHECK(atomic_load(&words_of(1)->starving) != 0);
    CHECK_INT(ask(&holder, LEAVE, 1, 0), 0);
    check_others_get_it(&other);
    if (i == 1) continue; /* cancelled by nobody, to the end */
    CHECK_INT(get(1, modes[i]), DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(1), 0);
  }
}

/* It owns the lock already. Who takes it from there would rob it. */
static void writer_stopped_while_it_waits_for_readers_is_a_holder(void) {
  place_enter(&here);
  struct party writer = party_start();
  struct party other = party_start();
  CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  send_waiting(here.registry, &writer, TAKE, 1, DSMR_EXCLUSIVE);
  while (LOCK_TOKEN(atomic_load(&words_of(1)->owner)) == 0) sched_yield();
  stop(&writer);
  CHECK_INT(leave(1), 0);
  for (int i = 0; i < 2; i++) {
    CHECK_INT(ask(&other, TRY, 1, modes[i]), DSMR_LOCK_BUSY);
    CHECK_FAILS(take(here.locks[1], modes[i], 300), DSMR_E_TIMEOUT);
  }
  go_on(&writer);
  CHECK_INT(party_outcome(&writer), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&writer, LEAVE, 1, 0), 0);
  CHECK_INT(ask(&other, TRY, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
}

/* ---- cycles ------------------------------------------------------------------------------- */

static const enum what waits[3] = {TAKE, OR_WAIT_LONG, WATCH_LONG};
/* What each of them says when the lock is let go. */
static const int32_t ends[3] = {DSMR_LOCK_ACQUIRED, DSMR_LOCK_BUSY, 0};

/* Each of `count` parties holds a lock and waits for the next one's, in its own way. */
static void check_cycle(const struct party *parties, uint32_t count, const uint32_t *ways) {
  struct pollfd answers[3];
  for (uint32_t i = 0; i < count; i++) CHECK_INT(ask(&parties[i], TAKE, i, DSMR_EXCLUSIVE), 0);
  for (uint32_t i = 0; i < count; i++) {
    uint64_t value = waits[ways[i]] == WATCH_LONG ? 0 : (uint64_t)-1;
    party_send(&parties[i],
               (struct order){waits[ways[i]], (i + 1) % count, DSMR_EXCLUSIVE, value});
    answers[i] = (struct pollfd){parties[i].answers, POLLIN, 0};
  }
  /* Only one can answer: what the others want stays held until it has given way. */
  CHECK(poll(answers, count, -1) == 1);
  uint32_t loser = 0;
  while (answers[loser].revents == 0) loser++;
  CHECK_INT(party_outcome(&parties[loser]), DSMR_E_DEADLOCK);
  CHECK_INT(ask(&parties[loser], LEAVE_ALL, 0, 0), 1);
  for (uint32_t i = 1; i < count; i++) {
    uint32_t next = (loser + count - i) % count;
    CHECK_INT(party_outcome(&parties[next]), ends[ways[next]]);
    CHECK_INT(ask(&parties[next], LEAVE_ALL, 0, 0), ways[next] == 0 ? 2 : 1);
  }
  CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), 0);
}

static void cycle_through_any_kind_of_wait_gives_deadlock_to_exactly_one(void) {
  place_enter(&here);
  struct party parties[3];
  for (int i = 0; i < 3; i++) parties[i] = party_start();
  for (uint32_t i = 0; i < 9; i++) {
    check_cycle(parties, 2, (uint32_t[]){i / 3, i % 3});
  }
  for (uint32_t i = 0; i < 27; i++) {
    check_cycle(parties, 3, (uint32_t[]){i / 9, i / 3 % 3, i % 3});
  }
}

/* Two hold a lock each and wait for each other's variables in turn: one of them may not have gone
 * on yet when its variable has changed, but it is not in the way any more. */
static void wait_whose_variable_has_changed_closes_no_cycle(void) {
  place_enter(&here);
  struct party a = party_start();
  CHECK_INT(get(0, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&a, TAKE, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  party_send(&a, (struct order){WATCH_LONG, 0, 0, 0});
  while (count_of(here.registry, a.pid, true) == 0) sched_yield();
  CHECK(kill(a.pid, SIGSTOP) == 0);
  int status = 0;
  CHECK(waitpid(a.pid, &status, WUNTRACED) == a.pid);
  uint64_t value = 7;
  CHECK_INT(dsmr_lock_update_variable(here.locks[0], 0, 0, &value, 0), 0);
  uint64_t expected = 0;
  uint64_t started = 0;
  int32_t outcome;
  do {
    outcome = dsmr_lock_wait_for_variable(here.locks[1], 8, 0, &expected, &started, 300);
  } while (outcome == DSMR_LOCK_BUSY);
  CHECK_INT(outcome, DSMR_E_TIMEOUT);
  CHECK(kill(a.pid, SIGCONT) == 0);
  struct answer answer = party_answer(&a);
  CHECK_INT(answer.outcome, 1);
  CHECK_INT(answer.value, 7);
}

static void every_kind_of_wait_is_listed_until_it_ends(void) {
  place_enter(&here);
  struct party waiter = party_start();
  for (uint32_t lock = 0; lock < 2; lock++) {
    for (int i = 0; i < 3; i++) {
      CHECK_INT(get(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
      party_send(&waiter, (struct order){waits[i], lock, DSMR_EXCLUSIVE, i == 2 ? 0 : (uint64_t)-1});
      dsmr_lock_info infos[4];
      const dsmr_lock_info *wait = NULL;
      /* Between two slices nothing is waited for; in an attempt it is listed as holding. */
      while (wait == NULL) {
        int32_t count = CHECK_OK(dsmr_locks(here.registry, infos, 4, &check_error));
        CHECK(count == 1 || count == 2);
        for (int32_t k = 0; k < count; k++) {
          if (infos[k].is_waiting != 0) wait = &infos[k];
        }
      }
      CHECK_INT(wait->pid, waiter.pid);
      CHECK_INT(wait->mode, DSMR_EXCLUSIVE);
      CHECK_INT(wait->offset, lock == 0 ? UINT64_MAX : 64);
      CHECK_TEXT(wait->tranche, lock == 0 ? "s" : "kind");
      CHECK(wait->since_ns > 0 && wait->since_ns <= os_wall_ns() + 1000000000u);
      CHECK_INT(leave(lock), 0);
      CHECK_INT(party_outcome(&waiter), ends[i]);
      CHECK_INT(count_of(here.registry, waiter.pid, true), 0);
      if (i == 0) CHECK_INT(ask(&waiter, LEAVE, lock, 0), 0);
    }
  }
}

/* ---- starvation ---------------------------------------------------------------------------- */

#define TIMES (CHECK_EMULATED ? 20 : 200)
/* Far above what a turn takes. */
#define TURN_MS 60000

/* Readers that overlap all the time: each stays until another one is inside, or a writer has
 * come, which is what keeps the others out. */
static void read_for_ever(void) {
  const struct lwlock *lock = words_of(1);
  dsmr_registry_info self;
  CHECK_OK(dsmr_registry_describe(here.registry, &self, &check_error));
  uint64_t mine = UINT64_C(1) << (self.backend_id & 0xff);
  for (;;) {
    CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    while ((atomic_load(&lock->readers[0]) & ~mine) == 0 &&
           LOCK_TOKEN(atomic_load(&lock->owner)) == 0) {
      sched_yield();
    }
    CHECK_INT(leave(1), 0);
  }
}

/* Writers of which the next one is always there: each stays until somebody waits. */
static void write_for_ever(void) {
  const struct lwlock *lock = words_of(1);
  for (;;) {
    /* In the end they are killed inside, one after the other. */
    CHECK_OK(get(1, DSMR_EXCLUSIVE));
    while ((atomic_load(&lock->owner) & (LOCK_WAITERS | LOCK_STARVING)) == 0) sched_yield();
    CHECK_INT(leave(1), 0);
  }
}

static void start_many(pid_t *children, int count, uint32_t mode) {
  for (int i = 0; i < count; i++) {
    children[i] = check_fork();
    if (children[i] != 0) continue;
    place_enter(&here);
    if (mode == DSMR_SHARED) read_for_ever();
    write_for_ever();
  }
}

/*
 * What gives it its turn: who lets go of the lock does not get it again at once. The one that
 * starves is stopped, so that it cannot come first by luck. It keeps its chance for 10 ms, in
 * which we can be slow: so in one of many rounds.
 */
static void others_queue_behind_one_that_starves(void) {
  place_enter(&here);
  struct party waiter = party_start();
  for (int i = 0; i < 2; i++) {
    bool has_queued = false;
    for (int round = 0; round < 1000 && !has_queued; round++) {
      CHECK_INT(get(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
      stop_starving_one(&waiter, modes[i], -1);
      CHECK_INT(leave(1), 0);
      has_queued = dsmr_lock_try(here.locks[1], DSMR_EXCLUSIVE) == DSMR_LOCK_BUSY;
      if (!has_queued) CHECK_INT(leave(1), 0);
      go_on(&waiter);
      CHECK_INT(party_outcome(&waiter), DSMR_LOCK_ACQUIRED);
      CHECK_INT(ask(&waiter, LEAVE, 1, 0), 0);
    }
    CHECK(has_queued);
  }
}

/* One among many that leave it no gap. */
static void check_turns(uint32_t theirs, uint32_t mine) {
  if (CHECK_TSAN) check_skip("processes: ThreadSanitizer watches threads");
  enum { MANY = 5 };
  pid_t children[MANY];
  place_enter(&here);
  start_many(children, MANY, theirs);
  for (int i = 0; i < TIMES; i++) {
    CHECK_INT(take(here.locks[1], mine, TURN_MS), DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(1), 0);
  }
  printf("      had the lock %d times among %d that want it all the time\n", TIMES, MANY);
  for (int i = 0; i < MANY; i++) CHECK_KILL(children[i]);
}

static void writer_among_readers_that_overlap_gets_its_turn(void) {
  check_turns(DSMR_SHARED, DSMR_EXCLUSIVE);
}
static void reader_among_writers_gets_its_turn(void) { check_turns(DSMR_EXCLUSIVE, DSMR_SHARED); }
static void writer_among_writers_gets_its_turn(void) {
  check_turns(DSMR_EXCLUSIVE, DSMR_EXCLUSIVE);
}

/* ---- as many as there can be ---------------------------------------------------------------- */

static void writer_gets_a_lock_that_255_shared_holders_had(void) {
  if (CHECK_TSAN) check_skip("256 processes: ThreadSanitizer watches threads");
  if (CHECK_EMULATED) check_skip("256 processes of an emulator have no room");
  place_enter(&here);
  struct party writer = party_start();
  static struct party readers[BACKENDS - 2];
  const uint32_t count = BACKENDS - 2;
  for (uint32_t i = 0; i < count; i++) {
    readers[i] = party_start();
    CHECK_INT(ask(&readers[i], TAKE, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  }
  CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), BACKENDS - 1);
  dsmr_registry_options options = {.timeout_ms = -1};
  CHECK_FAILS(dsmr_registry_open(NAME("r"), DIRECTORY, NULL, 0, &options, &check_error),
              DSMR_E_BACKENDS_FULL);
  send_waiting(here.registry, &writer, TAKE, 1, DSMR_EXCLUSIVE);
  for (uint32_t i = 0; i < count; i++) {
    if (i % 2 == 0) CHECK_KILL(readers[i].pid);
    else CHECK_INT(ask(&readers[i], LEAVE, 1, 0), 0);
  }
  struct pollfd answer = {writer.answers, POLLIN, 0};
  CHECK_INT(poll(&answer, 1, 0), 0); /* we are still inside */
  CHECK_INT(leave(1), 0);
  CHECK_INT(party_outcome(&writer), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&writer, STATE, 1, 0), 2 + 8);
  CHECK_INT(dsmr_locks(here.registry, NULL, 0, &check_error), 1);
}

/* ---- tranches, and many locks ------------------------------------------------------------------ */

static uint64_t abandonments(const char *tranche) {
  dsmr_tranche_info infos[8];
  int32_t count = CHECK_OK(dsmr_tranches(here.registry, infos, 8, &check_error));
  for (int32_t i = 0; i < count && i < 8; i++) {
    if (strcmp(infos[i].name, tranche) == 0) return infos[i].abandoned;
  }
  return UINT64_MAX;
}

static void leaving_while_inside_is_counted_as_an_abandonment(void) {
  place_enter(&here);
  static const enum what ways[] = {DETACH, CLOSE, END_THREAD};
  for (uint64_t i = 0; i < 3; i++) {
    for (uint32_t lock = 0; lock < 2; lock++) {
      struct party party = party_start();
      const char *tranche = lock == 0 ? "s" : "kind";
      CHECK_INT(abandonments(tranche), 2 * i);
      if (ways[i] != END_THREAD) {
        CHECK_INT(ask(&party, TAKE, lock, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
        /* Shared, it abandons nothing. */
        CHECK_INT(ask(&party, TAKE, 2 + lock, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
      }
      CHECK_INT(ask(&party, ways[i], lock, 0), 0);
      CHECK_INT(get(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ABANDONED);
      CHECK_INT(abandonments(tranche), 2 * i + 1);
      /* A killed one counts alike. */
      CHECK_INT(dsmr_lock_mark_consistent(here.locks[lock]), 0);
      CHECK_INT(leave(lock), 0);
      struct party killed = party_start();
      CHECK_INT(ask(&killed, TAKE, lock, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
      CHECK_KILL(killed.pid);
      CHECK_INT(get(lock, DSMR_EXCLUSIVE), DSMR_LOCK_ABANDONED);
      CHECK_INT(dsmr_lock_mark_consistent(here.locks[lock]), 0);
      CHECK_INT(leave(lock), 0);
      CHECK_INT(abandonments(tranche), 2 * i + 2);
      CHECK_KILL(party.pid);
    }
  }
}

static void lock_is_made_anew_over_one_whose_holder_is_dead(void) {
  place_enter(&here);
  uint32_t kind = (uint32_t)CHECK_OK(dsmr_tranche_new(here.registry, NAME("t"), 0, &check_error));
  for (int i = 0; i < 2; i++) {
    struct party party = party_start();
    CHECK_INT(ask(&party, TAKE, 1, modes[i]), DSMR_LOCK_ACQUIRED);
    CHECK_FAILS(dsmr_lock_init(here.segment, 64, 0, kind, &check_error), DSMR_E_ALREADY_HELD);
    CHECK_KILL(party.pid);
    /* Nobody has come by since. */
    CHECK_OK(dsmr_lock_init(here.segment, 64, 0, kind, &check_error));
    CHECK_INT(dsmr_lock_state(here.locks[1]), 0);
    CHECK_INT(dsmr_lock_try(here.locks[1], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(1), 0);
  }
}

static void each_of_20000_locks_is_found_by_its_place(void) {
  enum { MANY = 20000 };
  uint32_t registry = check_open("many", 16, 16);
  uint32_t segment = check_create(registry, "s", 64 * MANY, 0, 0);
  uint32_t kind = (uint32_t)CHECK_OK(dsmr_tranche_new(registry, NAME("t"), 0, &check_error));
  uint32_t *handles = calloc(MANY, sizeof *handles);
  CHECK(handles != NULL);
  for (uint32_t i = 0; i < MANY; i++) {
    CHECK_FAILS(dsmr_lock_at(segment, 64 * i, 0, &check_error), DSMR_E_CORRUPT);
    CHECK_OK(dsmr_lock_init(segment, 64 * i, 0, kind, &check_error));
    handles[i] = (uint32_t)CHECK_OK(dsmr_lock_at(segment, 64 * i, 0, &check_error));
  }
  const char *bytes = dsmr_segment_address(segment);
  for (uint32_t i = 0; i < MANY; i++) {
    uint32_t at = i * 7919 % MANY;
    CHECK_INT(dsmr_lock_at(segment, 64 * at, 0, &check_error), handles[at]);
    CHECK_INT(take(handles[at], DSMR_EXCLUSIVE, -1), DSMR_LOCK_ACQUIRED);
    CHECK(((const struct lwlock *)(const void *)(bytes + 64 * at))->owner != 0);
    CHECK_INT(dsmr_lock_release(handles[at]), 0);
  }
  /* Again after all of them have gone. */
  CHECK_OK(dsmr_segment_detach(segment));
  for (uint32_t i = 0; i < MANY; i += 1000) CHECK(dsmr_lock_try(handles[i], DSMR_SHARED) < 0);
  CHECK_OK(dsmr_registry_close(registry));
}

static const struct check_test tests[] = {
    TEST(stopped_waiter_keeps_nobody_from_a_free_lock),
    TEST(stopped_waiter_with_a_timeout_gets_it_or_the_timeout),
    TEST(waiter_that_never_calls_again_keeps_nobody_out),
    TEST(writer_stopped_while_it_waits_for_readers_is_a_holder),
    TEST(cycle_through_any_kind_of_wait_gives_deadlock_to_exactly_one),
    TEST(wait_whose_variable_has_changed_closes_no_cycle),
    TEST(every_kind_of_wait_is_listed_until_it_ends),
    TEST(others_queue_behind_one_that_starves),
    TEST(writer_among_readers_that_overlap_gets_its_turn),
    TEST(reader_among_writers_gets_its_turn),
    TEST(writer_among_writers_gets_its_turn),
    TEST(writer_gets_a_lock_that_255_shared_holders_had),
    TEST(leaving_while_inside_is_counted_as_an_abandonment),
    TEST(lock_is_made_anew_over_one_whose_holder_is_dead),
    TEST(each_of_20000_locks_is_found_by_its_place),
};
CHECK_MAIN(tests)

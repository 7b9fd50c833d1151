/*
 * lock_kill_test.c - kill -9 at every instruction of every operation on a lock.
 *
 * As kill_test.c, for locks; but the world is a registry that lives through all the deaths of
 * one operation, with survivors in it (survivors.h). After each death: who was inside still is,
 * and keeps others out; who waited comes in; anybody can have the lock in each mode; the lock
 * is told to be abandoned if the dead one was inside and else not; and lock, slots and tables
 * are as if the dead one had never been.
 *
 * The hardest race is the one between a mark in the lock and the journal's record of it: a
 * child that dies with a mark and no record leaves it for ever.
 *
 * Waiting takes time, and a path that depends on time is not walked twice. So in the child
 * the monotonic clock is our own: it advances by a fixed step each time it is looked at, and
 * lies in the past, so that a sleep until some time of it ends at once.
 *
 * By default every instruction of the library is tried, where it is executed for the first and
 * for the last time; those next to a system call; and every 61st of the others. DSMR_KILL_ALL=1
 * tries all.
 */
#include "killing.h"

#if TRACER_WORKS

#include "survivors.h"

#include "claim.h"
#include "journal.h"

/* ---- what the operations start from, and they themselves ---------------------------------- */

/* Between these two a death leaves the data half done, so it must be told. */
static void begin_change(void) { atomic_store(data_of(&mine, HALF_DONE), 1); }
static void end_change(void) { atomic_store(data_of(&mine, HALF_DONE), 0); }

static void prepare_nothing(void) {}
static void prepare_place(void) { place_enter(&mine); }

static void prepare_shared(void) {
  place_enter(&mine);
  take_mine(MAIN, DSMR_SHARED, DSMR_LOCK_ACQUIRED);
}

static void prepare_exclusive(void) {
  place_enter(&mine);
  take_mine(MAIN, DSMR_EXCLUSIVE, DSMR_LOCK_ACQUIRED);
  begin_change();
}

static void prepare_several(void) {
  prepare_exclusive();
  take_mine(0, DSMR_EXCLUSIVE, DSMR_LOCK_ACQUIRED);
  take_mine(2, DSMR_EXCLUSIVE, DSMR_LOCK_ACQUIRED);
  take_mine(3, DSMR_SHARED, DSMR_LOCK_ACQUIRED);
}

/* Comes in by a bit and, if there is BIAS, sees it: from then on it comes in by its mark. */
static void learn_bias(void) {
  take_mine(MAIN, DSMR_SHARED, DSMR_LOCK_ACQUIRED);
  CHECK_OK(dsmr_lock_release(mine.locks[MAIN]));
}

/* In the child. */
static struct claim *own_claim(void) {
  struct claim *claim = NULL;
  CHECK_OK(claim_find(mine.locks[MAIN], &claim));
  return claim;
}

static void prepare_biased(void) {
  place_enter(&mine);
  learn_bias();
}

static void prepare_marked(void) {
  prepare_biased();
  take_mine(MAIN, DSMR_SHARED, DSMR_LOCK_ACQUIRED);
  CHECK_INT(atomic_load(own_claim()->mark), own_claim()->record | LWLOCK_SHARED);
}

/* It believes that the lock is BIASed, and that is over. */
static void prepare_believing(void) {
  prepare_biased();
  take_mine(MAIN, DSMR_EXCLUSIVE, DSMR_LOCK_ACQUIRED);
  CHECK_OK(dsmr_lock_release(mine.locks[MAIN]));
  CHECK_INT(atomic_load(&own_claim()->lock->owner), 0);
}

/* Letting go beside the keeper once more, it sets BIAS. */
static void prepare_meetings(void) {
  place_enter(&mine);
  for (uint32_t i = 1; i < SLOTS; i++) learn_bias();
  take_mine(MAIN, DSMR_SHARED, DSMR_LOCK_ACQUIRED);
  CHECK_INT(atomic_load(&own_claim()->lock->owner), 0);
}

/* A process that dies inside the lock. */
static void leave_dead(uint32_t mode) {
  pid_t child = check_fork();
  if (child == 0) {
    clock_ns = 0;
    place_enter(&mine);
    /* NULL: while warming up. */
    if (operation != NULL && operation->is_biased && mode == DSMR_SHARED) learn_bias();
    take_mine(MAIN, mode, DSMR_LOCK_ACQUIRED);
    if (mode == DSMR_EXCLUSIVE) begin_change();
    _exit(0);
  }
  CHECK_CHILD(child);
}

/* The lock is abandoned, and nobody is inside. */
static void prepare_abandoned(void) {
  leave_dead(DSMR_EXCLUSIVE);
  place_enter(&mine);
}

static void prepare_inside_abandoned(void) {
  prepare_abandoned();
  take_mine(MAIN, DSMR_EXCLUSIVE, DSMR_LOCK_ABANDONED);
}

static void acquire(uint32_t mode, int32_t timeout_ms, int32_t outcome) {
  CHECK_INT(take(mine.locks[MAIN], mode, timeout_ms), outcome);
  if (mode == DSMR_EXCLUSIVE && outcome >= 0) begin_change();
}

static void attempt(uint32_t mode, int32_t outcome) {
  CHECK_INT(dsmr_lock_try(mine.locks[MAIN], mode), outcome);
  if (mode == DSMR_EXCLUSIVE && outcome < DSMR_LOCK_BUSY) begin_change();
}

static void act_open(void) { mine.registry = check_open("r", 16, 16); }
static void act_acquire_exclusive(void) { acquire(DSMR_EXCLUSIVE, -1, DSMR_LOCK_ACQUIRED); }
static void act_acquire_abandoned(void) { acquire(DSMR_EXCLUSIVE, 2, DSMR_LOCK_ABANDONED); }
static void act_acquire_shared(void) { acquire(DSMR_SHARED, -1, DSMR_LOCK_ACQUIRED); }
static void act_acquire_soon(void) { acquire(DSMR_EXCLUSIVE, 2, DSMR_LOCK_ACQUIRED); }
static void act_share_soon(void) { acquire(DSMR_SHARED, 2, DSMR_LOCK_ACQUIRED); }
static void act_time_out_soon(void) { acquire(DSMR_EXCLUSIVE, 2, DSMR_E_TIMEOUT); }
static void act_time_out_exclusive(void) { acquire(DSMR_EXCLUSIVE, 40, DSMR_E_TIMEOUT); }
static void act_time_out_shared(void) { acquire(DSMR_SHARED, 40, DSMR_E_TIMEOUT); }
static void act_try_exclusive(void) { attempt(DSMR_EXCLUSIVE, DSMR_LOCK_ACQUIRED); }
static void act_try_shared(void) { attempt(DSMR_SHARED, DSMR_LOCK_ACQUIRED); }
static void act_fail_exclusive(void) { attempt(DSMR_EXCLUSIVE, DSMR_LOCK_BUSY); }
static void act_fail_shared(void) { attempt(DSMR_SHARED, DSMR_LOCK_BUSY); }

static void act_release_shared(void) { CHECK_OK(dsmr_lock_release(mine.locks[MAIN])); }

static void act_release_abandoned(void) { CHECK_OK(dsmr_lock_release(mine.locks[MAIN])); }

static void act_release_exclusive(void) {
  end_change();
  CHECK_OK(dsmr_lock_release(mine.locks[MAIN]));
}

static void act_mark(void) {
  end_change();
  CHECK_OK(dsmr_lock_mark_consistent(mine.locks[MAIN]));
  CHECK_OK(dsmr_lock_release(mine.locks[MAIN]));
}

static void act_update(void) {
  uint64_t value = NEW_VALUE;
  end_change();
  CHECK_OK(dsmr_lock_update_variable(mine.locks[MAIN], 0, 0, &value, 1));
}

static void act_release_all(void) {
  end_change();
  CHECK_INT(dsmr_lock_release_all(mine.registry), 4);
}

static void act_acquire_or_wait(void) {
  uint64_t started = 0;
  CHECK_FAILS(dsmr_lock_acquire_or_wait(mine.locks[MAIN], &started, 15), DSMR_E_TIMEOUT);
}

static void act_watch(void) {
  uint64_t started = 0;
  uint64_t value = 0;
  CHECK_FAILS(dsmr_lock_wait_for_variable(mine.locks[MAIN], 0, 0, &value, &started, 15),
              DSMR_E_TIMEOUT);
}

/*
 * As dsmr_lock_watch, but for the watch itself: that is memory of the process alone, and the
 * thread that it starts would run into the tracer's breakpoints, untraced.
 */
static void watch_main(uint32_t mode, int32_t wanted) {
  struct claim *claim = NULL;
  int32_t outcome;
  CHECK_OK(claim_find(mine.locks[MAIN], &claim));
  CHECK(journal_reserve(claim));
  do {
    struct os_futex_wait_on words[LWLOCK_WORDS_MAX];
    uint32_t count = 0;
    outcome = lwlock_watch(claim, (enum lwlock_mode)mode, words, &count);
    if (outcome == LWLOCK_DEAD) CHECK_OK(claim_clear_the_dead(claim));
    CHECK(count > 0 || outcome != LWLOCK_BUSY);
  } while (outcome == LWLOCK_DEAD);
  CHECK_INT(outcome, wanted);
  if (mode == DSMR_EXCLUSIVE && outcome < LWLOCK_BUSY) begin_change();
}

static void let_keeper_leave(void) {
  atomic_store(asked, 1);
  (void)os_futex_wake(asked, 1);
  while (atomic_load(asked) != 2) os_futex_wait(asked, 1, 1000000000);
}

static void act_watch_exclusive(void) { watch_main(DSMR_EXCLUSIVE, LWLOCK_BUSY); }
static void act_watch_shared(void) { watch_main(DSMR_SHARED, LWLOCK_BUSY); }
static void act_watch_and_get(void) { watch_main(DSMR_EXCLUSIVE, LWLOCK_ACQUIRED); }
static void act_watch_and_share(void) { watch_main(DSMR_SHARED, LWLOCK_ACQUIRED); }
static void act_watch_and_be_told(void) { watch_main(DSMR_EXCLUSIVE, LWLOCK_ACQUIRED_ABANDONED); }
static void act_cancel(void) { CHECK_OK(dsmr_lock_cancel(mine.locks[MAIN])); }

/* The clock goes on by more than it takes to starve. */
static void act_starve(void) {
  watch_main(DSMR_EXCLUSIVE, LWLOCK_BUSY);
  watch_main(DSMR_EXCLUSIVE, LWLOCK_BUSY);
}

static void prepare_watched(void) {
  place_enter(&mine);
  watch_main(DSMR_EXCLUSIVE, LWLOCK_BUSY);
  if (operation->leaves != 0) let_keeper_leave();
}

static void prepare_watched_shared(void) {
  place_enter(&mine);
  watch_main(DSMR_SHARED, LWLOCK_BUSY);
  if (operation->leaves != 0) let_keeper_leave();
}

static void prepare_starving(void) {
  place_enter(&mine);
  watch_main(DSMR_EXCLUSIVE, LWLOCK_BUSY);
  (void)poll(NULL, 0, 5);
  watch_main(DSMR_EXCLUSIVE, LWLOCK_BUSY);
  const struct lwlock *lock = dsmr_segment_address(mine.segment);
  CHECK(LOCK_TOKEN(atomic_load(&lock[MAIN].starving)) != 0);
  if (operation->leaves != 0) let_keeper_leave();
}

static void act_detach(void) { CHECK_OK(dsmr_segment_detach(mine.segment)); }
static void act_close(void) { CHECK_OK(dsmr_registry_close(mine.registry)); }

/* ---- lives ---------------------------------------------------------------------------------- */

static void prepare_child(void) {
  operation->prepare();
  stop_clock();
}

static uint32_t live_once(const void *which, struct killing *killing) {
  operation = which;
  atomic_store(asked, 0);
  /* That somebody sleeps here stays said when it has died. The same path for each child. */
  atomic_store(&lock_of(MAIN)->drain, 0);
  atomic_store(&lock_of(MAIN)->events, 0);
  if (operation->is_biased) {
    /* As lwlock_leave_readers does it. */
    uint32_t free = 0;
    CHECK(atomic_compare_exchange_strong(&lock_of(MAIN)->owner, &free, LOCK_BIAS));
    CHECK_INT(ask(&keeper, PASS, MAIN, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  }
  if (operation->keeper != 0) {
    CHECK_INT(ask(&keeper, TAKE, MAIN, operation->keeper), DSMR_LOCK_ACQUIRED);
    if (operation->leaves != 0) {
      party_send(&keeper,
                 (struct order){LEAVE_WHEN_ASKED, MAIN, 0, (uint64_t)(uintptr_t)asked});
    }
  }
  pid_t child = killing_start(prepare_child, operation->act);
  if (operation->dead != 0) leave_dead(operation->dead);
  send_waiter();
  killing_end(killing, child);
  return survive(killing->point % 32 != 0);
}

/* Runs all kinds of things once here, so that no child resolves symbols or makes its first
 * malloc. */
static void warm_up(void) {
  struct timespec now;
  CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
  place_enter(&mine);
  take_mine(MAIN, DSMR_EXCLUSIVE, DSMR_LOCK_ACQUIRED);
  CHECK_FAILS(take(here.locks[MAIN], DSMR_SHARED, 5), DSMR_E_TIMEOUT);
  act_release_shared();
  act_close();
  leave_dead(DSMR_SHARED);
  CHECK_INT(get(MAIN, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  leave(MAIN);
}

static void kill_at_every_point(const struct operation *which) {
  if (CHECK_TSAN) check_skip("single-steps children: ThreadSanitizer watches threads");
  if (killing_tries_all()) alarm(0);
  asked = check_shared(sizeof *asked);
  place_enter(&here);
  keeper = party_start();
  waiter = party_start();
  map_control();
  warm_up();
  descriptors = check_descriptors();
  killing_run(live_once, which, which->told == BEGINS || which->told == ENDS, 61, true);
  CHECK_INT(ask(&keeper, CLOSE, 0, 0), 0);
  CHECK_INT(ask(&waiter, CLOSE, 0, 0), 0);
  CHECK_OK(dsmr_registry_close(here.registry));
  CHECK_INT(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error), 1);
  CHECK_INT(check_count(check_directory, ""), 0);
}

/* ---- the operations ---------------------------------------------------------------------------- */

#define OPERATION(name, ...)                               \
  static void killed_in_##name(void) {                     \
    static const struct operation which = {__VA_ARGS__};   \
    kill_at_every_point(&which);                           \
  }

OPERATION(acquire_exclusive, prepare_place, act_acquire_exclusive, .told = BEGINS)
OPERATION(acquire_shared, prepare_place, act_acquire_shared, .keeper = DSMR_SHARED)
OPERATION(release_exclusive, prepare_exclusive, act_release_exclusive, .told = ENDS)
OPERATION(release_shared, prepare_shared, act_release_shared, .keeper = DSMR_SHARED)
OPERATION(try_exclusive, prepare_place, act_try_exclusive, .told = BEGINS)
OPERATION(try_shared, prepare_place, act_try_shared, .keeper = DSMR_SHARED)
OPERATION(try_exclusive_beside_a_reader, prepare_place, act_fail_exclusive,
          .keeper = DSMR_SHARED)
OPERATION(try_exclusive_beside_a_writer, prepare_place, act_fail_exclusive,
          .keeper = DSMR_EXCLUSIVE)
OPERATION(try_shared_beside_a_writer, prepare_place, act_fail_shared, .keeper = DSMR_EXCLUSIVE)
/* The clock is looked at 5 times before the first sleep, and once in it. */
OPERATION(acquire_that_waits_for_a_reader, prepare_place, act_acquire_exclusive,
          .keeper = DSMR_SHARED, .leaves = 9, .told = BEGINS)
OPERATION(acquire_that_waits_for_a_writer, prepare_place, act_acquire_exclusive,
          .keeper = DSMR_EXCLUSIVE, .leaves = 9, .told = BEGINS)
OPERATION(acquire_shared_that_waits_for_a_writer, prepare_place, act_acquire_shared,
          .keeper = DSMR_EXCLUSIVE, .leaves = 9)
OPERATION(acquire_that_times_out, prepare_place, act_time_out_exclusive,
          .keeper = DSMR_EXCLUSIVE)
OPERATION(acquire_that_times_out_draining, prepare_place, act_time_out_exclusive,
          .keeper = DSMR_SHARED)
OPERATION(acquire_shared_that_times_out, prepare_place, act_time_out_shared,
          .keeper = DSMR_EXCLUSIVE)
OPERATION(release_exclusive_to_a_writer, prepare_exclusive, act_release_exclusive,
          .waiter = {.what = TAKE, .mode = DSMR_EXCLUSIVE}, .told = ENDS)
OPERATION(release_exclusive_to_a_reader, prepare_exclusive, act_release_exclusive,
          .waiter = {.what = TAKE, .mode = DSMR_SHARED}, .told = ENDS)
OPERATION(release_exclusive_to_who_only_waits, prepare_exclusive, act_release_exclusive,
          .waiter = {.what = OR_WAIT, .mode = DSMR_EXCLUSIVE}, .told = ENDS)
OPERATION(release_shared_to_a_writer, prepare_shared, act_release_shared,
          .waiter = {.what = TAKE, .mode = DSMR_EXCLUSIVE})
OPERATION(release_shared_to_a_writer_beside_a_reader, prepare_shared, act_release_shared,
          .keeper = DSMR_SHARED, .waiter = {.what = TAKE, .mode = DSMR_EXCLUSIVE})
OPERATION(acquire_that_is_told, prepare_abandoned, act_acquire_abandoned, .told = ALWAYS)
OPERATION(release_of_an_abandoned_one, prepare_inside_abandoned, act_release_abandoned,
          .told = ALWAYS)
OPERATION(mark_consistent, prepare_inside_abandoned, act_mark, .told = ENDS)
OPERATION(update_of_a_variable, prepare_exclusive, act_update,
          .waiter = {.what = WATCH, .mode = DSMR_EXCLUSIVE}, .told = ENDS, .updates = true)
OPERATION(wait_for_a_variable, prepare_place, act_watch, .keeper = DSMR_EXCLUSIVE)
OPERATION(acquire_or_wait, prepare_place, act_acquire_or_wait, .keeper = DSMR_EXCLUSIVE)
OPERATION(release_all, prepare_several, act_release_all, .told = ENDS,
          .has_several = true)
OPERATION(detach_inside, prepare_several, act_detach, .told = ALWAYS,
          .has_several = true)
OPERATION(detach_inside_shared, prepare_shared, act_detach, .keeper = DSMR_SHARED)
OPERATION(close_inside, prepare_several, act_close, .told = ALWAYS,
          .has_several = true)
OPERATION(close_inside_shared, prepare_shared, act_close, .keeper = DSMR_SHARED)
OPERATION(acquire_that_reaps_a_writer, prepare_place, act_acquire_abandoned,
          .dead = DSMR_EXCLUSIVE, .told = ALWAYS)
OPERATION(acquire_shared_that_reaps_a_writer, prepare_place, act_share_soon,
          .dead = DSMR_EXCLUSIVE, .told = ALWAYS)
OPERATION(acquire_that_reaps_a_reader, prepare_place, act_acquire_soon, .dead = DSMR_SHARED,
          .told = BEGINS)
OPERATION(acquire_that_reaps_beside_a_reader, prepare_place, act_time_out_soon,
          .keeper = DSMR_SHARED, .dead = DSMR_SHARED)
OPERATION(open_that_reaps_a_writer, prepare_nothing, act_open, .dead = DSMR_EXCLUSIVE,
          .told = ALWAYS)
OPERATION(open_that_reaps_a_reader, prepare_nothing, act_open, .keeper = DSMR_SHARED,
          .dead = DSMR_SHARED)

/* Waiting without blocking. Where the keeper leaves, it has done so before the child acts. */
#define BEFORE UINT32_MAX
OPERATION(watch_behind_a_writer, prepare_place, act_watch_exclusive, .keeper = DSMR_EXCLUSIVE)
OPERATION(watch_behind_a_reader, prepare_place, act_watch_exclusive, .keeper = DSMR_SHARED)
OPERATION(watch_shared_behind_a_writer, prepare_place, act_watch_shared,
          .keeper = DSMR_EXCLUSIVE)
OPERATION(watch_that_starves, prepare_place, act_starve, .keeper = DSMR_EXCLUSIVE)
OPERATION(watch_that_reaps_a_writer, prepare_place, act_watch_and_be_told,
          .dead = DSMR_EXCLUSIVE, .told = ALWAYS)
OPERATION(watch_that_reaps_a_reader, prepare_place, act_watch_and_get, .dead = DSMR_SHARED,
          .told = BEGINS)
OPERATION(second_watch_after_a_writer, prepare_watched, act_watch_and_get,
          .keeper = DSMR_EXCLUSIVE, .leaves = BEFORE, .told = BEGINS)
OPERATION(second_watch_after_a_reader, prepare_watched, act_watch_and_get,
          .keeper = DSMR_SHARED, .leaves = BEFORE, .told = BEGINS)
OPERATION(second_watch_shared, prepare_watched_shared, act_watch_and_share,
          .keeper = DSMR_EXCLUSIVE, .leaves = BEFORE)
OPERATION(second_watch_of_one_that_starves, prepare_starving, act_watch_and_get,
          .keeper = DSMR_EXCLUSIVE, .leaves = BEFORE, .told = BEGINS)
OPERATION(cancel_watched, prepare_watched, act_cancel, .keeper = DSMR_EXCLUSIVE)
OPERATION(cancel_watched_draining, prepare_watched, act_cancel, .keeper = DSMR_SHARED)
OPERATION(cancel_watched_starving, prepare_starving, act_cancel, .keeper = DSMR_EXCLUSIVE)
OPERATION(cancel_watched_starving_before_a_writer, prepare_starving, act_cancel,
          .keeper = DSMR_EXCLUSIVE, .waiter = {.what = TAKE, .mode = DSMR_EXCLUSIVE})
OPERATION(detach_watched_draining, prepare_watched, act_detach, .keeper = DSMR_SHARED)
OPERATION(detach_watched_starving, prepare_starving, act_detach, .keeper = DSMR_EXCLUSIVE)
OPERATION(close_watched_draining, prepare_watched, act_close, .keeper = DSMR_SHARED)
OPERATION(close_watched_starving, prepare_starving, act_close, .keeper = DSMR_EXCLUSIVE)

/* A lock that is BIASed: readers come in by their marks. */
OPERATION(marked_acquire, prepare_biased, act_acquire_shared, .is_biased = true)
OPERATION(marked_acquire_beside_a_mark, prepare_biased, act_acquire_shared,
          .keeper = DSMR_SHARED, .is_biased = true)
OPERATION(marked_acquire_in_vain, prepare_believing, act_acquire_shared, .is_biased = true)
OPERATION(marked_try, prepare_biased, act_try_shared, .is_biased = true)
OPERATION(marked_release, prepare_marked, act_release_shared, .is_biased = true)
OPERATION(marked_release_to_a_writer, prepare_marked, act_release_shared,
          .waiter = {.what = TAKE, .mode = DSMR_EXCLUSIVE}, .is_biased = true)
OPERATION(marked_release_to_a_writer_beside_a_mark, prepare_marked, act_release_shared,
          .keeper = DSMR_SHARED, .waiter = {.what = TAKE, .mode = DSMR_EXCLUSIVE},
          .is_biased = true)
OPERATION(setting_bias, prepare_meetings, act_release_shared, .keeper = DSMR_SHARED)
OPERATION(acquire_that_ends_bias, prepare_place, act_acquire_exclusive, .told = BEGINS,
          .is_biased = true)
OPERATION(try_that_ends_bias, prepare_place, act_try_exclusive, .told = BEGINS,
          .is_biased = true)
OPERATION(try_beside_a_mark, prepare_place, act_fail_exclusive, .keeper = DSMR_SHARED,
          .is_biased = true)
OPERATION(acquire_that_waits_for_a_mark, prepare_place, act_acquire_exclusive,
          .keeper = DSMR_SHARED, .leaves = 9, .told = BEGINS, .is_biased = true)
OPERATION(acquire_that_times_out_before_a_mark, prepare_place, act_time_out_exclusive,
          .keeper = DSMR_SHARED, .is_biased = true)
OPERATION(acquire_that_reaps_a_mark, prepare_place, act_acquire_soon, .dead = DSMR_SHARED,
          .told = BEGINS, .is_biased = true)
OPERATION(open_that_reaps_a_mark, prepare_nothing, act_open, .keeper = DSMR_SHARED,
          .dead = DSMR_SHARED, .is_biased = true)
OPERATION(detach_marked, prepare_marked, act_detach, .keeper = DSMR_SHARED, .is_biased = true)
OPERATION(close_marked, prepare_marked, act_close, .is_biased = true)
OPERATION(watch_behind_a_mark, prepare_place, act_watch_exclusive, .keeper = DSMR_SHARED,
          .is_biased = true)
OPERATION(cancel_watched_behind_a_mark, prepare_watched, act_cancel, .keeper = DSMR_SHARED,
          .is_biased = true)

#define KILLED_IN(name) {"killed_in_" #name, killed_in_##name}

static const struct check_test tests[] = {
    KILLED_IN(acquire_exclusive),
    KILLED_IN(acquire_shared),
    KILLED_IN(release_exclusive),
    KILLED_IN(release_shared),
    KILLED_IN(try_exclusive),
    KILLED_IN(try_shared),
    KILLED_IN(try_exclusive_beside_a_reader),
    KILLED_IN(try_exclusive_beside_a_writer),
    KILLED_IN(try_shared_beside_a_writer),
    KILLED_IN(acquire_that_waits_for_a_reader),
    KILLED_IN(acquire_that_waits_for_a_writer),
    KILLED_IN(acquire_shared_that_waits_for_a_writer),
    KILLED_IN(acquire_that_times_out),
    KILLED_IN(acquire_that_times_out_draining),
    KILLED_IN(acquire_shared_that_times_out),
    KILLED_IN(release_exclusive_to_a_writer),
    KILLED_IN(release_exclusive_to_a_reader),
    KILLED_IN(release_exclusive_to_who_only_waits),
    KILLED_IN(release_shared_to_a_writer),
    KILLED_IN(release_shared_to_a_writer_beside_a_reader),
    KILLED_IN(acquire_that_is_told),
    KILLED_IN(release_of_an_abandoned_one),
    KILLED_IN(mark_consistent),
    KILLED_IN(update_of_a_variable),
    KILLED_IN(wait_for_a_variable),
    KILLED_IN(acquire_or_wait),
    KILLED_IN(release_all),
    KILLED_IN(detach_inside),
    KILLED_IN(detach_inside_shared),
    KILLED_IN(close_inside),
    KILLED_IN(close_inside_shared),
    KILLED_IN(acquire_that_reaps_a_writer),
    KILLED_IN(acquire_shared_that_reaps_a_writer),
    KILLED_IN(acquire_that_reaps_a_reader),
    KILLED_IN(acquire_that_reaps_beside_a_reader),
    KILLED_IN(open_that_reaps_a_writer),
    KILLED_IN(open_that_reaps_a_reader),
    KILLED_IN(watch_behind_a_writer),
    KILLED_IN(watch_behind_a_reader),
    KILLED_IN(watch_shared_behind_a_writer),
    KILLED_IN(watch_that_starves),
    KILLED_IN(watch_that_reaps_a_writer),
    KILLED_IN(watch_that_reaps_a_reader),
    KILLED_IN(second_watch_after_a_writer),
    KILLED_IN(second_watch_after_a_reader),
    KILLED_IN(second_watch_shared),
    KILLED_IN(second_watch_of_one_that_starves),
    KILLED_IN(cancel_watched),
    KILLED_IN(cancel_watched_draining),
    KILLED_IN(cancel_watched_starving),
    KILLED_IN(cancel_watched_starving_before_a_writer),
    KILLED_IN(detach_watched_draining),
    KILLED_IN(detach_watched_starving),
    KILLED_IN(close_watched_draining),
    KILLED_IN(close_watched_starving),
    KILLED_IN(marked_acquire),
    KILLED_IN(marked_acquire_beside_a_mark),
    KILLED_IN(marked_acquire_in_vain),
    KILLED_IN(marked_try),
    KILLED_IN(marked_release),
    KILLED_IN(marked_release_to_a_writer),
    KILLED_IN(marked_release_to_a_writer_beside_a_mark),
    KILLED_IN(setting_bias),
    KILLED_IN(acquire_that_ends_bias),
    KILLED_IN(try_that_ends_bias),
    KILLED_IN(try_beside_a_mark),
    KILLED_IN(acquire_that_waits_for_a_mark),
    KILLED_IN(acquire_that_times_out_before_a_mark),
    KILLED_IN(acquire_that_reaps_a_mark),
    KILLED_IN(open_that_reaps_a_mark),
    KILLED_IN(detach_marked),
    KILLED_IN(close_marked),
    KILLED_IN(watch_behind_a_mark),
    KILLED_IN(cancel_watched_behind_a_mark),
};

int main(int argc, char **argv) {
  const char *which = "killing at every instruction of the library, the first and the last "
                      "time, at system calls, and at every 61st other; DSMR_KILL_ALL=1 for all";
  if (KILLING_SAMPLES) which = "killing at system calls and at a sample of the instructions";
  if (killing_tries_all()) which = "killing at every instruction";
  printf("%s\n", which);
  return check_run(tests, sizeof tests / sizeof tests[0], argc, argv);
}

#else

static void killed_at_every_instruction(void) {
  check_skip("single-stepping is written for Linux on x86-64");
}
static const struct check_test tests[] = {TEST(killed_at_every_instruction)};
CHECK_MAIN(tests)

#endif

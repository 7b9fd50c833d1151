/*
 * lock_bias_test.c - locks that are BIASed: readers that mark themselves in their own slots, and
 * writers that have to look for them there.
 */
#include "party.h"

#include "claim.h"
#include "layout.h"

#include <poll.h>

static struct place here;

static int32_t leave(uint32_t lock) { return dsmr_lock_release(here.locks[lock]); }
static int32_t attempt(uint32_t lock, uint32_t mode) {
  return dsmr_lock_try(here.locks[lock], mode);
}
static int32_t get(uint32_t lock, uint32_t mode) { return take(here.locks[lock], mode, -1); }

static struct claim *claim_of(uint32_t lock) {
  struct claim *claim = NULL;
  CHECK_OK(claim_find(here.locks[lock], &claim));
  return claim;
}
static uint32_t owner_of(uint32_t lock) { return atomic_load(&claim_of(lock)->lock->owner); }
static uint64_t bits_of(uint32_t lock) { return atomic_load(&claim_of(lock)->lock->readers[0]); }

/* Whether this process's mark is in its slot. */
static bool is_marked(uint32_t lock) {
  return atomic_load(claim_of(lock)->mark) == (claim_of(lock)->record | LWLOCK_SHARED);
}

/* As lwlock_leave_readers does it; and everybody has seen it. */
static void bias(uint32_t lock, const struct party *parties, uint32_t count) {
  uint32_t nobody = 0;
  CHECK(atomic_compare_exchange_strong(&claim_of(lock)->lock->owner, &nobody, LOCK_BIAS));
  CHECK_INT(get(lock, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(leave(lock), 0);
  for (uint32_t i = 0; i < count; i++) {
    CHECK_INT(ask(&parties[i], PASS, lock, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  }
}

/* ---- coming and going ------------------------------------------------------------------------ */

static void readers_that_meet_again_and_again_set_it_and_a_writer_ends_it(void) {
  place_enter(&here);
  struct party a = party_start();
  /* The first time a lock is given its cell of the journal, and counts nothing. */
  CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(leave(1), 0);
  CHECK_INT(ask(&a, TAKE, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  uint32_t pairs = 0;
  for (; owner_of(1) == 0; pairs++) {
    CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(1), 0);
    CHECK(pairs < 100000);
  }
  CHECK_INT(pairs, BACKENDS);
  CHECK_INT(owner_of(1), LOCK_BIAS);
  /* Once more by the bit, to see it; then by the mark alone. */
  uint64_t others = bits_of(1);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(is_marked(1), i > 0);
    CHECK_INT(bits_of(1) != others, i == 0);
    CHECK_INT(dsmr_lock_state(here.locks[1]), 1 + 16);
    CHECK_INT(leave(1), 0);
    CHECK_INT(is_marked(1), false);
  }
  CHECK_INT(attempt(1, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
  CHECK_INT(owner_of(1), LOCK_BIAS);
  CHECK_INT(ask(&a, LEAVE, 1, 0), 0);
  CHECK_INT(attempt(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&a, TRY, 1, DSMR_SHARED), DSMR_LOCK_BUSY);
  CHECK_INT(leave(1), 0);
  CHECK_INT(owner_of(1), 0);
  /* It has not noticed yet. */
  CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(is_marked(1), false);
}

static void reader_alone_and_writers_never_set_it(void) {
  place_enter(&here);
  for (uint32_t i = 0; i < 64 * BACKENDS; i++) {
    CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(1), 0);
    CHECK_INT(get(2, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(2), 0);
  }
  CHECK_INT(owner_of(1), 0);
  CHECK_INT(owner_of(2), 0);
}

static void writer_waits_for_marks_and_keeps_new_ones_out(void) {
  place_enter(&here);
  struct party others[2] = {party_start(), party_start()};
  for (uint32_t lock = 0; lock < 2; lock++) {
    bias(lock, others, 2);
    CHECK_INT(get(lock, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK(is_marked(lock));
    CHECK_INT(bits_of(lock), 0);
    CHECK_INT(ask(&others[0], TRY, lock, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
    CHECK_INT(count_of(here.registry, getpid(), false), 1);
    send_waiting(here.registry, &others[0], TAKE, lock, DSMR_EXCLUSIVE);
    CHECK_INT(ask(&others[1], TRY, lock, DSMR_SHARED), DSMR_LOCK_BUSY);
    CHECK_INT(leave(lock), 0);
    CHECK_INT(party_outcome(&others[0]), DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(&others[0], STATE, lock, 0), 2 + 8);
    CHECK_INT(attempt(lock, DSMR_SHARED), DSMR_LOCK_BUSY);
    CHECK_INT(ask(&others[0], LEAVE, lock, 0), 0);
    CHECK_INT(owner_of(lock), 0);
  }
}

static void writer_that_gives_up_leaves_the_marks_to_the_next(void) {
  place_enter(&here);
  struct party others[2] = {party_start(), party_start()};
  bias(1, others, 2);
  CHECK_INT(ask(&others[0], TAKE, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(bits_of(1), 0);
  CHECK_INT(take(here.locks[1], DSMR_EXCLUSIVE, 5), DSMR_E_TIMEOUT);
  CHECK((owner_of(1) & LOCK_BIAS) != 0);
  CHECK_INT(ask(&others[1], TRY, 1, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
  CHECK_INT(take(here.locks[1], DSMR_EXCLUSIVE, 5), DSMR_E_TIMEOUT);
  CHECK_INT(ask(&others[1], TRY, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&others[1], LEAVE, 1, 0), 0);
  CHECK_INT(ask(&others[0], LEAVE, 1, 0), 0);
  CHECK_INT(ask(&others[1], TRY, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
}

static void two_locks_with_one_cell_are_held_at_once(void) {
  place_enter(&here);
  struct party other = party_start();
  uint32_t twin = 1 + MARKS_MAX;
  CHECK_INT(claim_of(1)->mark == claim_of(twin)->mark, true);
  bias(1, &other, 1);
  bias(twin, &other, 1);
  CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(get(twin, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK(is_marked(1));
  CHECK_INT(bits_of(twin) != 0, true);
  CHECK_INT(ask(&other, TRY, 1, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
  CHECK_INT(ask(&other, TRY, twin, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
  CHECK_INT(count_of(here.registry, getpid(), false), 2);
  CHECK_INT(leave(1), 0);
  CHECK_INT(ask(&other, TRY, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&other, TRY, twin, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
  CHECK_INT(leave(twin), 0);
  CHECK_INT(ask(&other, TRY, twin, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
}

/* ---- deaths -------------------------------------------------------------------------------- */

static void killed_readers_are_taken_out_of_it(void) {
  place_enter(&here);
  struct party writer = party_start();
  for (int round = 0; round < 3; round++) {
    struct party readers[3];
    for (int i = 0; i < 3; i++) readers[i] = party_start();
    bias(1, readers, 3);
    for (int i = 0; i < 3; i++) {
      CHECK_INT(ask(&readers[i], TAKE, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    }
    CHECK_INT(bits_of(1), 0);
    if (round == 0) send_waiting(here.registry, &writer, TAKE, 1, DSMR_EXCLUSIVE);
    for (int i = 0; i < 3; i++) CHECK_KILL(readers[i].pid);
    int32_t outcome = round == 0   ? party_outcome(&writer)
                      : round == 1 ? ask(&writer, TAKE, 1, DSMR_EXCLUSIVE)
                                   : ask(&writer, TRY, 1, DSMR_EXCLUSIVE);
    CHECK_INT(outcome, DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(&writer, STATE, 1, 0), 2 + 8);
    CHECK_INT(ask(&writer, LEAVE, 1, 0), 0);
  }
}

static void killed_claimant_leaves_the_marks_to_the_next(void) {
  place_enter(&here);
  struct party others[2] = {party_start(), party_start()};
  bias(1, others, 2);
  CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK(is_marked(1));
  send_waiting(here.registry, &others[0], TAKE, 1, DSMR_EXCLUSIVE);
  CHECK_KILL(others[0].pid);
  CHECK_INT(ask(&others[1], TRY, 1, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
  send_waiting(here.registry, &others[1], TAKE, 1, DSMR_EXCLUSIVE);
  CHECK_INT(leave(1), 0);
  CHECK_INT(party_outcome(&others[1]), DSMR_LOCK_ACQUIRED);
}

static void leaving_while_marked_lets_go(void) {
  place_enter(&here);
  enum what ways[3] = {LEAVE_ALL, DETACH, CLOSE};
  for (int i = 0; i < 3; i++) {
    struct party reader = party_start();
    bias(1, &reader, 1);
    CHECK_INT(ask(&reader, TAKE, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(bits_of(1), 0);
    CHECK_INT(attempt(1, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
    CHECK_OK(ask(&reader, ways[i], 1, 0));
    CHECK_INT(attempt(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(1), 0);
    CHECK_KILL(reader.pid);
  }
}

/* ---- waiting, making, damage ------------------------------------------------------------------ */

static void cycle_through_marks_gives_deadlock_to_exactly_one(void) {
  place_enter(&here);
  struct party parties[2] = {party_start(), party_start()};
  bias(1, parties, 2);
  bias(2, parties, 2);
  for (uint32_t i = 0; i < 2; i++) {
    CHECK_INT(ask(&parties[i], TAKE, 1 + i, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(bits_of(1 + i), 0);
  }
  send_waiting(here.registry, &parties[0], TAKE, 2, DSMR_EXCLUSIVE);
  party_send(&parties[1], (struct order){TAKE, 1, DSMR_EXCLUSIVE, (uint64_t)-1});
  /* Whichever of the two it is: it lets go, and the other one gets what it waits for. */
  struct pollfd answers[2] = {{parties[0].answers, POLLIN, 0}, {parties[1].answers, POLLIN, 0}};
  CHECK(poll(answers, 2, -1) >= 1);
  uint32_t told = answers[0].revents != 0 ? 0 : 1;
  CHECK_INT(party_outcome(&parties[told]), DSMR_E_DEADLOCK);
  CHECK_INT(ask(&parties[told], LEAVE, 1 + told, 0), 0);
  CHECK_INT(party_outcome(&parties[1 - told]), DSMR_LOCK_ACQUIRED);
}

static void lock_is_made_anew_only_where_no_mark_is(void) {
  place_enter(&here);
  struct party other = party_start();
  uint32_t kind =
      (uint32_t)CHECK_OK(dsmr_tranche_new(here.registry, NAME("new"), here.segment, &check_error));
  bias(1, &other, 1);
  CHECK_INT(ask(&other, TAKE, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(bits_of(1), 0);
  CHECK_FAILS(dsmr_lock_init(here.segment, 64, 0, kind, &check_error), DSMR_E_ALREADY_HELD);
  CHECK_INT(ask(&other, LEAVE, 1, 0), 0);
  CHECK_OK(dsmr_lock_init(here.segment, 64, 0, kind, &check_error));
  CHECK_INT(owner_of(1), 0);
}

/* What is in a slot that nobody has is no mark, whoever has put it there. */
static void mark_in_a_free_slot_is_none(void) {
  place_enter(&here);
  bias(1, NULL, 0);
  const struct claim *claim = claim_of(1);
  struct backend_slot *nobodys = &claim->backend->control.backends[BACKENDS - 1];
  CHECK_INT(SLOT_STATE(atomic_load(&nobodys->word)), SLOT_FREE);
  atomic_store(&nobodys->held[MARK_CELL(claim->record)], claim->record | LWLOCK_SHARED);
  CHECK_INT(attempt(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
}

/* One in our own slot would be waited for by us alone. */
static void mark_of_ours_that_we_have_not_made_is_damage(void) {
  place_enter(&here);
  bias(1, NULL, 0);
  atomic_store(claim_of(1)->mark, claim_of(1)->record | LWLOCK_SHARED);
  CHECK_FAILS(get(1, DSMR_EXCLUSIVE), DSMR_E_CORRUPT);
}

/* WAITERS stays when one that has starved comes in, shared, or gives up. */
static void waiters_flag_without_waiters_is_in_nobodys_way(void) {
  place_enter(&here);
  struct party a = party_start();
  CHECK_INT(ask(&a, TAKE, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  atomic_fetch_or(&claim_of(1)->lock->owner, LOCK_WAITERS);
  for (uint32_t i = 0; i < BACKENDS; i++) {
    CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(leave(1), 0);
  }
  CHECK_INT(owner_of(1), LOCK_BIAS | LOCK_WAITERS);
  for (int i = 0; i < 2; i++) {
    CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(is_marked(1), i > 0);
    CHECK_INT(dsmr_lock_state(here.locks[1]) & 31, 1 + 16);
    CHECK_INT(leave(1), 0);
  }
  CHECK_INT(ask(&a, LEAVE, 1, 0), 0);
  CHECK_INT(attempt(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
}

static void bias_on_a_lock_that_is_claimed_lets_no_reader_in(void) {
  place_enter(&here);
  struct party other = party_start();
  bias(1, &other, 1);
  CHECK_INT(get(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  /* Nothing of ours sets it now; damage may. */
  atomic_fetch_or(&claim_of(1)->lock->owner, LOCK_BIAS);
  CHECK_INT(ask(&other, TRY, 1, DSMR_SHARED), DSMR_LOCK_BUSY);
  CHECK_INT(leave(1), 0);
  CHECK_INT(ask(&other, TRY, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  CHECK_INT(attempt(1, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
}

/* ---- everybody at once ------------------------------------------------------------------------ */

enum { WRITES = CHECK_EMULATED ? 20 : 400, READERS = 4, WRITERS = 2 };

/* Two numbers that are the same whenever nobody is inside exclusively; and what came of it. */
struct record {
  _Atomic uint64_t a, b;
  _Atomic uint64_t by_marks, by_bits, writes;
};

static void read_it(struct record *record) {
  place_enter(&here);
  struct claim *claim = claim_of(1);
  for (int i = 0; atomic_load(&record->writes) < WRITES; i++) {
    CHECK_INT(get(1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    if (i % 64 == 0) sched_yield();
    uint64_t a = atomic_load_explicit(&record->a, memory_order_relaxed);
    CHECK_INT(atomic_load_explicit(&record->b, memory_order_relaxed), a);
    atomic_fetch_add(claim->is_marked ? &record->by_marks : &record->by_bits, 1);
    CHECK_INT(leave(1), 0);
  }
}

static void write_it(struct record *record) {
  place_enter(&here);
  while (atomic_load(&record->writes) < WRITES) {
    CHECK_INT(get(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    uint64_t a = atomic_load_explicit(&record->a, memory_order_relaxed) + 1;
    atomic_store_explicit(&record->a, a, memory_order_relaxed);
    sched_yield();
    atomic_store_explicit(&record->b, a, memory_order_relaxed);
    CHECK_INT(leave(1), 0);
    atomic_fetch_add(&record->writes, 1);
    /* Until some have come in by their marks again; but not for ever. */
    uint64_t marks = atomic_load(&record->by_marks) + 100;
    uint64_t bits = atomic_load(&record->by_bits) + 100000;
    while (atomic_load(&record->by_marks) < marks && atomic_load(&record->by_bits) < bits &&
           atomic_load(&record->writes) < WRITES) {
      sched_yield();
    }
  }
}

static void readers_and_writers_see_no_half_of_a_change(void) {
  if (CHECK_TSAN) check_skip("processes: ThreadSanitizer watches threads");
  place_enter(&here);
  struct record *record = check_shared(sizeof *record);
  pid_t children[READERS + WRITERS];
  for (int i = 0; i < READERS + WRITERS; i++) {
    children[i] = check_fork();
    if (children[i] != 0) continue;
    (i < READERS ? read_it : write_it)(record);
    _exit(0);
  }
  for (int i = 0; i < READERS + WRITERS; i++) CHECK_CHILD(children[i]);
  printf("      %" PRIu64 " reads by marks, %" PRIu64 " by bits, %" PRIu64 " writes\n",
         atomic_load(&record->by_marks), atomic_load(&record->by_bits),
         atomic_load(&record->writes));
  CHECK_INT(atomic_load(&record->a), atomic_load(&record->writes));
  CHECK(atomic_load(&record->by_marks) > 0);
}

static const struct check_test tests[] = {
    TEST(readers_that_meet_again_and_again_set_it_and_a_writer_ends_it),
    TEST(reader_alone_and_writers_never_set_it),
    TEST(writer_waits_for_marks_and_keeps_new_ones_out),
    TEST(writer_that_gives_up_leaves_the_marks_to_the_next),
    TEST(two_locks_with_one_cell_are_held_at_once),
    TEST(killed_readers_are_taken_out_of_it),
    TEST(killed_claimant_leaves_the_marks_to_the_next),
    TEST(leaving_while_marked_lets_go),
    TEST(cycle_through_marks_gives_deadlock_to_exactly_one),
    TEST(lock_is_made_anew_only_where_no_mark_is),
    TEST(mark_in_a_free_slot_is_none),
    TEST(mark_of_ours_that_we_have_not_made_is_damage),
    TEST(waiters_flag_without_waiters_is_in_nobodys_way),
    TEST(bias_on_a_lock_that_is_claimed_lets_no_reader_in),
    TEST(readers_and_writers_see_no_half_of_a_change),
};
CHECK_MAIN(tests)

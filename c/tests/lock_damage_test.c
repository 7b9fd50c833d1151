/*
 * lock_damage_test.c - locks whose 64 bytes were overwritten: an acquisition ends, with an
 * outcome or with CORRUPT, and who is only slow, stopped or busy is never taken for damage.
 *
 * Tests that must end have no timeout of their own: a hang is caught by the test's alarm.
 */
#define LOCKS 8u
#include "party.h"

#include "layout.h"

#include <poll.h>

static struct place here;

static int32_t leave(uint32_t lock) { return dsmr_lock_release(here.locks[lock]); }
static int32_t get(uint32_t lock, uint32_t mode) { return take(here.locks[lock], mode, -1); }

static const uint32_t modes[2] = {DSMR_SHARED, DSMR_EXCLUSIVE};

static struct lwlock *words_of(uint32_t lock) {
  return (struct lwlock *)(void *)((char *)dsmr_segment_address(here.segment) + 64 * lock);
}

/* Overwrites the lock while others look at it: word by word, so that it is no data race. */
static void overwrite(uint32_t lock, const void *bytes) {
  _Atomic uint32_t *words = (_Atomic uint32_t *)(void *)words_of(lock);
  for (int i = 0; i < 16; i++) {
    uint32_t word;
    memcpy(&word, (const char *)bytes + 4 * i, 4);
    atomic_store(&words[i], word);
  }
}

static void snapshot(uint32_t lock, void *bytes) { memcpy(bytes, words_of(lock), 64); }

/* In order again. */
static void make_anew(uint32_t lock) {
  struct lwlock fresh = {.magic = LOCK_MAGIC, .tranche = words_of(0 + 2)->tranche};
  overwrite(lock, &fresh);
}

/* ---- damage --------------------------------------------------------------------------------- */

static const enum what waits[4] = {TAKE, TAKE, OR_WAIT_LONG, WATCH_LONG};

static void send_wait(const struct party *party, int which, uint32_t lock) {
  uint64_t value = waits[which] == WATCH_LONG ? 0 : (uint64_t)-1;
  party_send(party, (struct order){waits[which], lock, modes[which == 0 ? 0 : 1], value});
}

static void lock_overwritten_while_it_is_waited_for_is_corrupt(void) {
  place_enter(&here);
  struct party waiter = party_start();
  for (int i = 0; i < 4; i++) {
    CHECK_INT(get(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    send_wait(&waiter, i, 1);
    while (count_of(here.registry, waiter.pid, true) == 0) sched_yield();
    atomic_store(&words_of(1)->magic, 0x12345678);
    CHECK_INT(party_outcome(&waiter), DSMR_E_CORRUPT);
    CHECK_INT(count_of(here.registry, waiter.pid, true), 0);
    /* Nothing of the waiter's is left in it. */
    atomic_store(&words_of(1)->magic, LOCK_MAGIC);
    CHECK_INT(leave(1), 0);
    CHECK_INT(ask(&waiter, PASS, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  }
}

/* An old state of the lock is put back: it names a backend that lives and holds nothing. */
static void lock_that_names_a_living_backend_which_holds_nothing_is_corrupt(void) {
  place_enter(&here);
  struct party named = party_start();
  struct party other = party_start();
  for (int i = 0; i < 4; i++) {
    char bytes[64];
    CHECK_INT(ask(&named, TAKE, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    snapshot(1, bytes);
    CHECK_INT(ask(&named, LEAVE, 1, 0), 0);
    overwrite(1, bytes);
    CHECK_INT(ask(&other, TRY, 1, modes[i % 2]), DSMR_LOCK_BUSY);
    send_wait(&other, i, 1);
    CHECK_INT(party_outcome(&other), DSMR_E_CORRUPT);
    /* The named one is no better off. */
    send_wait(&named, i, 1);
    CHECK_INT(party_outcome(&named), DSMR_E_CORRUPT);
    make_anew(1);
    CHECK_INT(ask(&other, PASS, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(&named, PASS, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  }
}

static void readers_that_live_and_hold_nothing_are_damage(void) {
  place_enter(&here);
  struct party named = party_start();
  struct party other = party_start();
  const struct party *parties[2] = {&other, &named};
  char bytes[64];
  CHECK_INT(ask(&named, TAKE, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  snapshot(1, bytes);
  CHECK_INT(ask(&named, LEAVE, 1, 0), 0);
  for (int i = 0; i < 2; i++) {
    overwrite(1, bytes);
    CHECK_INT(ask(parties[i], TRY, 1, DSMR_EXCLUSIVE), DSMR_LOCK_BUSY);
    CHECK_INT(ask(parties[i], TAKE, 1, DSMR_EXCLUSIVE), DSMR_E_CORRUPT);
    /* It has given back its claim: readers come in, who are in nobody's way. */
    CHECK_INT(ask(&other, PASS, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    /* A real reader whose bit it is takes it along. */
    CHECK_INT(ask(&named, PASS, 1, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_INT(ask(parties[i], PASS, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  }
}

/* Tokens that no backend can have, and some that one could. */
static void lock_that_names_nobody_is_cleared(void) {
  place_enter(&here);
  struct party other = party_start();
  static const uint32_t owners[] = {1 << 9, 0x1fffffff, 257, 511, 256, 5 << 9 | 3, 0x1ffffe00};
  for (uint32_t i = 0; i < 2 * sizeof owners / sizeof owners[0]; i++) {
    for (int is_starving = 0; is_starving < 2; is_starving++) {
      struct lwlock damaged = {.magic = LOCK_MAGIC, .owner = owners[i / 2]};
      if (is_starving == 1) {
        damaged.owner = LOCK_STARVING;
        damaged.starving = owners[i / 2] | (i % 2 == 0 ? STARVING_EXCLUSIVE : 0);
      }
      overwrite(1, &damaged);
      int32_t outcome = ask(&other, PASS, 1, modes[i % 2]);
      CHECK(outcome == DSMR_LOCK_ACQUIRED);
      make_anew(1);
    }
  }
}

/* Random bytes, behind a right magic and behind a wrong one; without a timeout. */
static void lock_of_random_bytes_ends_every_acquisition(void) {
  enum { ROUNDS = CHECK_EMULATED ? 8 : 32 };
  place_enter(&here);
  uint64_t seed = 20261121;
  struct party parties[2] = {party_start(), party_start()};
  int corrupt = 0;
  for (int i = 0; i < ROUNDS; i++) {
    uint32_t bytes[16];
    for (int k = 0; k < 16; k++) bytes[k] = (uint32_t)check_random(&seed);
    struct lwlock damaged;
    memcpy(&damaged, bytes, sizeof damaged);
    if (i % 4 != 0) atomic_store(&damaged.magic, LOCK_MAGIC);
    /* Of the backends that there are, rather than of some thousand that never were. */
    if (i % 4 == 2) atomic_store(&damaged.owner, atomic_load(&damaged.owner) & 0xe0000003u);
    overwrite(1, &damaged);
    for (int k = 0; k < 2; k++) send_wait(&parties[k], (i / 2 + k) % 4, 1);
    struct pollfd answers[2];
    for (int k = 0; k < 2; k++) answers[k] = (struct pollfd){parties[k].answers, POLLIN, 0};
    for (int left = 2; left > 0; left--) {
      CHECK(poll(answers, 2, -1) >= 1);
      int k = answers[0].revents != 0 ? 0 : 1;
      answers[k].fd = -1;
      int32_t outcome = party_outcome(&parties[k]);
      /* Who got it lets go; the other one may wait for that. */
      CHECK(outcome >= 0 || outcome == DSMR_E_CORRUPT);
      if (outcome == DSMR_E_CORRUPT) corrupt++;
      CHECK_OK(ask(&parties[k], LEAVE_ALL, 0, 0));
    }
    make_anew(1);
    for (int k = 0; k < 2; k++) {
      CHECK_INT(ask(&parties[k], PASS, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    }
  }
  printf("      %d acquisitions: %d corrupt, the others ended as ever\n", 2 * ROUNDS, corrupt);
}

/* ---- no damage ------------------------------------------------------------------------------- */

/* Long enough for many looks: they come after 20, 40, 80, ... ms. */
static void stopped_holder_is_never_damage(void) {
  place_enter(&here);
  struct party holder = party_start();
  struct party waiters[2] = {party_start(), party_start()};
  CHECK_INT(ask(&holder, TAKE, 1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(ask(&holder, TAKE, 2, DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  int status;
  CHECK(kill(holder.pid, SIGSTOP) == 0);
  CHECK(waitpid(holder.pid, &status, WUNTRACED) == holder.pid && WIFSTOPPED(status));
  for (uint32_t i = 0; i < 2; i++) {
    party_send(&waiters[i], (struct order){TAKE, 1 + i, DSMR_EXCLUSIVE, 2500});
  }
  for (int i = 0; i < 2; i++) CHECK_INT(party_outcome(&waiters[i]), DSMR_E_TIMEOUT);
  CHECK(kill(holder.pid, SIGCONT) == 0);
  CHECK_INT(ask(&holder, LEAVE_ALL, 0, 0), 2);
  for (uint32_t i = 0; i < 2; i++) {
    CHECK_INT(ask(&waiters[i], PASS, 1 + i, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  }
}

#define CHURN_NS UINT64_C(3000000000)
/* Longer than the first look takes. */
#define HOLD_NS UINT64_C(25000000)

struct churn {
  _Atomic uint64_t ends_ns;
  _Atomic uint64_t turns;
  _Atomic uint64_t long_waits;
};

/* As fast as it can; now and then it stays until others have looked. */
static void churn(struct churn *churn, uint64_t seed, bool only_watches) {
  uint64_t variable = 0;
  while (os_monotonic_ns() < atomic_load(&churn->ends_ns)) {
    uint64_t began = os_monotonic_ns();
    if (only_watches) {
      uint64_t started = 0;
      int32_t outcome;
      do {
        outcome = dsmr_lock_wait_for_variable(here.locks[1], 0, 0, &variable, &started, -1);
      } while (outcome == DSMR_LOCK_BUSY);
      CHECK_INT(outcome, 0);
    } else {
      CHECK_INT(get(1, modes[check_random(&seed) % 2]), DSMR_LOCK_ACQUIRED);
    }
    uint64_t got = os_monotonic_ns();
    if (got - began > HOLD_NS) atomic_fetch_add(&churn->long_waits, 1);
    atomic_fetch_add(&churn->turns, 1);
    if (only_watches) continue;
    bool stays = check_random(&seed) % 4096 == 0;
    while (stays && os_monotonic_ns() - got < HOLD_NS) continue;
    CHECK_INT(leave(1), 0);
  }
}

static void lock_that_changes_hands_all_the_time_is_never_damage(void) {
  if (CHECK_TSAN) check_skip("processes: ThreadSanitizer watches threads");
  enum { MEMBERS = 8 };
  place_enter(&here);
  struct churn *shared = check_shared(sizeof *shared);
  atomic_store(&shared->ends_ns, os_monotonic_ns() + CHURN_NS);
  pid_t children[MEMBERS];
  for (uint64_t i = 0; i < MEMBERS; i++) {
    children[i] = check_fork();
    if (children[i] != 0) continue;
    place_enter(&here);
    churn(shared, 7 * i + 1, i == 0);
    _exit(0);
  }
  for (int i = 0; i < MEMBERS; i++) CHECK_CHILD(children[i]);
  printf("      %" PRIu64 " acquisitions, %" PRIu64 " of them after more than %d ms\n",
         atomic_load(&shared->turns), atomic_load(&shared->long_waits), (int)(HOLD_NS / 1000000));
  CHECK_INT(get(1, DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
}

static const struct check_test tests[] = {
    TEST(lock_overwritten_while_it_is_waited_for_is_corrupt),
    TEST(lock_that_names_a_living_backend_which_holds_nothing_is_corrupt),
    TEST(readers_that_live_and_hold_nothing_are_damage),
    TEST(lock_that_names_nobody_is_cleared),
    TEST(lock_of_random_bytes_ends_every_acquisition),
    TEST(stopped_holder_is_never_damage),
    TEST(lock_that_changes_hands_all_the_time_is_never_damage),
};
CHECK_MAIN(tests)

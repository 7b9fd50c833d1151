/*
 * party.h - processes that use locks at a test's command.
 *
 * A party is a child process that is a backend of the test's registry. It carries out one
 * order at a time and answers, so that a test reads as a sequence: who does what, and what
 * comes of it. An order that blocks is sent, the answer is fetched later.
 */
#ifndef PARTY_H
#define PARTY_H

#include "check.h"

#include "os.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

/* Segment "s": 64 bytes of data, then LOCKS - 1 locks of the tranche "kind". */
#ifndef LOCKS
#define LOCKS 131u
#endif
#define SEGMENT_SIZE (64u * LOCKS)
/* How many the registry has room for. */
#ifndef BACKENDS
#define BACKENDS 16u
#endif

/* What this thread has: its backend, the segment, and the locks. 0 is the segment's own. */
struct place {
  uint32_t registry;
  uint32_t segment;
  uint32_t locks[LOCKS];
  uint64_t started_ns;
};

static inline void place_use(struct place *place, int32_t segment) {
  place->segment = (uint32_t)segment;
  place->locks[0] = (uint32_t)CHECK_OK(dsmr_lock_of_segment(place->segment, &check_error));
  for (uint32_t i = 1; i < LOCKS; i++) {
    place->locks[i] = (uint32_t)CHECK_OK(dsmr_lock_at(place->segment, 64 * i, 0, &check_error));
  }
}

/* Attaches as a backend of its own, and makes the segment if it is not there. */
static inline void place_enter(struct place *place) {
  *place = (struct place){.registry = check_open("r", BACKENDS, 16)};
  dsmr_segment_ticket ticket;
  int32_t begun = CHECK_OK(check_begin(place->registry, "s", SEGMENT_SIZE, &ticket));
  if (begun == DSMR_INITIALIZE) {
    uint32_t kind = (uint32_t)CHECK_OK(
        dsmr_tranche_new(place->registry, NAME("kind"), ticket.segment, &check_error));
    for (uint32_t i = 1; i < LOCKS; i++) {
      CHECK_OK(dsmr_lock_init(ticket.segment, 64 * i, 0, kind, &check_error));
    }
    CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
  }
  place_use(place, (int32_t)ticket.segment);
}

/* The whole acquisition: goes on while it is told to. */
static inline int32_t take(uint32_t lock, uint32_t mode, int32_t timeout_ms) {
  int32_t outcome;
  do {
    outcome = dsmr_lock_acquire(lock, mode, timeout_ms);
  } while (outcome == DSMR_LOCK_BUSY);
  return outcome;
}

/* A thread that attaches, takes the lock and ends inside. */
static inline void *take_and_end(void *lock) {
  struct place place;
  place_enter(&place);
  CHECK_INT(take(place.locks[*(uint32_t *)lock], DSMR_EXCLUSIVE, -1), DSMR_LOCK_ACQUIRED);
  return NULL;
}

enum what {
  TAKE,    /* value: the timeout in ms, as int64_t */
  TRY,
  LEAVE,
  PASS,    /* TAKE, then LEAVE: answers what TAKE did */
  STATE,
  MARK,
  OR_WAIT, /* one slice; goes on with the last one's time */
  WATCH,   /* wait_for_variable at byte 0, one slice; value: expected, then found */
  OR_WAIT_LONG, /* as OR_WAIT and WATCH, until there is an outcome */
  WATCH_LONG,
  LEAVE_ALL,
  DETACH,
  CLOSE,
  END_THREAD, /* takes it exclusively in a thread that ends */
  LEAVE_WHEN_ASKED, /* value: the address of a shared word; becomes 1: leave, make it 2 */
};

struct order {
  enum what what;
  uint32_t lock;
  uint32_t mode;
  uint64_t value;
};

struct answer {
  int32_t outcome;
  uint64_t value;
};

struct party {
  pid_t pid;
  int orders;
  int answers;
};

static inline int32_t wait_long(struct place *place, struct order *order, uint32_t lock) {
  bool is_watch = order->what == WATCH_LONG;
  int32_t again = is_watch ? DSMR_LOCK_BUSY : DSMR_LOCK_NOT_YET;
  int32_t outcome;
  place->started_ns = 0;
  do {
    outcome = is_watch ? dsmr_lock_wait_for_variable(lock, 0, 0, &order->value,
                                                     &place->started_ns, -1)
                       : dsmr_lock_acquire_or_wait(lock, &place->started_ns, -1);
  } while (outcome == again);
  place->started_ns = 0;
  return outcome;
}

static inline int32_t carry_out(struct place *place, struct order *order) {
  uint32_t lock = place->locks[order->lock];
  pthread_t thread;
  _Atomic uint32_t *asked = NULL;
  int32_t outcome = 0;
  switch (order->what) {
    case TAKE:
      return take(lock, order->mode, (int32_t)(int64_t)order->value);
    case TRY:
      return dsmr_lock_try(lock, order->mode);
    case LEAVE:
      return dsmr_lock_release(lock);
    case PASS:
      outcome = take(lock, order->mode, (int32_t)(int64_t)order->value);
      if (outcome >= 0) CHECK_OK(dsmr_lock_release(lock));
      return outcome;
    case STATE:
      /* Without the hint that somebody waits, which stays when that one has gone. */
      return dsmr_lock_state(lock) & ~32;
    case MARK:
      return dsmr_lock_mark_consistent(lock);
    case OR_WAIT:
      outcome =
          dsmr_lock_acquire_or_wait(lock, &place->started_ns, (int32_t)(int64_t)order->value);
      if (outcome != DSMR_LOCK_NOT_YET) place->started_ns = 0;
      return outcome;
    case WATCH:
      outcome =
          dsmr_lock_wait_for_variable(lock, 0, 0, &order->value, &place->started_ns, -1);
      if (outcome != DSMR_LOCK_BUSY) place->started_ns = 0;
      return outcome;
    case OR_WAIT_LONG:
    case WATCH_LONG:
      return wait_long(place, order, lock);
    case LEAVE_ALL:
      return dsmr_lock_release_all(place->registry);
    case DETACH:
      return dsmr_segment_detach(place->segment);
    case CLOSE:
      return dsmr_registry_close(place->registry);
    case END_THREAD:
      CHECK(pthread_create(&thread, NULL, take_and_end, &order->lock) == 0);
      CHECK(pthread_join(thread, NULL) == 0);
      return 0;
    case LEAVE_WHEN_ASKED:
      asked = (_Atomic uint32_t *)(uintptr_t)order->value;
      while (atomic_load(asked) == 0) os_futex_wait(asked, 0, 1000000000);
      outcome = dsmr_lock_release(lock);
      atomic_store(asked, 2);
      (void)os_futex_wake(asked, 1);
      return outcome;
  }
  return -1;
}

/* Starts a party; the segment must be there already, and it is attached when this returns. */
static inline struct party party_start(void) {
  int orders[2];
  int answers[2];
  CHECK(pipe(orders) == 0 && pipe(answers) == 0);
  pid_t child = check_fork();
  if (child == 0) {
    static struct place place;
    place_enter(&place);
    struct answer answer = {0};
    CHECK(write(answers[1], &answer, sizeof answer) == sizeof answer);
    struct order order;
    while (read(orders[0], &order, sizeof order) == sizeof order) {
      answer.outcome = carry_out(&place, &order);
      answer.value = order.value;
      CHECK(write(answers[1], &answer, sizeof answer) == sizeof answer);
    }
    _exit(0);
  }
  /* So that the end of the party is the end of the answers. */
  close(orders[0]);
  close(answers[1]);
  struct answer answer;
  CHECK(read(answers[0], &answer, sizeof answer) == sizeof answer);
  return (struct party){child, orders[1], answers[0]};
}

static inline void party_send(const struct party *party, struct order order) {
  CHECK(write(party->orders, &order, sizeof order) == sizeof order);
}

static inline struct answer party_answer(const struct party *party) {
  struct answer answer;
  ssize_t got;
  do {
    got = read(party->answers, &answer, sizeof answer);
  } while (got < 0 && errno == EINTR);
  CHECK(got == sizeof answer);
  return answer;
}

static inline int32_t party_outcome(const struct party *party) {
  return party_answer(party).outcome;
}

/* Sends an order and waits for what comes of it. */
static inline int32_t ask(const struct party *party, enum what what, uint32_t lock, uint32_t mode) {
  party_send(party, (struct order){what, lock, mode, (uint64_t)-1});
  return party_outcome(party);
}

/* How many lines the registry lists of this process: holding, or waiting. */
static inline int count_of(uint32_t registry, pid_t pid, bool is_waiting) {
  dsmr_lock_info infos[32];
  int32_t count = CHECK_OK(dsmr_locks(registry, infos, 32, &check_error));
  int found = 0;
  for (int32_t i = 0; i < count && i < 32; i++) {
    if (infos[i].pid == (uint32_t)pid && (infos[i].is_waiting != 0) == is_waiting) found++;
  }
  return found;
}

/* Sends TAKE or PASS, which must have to wait, and returns once it does. */
static inline void send_waiting(uint32_t registry, const struct party *party, enum what what,
                                uint32_t lock, uint32_t mode) {
  party_send(party, (struct order){what, lock, mode, (uint64_t)-1});
  while (count_of(registry, party->pid, true) == 0) sched_yield();
}

#endif

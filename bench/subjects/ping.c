/*
 * ping.c - one of two processes that wake each other in turn.
 *
 *   ping DIRECTORY SEGMENT ROLE ROUNDS KIND
 *
 *   dsmr    each is inside a lock of its own for the whole time, tells the other a number by
 *           updateVar and waits for the other's by waitForVar; ping_child.ts does the same
 *   mutex   glibc's robust mutex and condition variable, around one number
 *   futex   one word each, and nothing but the system calls: the floor
 *
 * SEGMENT of registry "lock" was made by ping.ts: two locks at byte 0 and 64, their variables
 * at 128 and 192, and at 256 how many have come. Role 0 prints the one-way times in us, half
 * of each round trip.
 */
#include "../bench.h"

#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

/* What the other kinds need. In a segment of its own, SEGMENT and "-peer". */
struct peer {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  uint64_t number;
  _Alignas(64) _Atomic uint32_t words[2];
};

static int role;
static uint32_t own_lock;
static uint32_t other_lock;
static struct peer *peer;

/* ---- the three kinds: tell the other one, wait for its number of this round ---------------- */

static void dsmr_tell(uint64_t round) {
  must(dsmr_lock_update_variable(own_lock, role == 0 ? 128 : 192, 0, &round, 0) == 0, "update");
}

static void dsmr_wait(uint64_t round) {
  uint32_t offset = role == 0 ? 192 : 128;
  uint64_t value = round - 1;
  uint64_t since = 0;
  int32_t outcome;
  do {
    outcome = dsmr_lock_wait_for_variable(other_lock, offset, 0, &value, &since, -1);
  } while (outcome == DSMR_LOCK_BUSY);
  must(outcome == 1, "wait_for_variable");
}

/* The number goes 1, 2, 3 ...: role 0 makes it odd, role 1 even. */
static void mutex_tell(uint64_t round) {
  pthread_mutex_lock(&peer->mutex);
  peer->number = 2 * round - (role == 0 ? 1 : 0);
  pthread_mutex_unlock(&peer->mutex);
  pthread_cond_signal(&peer->changed);
}

static void mutex_wait(uint64_t round) {
  uint64_t wanted = 2 * round - (role == 0 ? 0 : 1);
  pthread_mutex_lock(&peer->mutex);
  while (peer->number != wanted) pthread_cond_wait(&peer->changed, &peer->mutex);
  pthread_mutex_unlock(&peer->mutex);
}

static void futex_tell(uint64_t round) {
  atomic_store(&peer->words[role], (uint32_t)round);
  syscall(SYS_futex, &peer->words[role], FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void futex_wait(uint64_t round) {
  _Atomic uint32_t *word = &peer->words[1 - role];
  while (atomic_load(word) != (uint32_t)round) {
    syscall(SYS_futex, word, FUTEX_WAIT, (uint32_t)round - 1, NULL, NULL, 0);
  }
}

static const struct kind {
  const char *name;
  void (*tell)(uint64_t round);
  void (*wait)(uint64_t round);
} kinds[] = {
    {"dsmr", dsmr_tell, dsmr_wait},
    {"mutex", mutex_tell, mutex_wait},
    {"futex", futex_tell, futex_wait},
};

static const struct kind *kind_named(const char *name) {
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    if (strcmp(kinds[i].name, name) == 0) return &kinds[i];
  }
  fprintf(stderr, "no kind %s\n", name);
  exit(2);
}

/* ---- set-up --------------------------------------------------------------------------------- */

static int32_t init_peer(void *address, uint64_t size, void *argument) {
  (void)size;
  (void)argument;
  struct peer *fresh = address;
  pthread_condattr_t cond_attributes;
  pthread_condattr_init(&cond_attributes);
  pthread_condattr_setpshared(&cond_attributes, PTHREAD_PROCESS_SHARED);
  return -(init_robust_mutex(&fresh->mutex) |
           pthread_cond_init(&fresh->changed, &cond_attributes));
}

static void meet(_Atomic uint32_t *arrived, uint32_t everyone) {
  atomic_fetch_add(arrived, 1);
  while (atomic_load(arrived) < everyone) sched_yield();
}

int main(int count, char **words) {
  if (count != 6) return 2;
  const struct kind *kind = kind_named(words[5]);
  role = atoi(words[3]);
  uint64_t rounds = strtoull(words[4], NULL, 10);
  double *times = calloc(rounds, sizeof *times);
  must(times != NULL, "calloc");

  uint32_t registry = open_registry(words[1], "lock");
  uint32_t segment = get_segment(registry, words[2]);
  int32_t own = dsmr_lock_at(segment, role == 0 ? 0 : 64, 0, NULL);
  int32_t other = dsmr_lock_at(segment, role == 0 ? 64 : 0, 0, NULL);
  must(own > 0 && other > 0, "dsmr_lock_at");
  own_lock = (uint32_t)own;
  other_lock = (uint32_t)other;
  char name[64];
  snprintf(name, sizeof name, "%s-peer", words[2]);
  int32_t peers = dsmr_get_named_segment(registry, name, sizeof *peer, init_peer, NULL, -1, NULL,
                                         NULL);
  must(peers > 0, name);
  peer = dsmr_segment_address((uint32_t)peers);

  must(acquire(own_lock, DSMR_EXCLUSIVE) == 0, "acquire");
  char *bytes = dsmr_segment_address(segment);
  _Atomic uint32_t *arrived = (_Atomic uint32_t *)(void *)(bytes + 256);
  meet(arrived, 2);
  for (uint64_t round = 1; round <= rounds; round++) {
    double started = now_ns();
    if (role == 0) kind->tell(round);
    kind->wait(round);
    if (role == 1) kind->tell(round);
    times[round - 1] = (now_ns() - started) / 2e3;
  }
  /* The other one may still be looking at our lock. */
  meet(arrived, 4);
  for (uint64_t i = 0; role == 0 && i < rounds; i++) printf("%.2f ", times[i]);
  free(times);
  return 0;
}

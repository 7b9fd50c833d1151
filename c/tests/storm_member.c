/*
 * storm_member.c - a member of a storm, in C; tests/_storm_member.ts is the same in TypeScript.
 * What it does and why that shows every fault is written in tests/_storm_history.ts; the places
 * and numbers are those of tests/_storm_layout.ts.
 *
 *   storm_member DIRECTORY LIFE SEED
 */
#include "dsmr.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- what is shared ------------------------------------------------------------------ */

enum {
  ARENAS = 3,
  LOCKS_OF_ARENA = 3,
  LOCKS = 8,
  CELLS_BEGIN = 64 * (LOCKS_OF_ARENA - 1),
  VOLUME_ENTRIES = 4096,
  VOLUME_REST = 32,
  NEST_MAX = 2,
};

/* Volatile, not atomic: the lock orders it, and a kill must be able to come in between. */
struct cell {
  _Atomic uint32_t inside;
  volatile uint32_t first;
  volatile uint32_t second;
  volatile uint32_t writer;
  volatile uint32_t check;
  uint32_t unused[11];
};

struct control {
  _Atomic uint32_t clock;
  _Atomic uint32_t stop;
  uint32_t deadline;
};

enum kind { BEGIN = 1, COMMIT, REPAIR, READ, READ_BROKEN, GIVE_UP };

struct entry {
  _Atomic uint32_t kind_and_lock;
  _Atomic uint32_t token;
  _Atomic uint32_t extra;
  _Atomic uint32_t tick;
};

static const char *const arena_names[ARENAS] = {"left", "middle", "right"};

/* ---- this member --------------------------------------------------------------------- */

static const char *directory;
static uint32_t life;
static uint64_t seed;
static uint32_t registry;
static uint32_t arenas[ARENAS];
static struct control *control;
static uint32_t book;
static struct entry *entries;
static uint32_t volume;
static uint32_t entry_count; /* in the volume */

/* Of each section that we are in, from the outermost one on. */
static struct {
  uint32_t lock;
  uint32_t mode;
} nest[NEST_MAX];
static uint32_t nest_count;
/* Locks of inner sections that are over, left to the release_all of the outer one. */
static int32_t kept;

static dsmr_error error;

#define VIOLATION(...)                                       \
  do {                                                       \
    printf("{\"violation\":\"life %" PRIu32 ": ", life);     \
    printf(__VA_ARGS__);                                     \
    printf("\"}\n");                                         \
    fflush(stdout);                                          \
    _exit(1);                                                \
  } while (0)

static int32_t must(const char *what, int32_t status) {
  if (status < 0) VIOLATION("%s: %s %s", what, dsmr_status_name(status), error.message);
  return status;
}

/* xorshift64* */
static uint32_t random_below(uint32_t limit) {
  seed ^= seed >> 12;
  seed ^= seed << 25;
  seed ^= seed >> 27;
  return (uint32_t)((seed * UINT64_C(0x2545f4914f6cdd1d)) >> 33) % limit;
}

static bool chance(uint32_t one_in) { return random_below(one_in) == 0; }

static uint32_t mix(uint32_t token, uint32_t writer) {
  return (token * 0x9e3779b1u ^ writer) * 0x85ebca6bu;
}

static bool is_intact(const struct cell *cell) {
  return cell->first == cell->second && cell->check == mix(cell->first, cell->writer);
}

static struct cell *cell_of(uint32_t lock) {
  char *address = dsmr_segment_address(arenas[lock / LOCKS_OF_ARENA]);
  return (struct cell *)(void *)(address + CELLS_BEGIN) + lock % LOCKS_OF_ARENA;
}

static uint32_t handle_of(uint32_t lock) {
  uint32_t arena = arenas[lock / LOCKS_OF_ARENA];
  uint32_t place = lock % LOCKS_OF_ARENA;
  return (uint32_t)must("lock", place == 0 ? dsmr_lock_of_segment(arena, &error)
                                           : dsmr_lock_at(arena, 64 * (place - 1), 0, &error));
}

static uint32_t get(const char *name, uint64_t size) {
  return (uint32_t)must(
      name, dsmr_get_named_segment(registry, name, size, NULL, NULL, -1, NULL, &error));
}

static void attach_book(void) {
  char name[64];
  snprintf(name, sizeof name, "book %" PRIu32 ".%" PRIu32, life, volume);
  book = get(name, VOLUME_ENTRIES * sizeof(struct entry));
  entries = dsmr_segment_address(book);
}

static void attach(void) {
  dsmr_registry_options options = {
      .mode = DSMR_MODE_ATTACH, .timeout_ms = -1, .label = "storm_member"};
  registry = (uint32_t)must(
      "open", dsmr_registry_open("storm", 5, directory, (uint32_t)strlen(directory), NULL, 0,
                                 &options, &error));
  control = dsmr_segment_address(get("control", 0));
  for (uint32_t i = 0; i < ARENAS; i++) arenas[i] = get(arena_names[i], 0);
  attach_book();
}

static uint32_t tick(void) { return atomic_fetch_add(&control->clock, 1) + 1; }

static void note(enum kind kind, uint32_t lock, uint32_t token, uint32_t extra) {
  struct entry *entry = &entries[entry_count++];
  uint32_t now = tick();
  atomic_store(&entry->kind_and_lock, (uint32_t)kind + lock * 256);
  atomic_store(&entry->token, token);
  atomic_store(&entry->extra, extra);
  /* Last: a kill in between leaves no entry, for the tick is still 0. */
  atomic_store(&entry->tick, now);
}

/* Spends a moment, so that others come, and a kill finds us here. */
static void linger(void) {
  if (chance(100)) {
    /* Asleep, the others get to run, and into us. */
    struct timespec moment = {.tv_nsec = random_below(1000000)};
    (void)nanosleep(&moment, NULL);
    return;
  }
  for (volatile uint32_t spins = random_below(1000); spins > 0;) spins = spins - 1;
}

/* The lock is ours, exclusively, and abandoned. Never lowers the token. */
static void mend(struct cell *cell, uint32_t lock) {
  uint32_t token = cell->first > cell->second ? cell->first : cell->second;
  note(REPAIR, lock, token, atomic_load(&cell->inside));
  cell->first = token;
  cell->second = token;
  cell->writer = life;
  cell->check = mix(token, life);
  atomic_store(&cell->inside, 0);
}

/* ---- sections: true if the locks are gone, for we have detached or closed -------------- */

static bool use(uint32_t lock);

static bool desert(void) {
  uint32_t arena = nest[0].lock / LOCKS_OF_ARENA;
  bool is_one = true;
  for (uint32_t i = 0; i < nest_count; i++) {
    if (nest[i].lock / LOCKS_OF_ARENA != arena) is_one = false;
    if (nest[i].mode == DSMR_EXCLUSIVE) note(GIVE_UP, nest[i].lock, 0, 0);
  }
  if (is_one && chance(2)) {
    must("detach", dsmr_segment_detach(arenas[arena]));
    arenas[arena] = get(arena_names[arena], 0);
  } else {
    must("close", dsmr_registry_close(registry));
    attach();
  }
  return true;
}

/* What happens in the middle of every section. */
static bool middle(uint32_t lock) {
  if (chance(1000)) return desert();
  linger();
  if (nest_count < NEST_MAX && lock + 1 < LOCKS && chance(4)) {
    /* In lock order, so that there is no cycle. */
    return use(lock + 1 + random_below(LOCKS - lock - 1));
  }
  return false;
}

static bool write_cell(uint32_t handle, uint32_t lock, bool is_abandoned) {
  struct cell *cell = cell_of(lock);
  if (((dsmr_lock_state(handle) & 4) != 0) != is_abandoned) {
    VIOLATION("lock %" PRIu32 " was not told to be abandoned as it is", lock);
  }
  if (is_abandoned) {
    /* Some are left to the next one. */
    if (chance(8)) return false;
    mend(cell, lock);
    must("mark", dsmr_lock_mark_consistent(handle));
  }
  uint32_t entered = tick();
  uint32_t found = atomic_exchange(&cell->inside, life);
  if (found != 0) VIOLATION("came into lock %u, and life %u was inside", lock, found);
  if (!is_intact(cell)) VIOLATION("lock %u is torn, and not abandoned", lock);
  uint32_t token = cell->first + 1;
  note(BEGIN, lock, token, entered);
  /* So that a kill may also come between the announcement and the first word. */
  if (chance(2)) linger();
  cell->first = token;
  if (middle(lock)) return true;
  cell->second = token;
  cell->writer = life;
  linger();
  cell->check = mix(token, life);
  if (cell->first != token) {
    VIOLATION("somebody wrote %u over token %u of lock %u", cell->first, token, lock);
  }
  note(COMMIT, lock, token, 0);
  uint32_t left = atomic_exchange(&cell->inside, 0);
  if (left != life) VIOLATION("leaves lock %u, and life %u is inside", lock, left);
  return false;
}

static bool read_cell(uint32_t handle, uint32_t lock) {
  const struct cell *cell = cell_of(lock);
  uint32_t entered = tick();
  bool is_abandoned = (dsmr_lock_state(handle) & 4) != 0;
  const struct cell before = *cell;
  if (!is_abandoned && (before.inside != 0 || !is_intact(&before))) {
    VIOLATION("reads lock %u torn, and not abandoned", lock);
  }
  if (middle(lock)) return true;
  if (before.inside != cell->inside || before.first != cell->first ||
      before.second != cell->second || before.writer != cell->writer ||
      before.check != cell->check || is_abandoned != ((dsmr_lock_state(handle) & 4) != 0)) {
    VIOLATION("lock %u changed under a reader", lock);
  }
  note(is_abandoned ? READ_BROKEN : READ, lock, before.first, entered);
  return false;
}

/* One acquisition, by a random call; may not get it. */
static int32_t come_in(uint32_t handle, uint32_t *mode) {
  int32_t timeout_ms = chance(3) ? (int32_t)random_below(4) : -1;
  uint64_t started = 0;
  int32_t outcome;
  switch (random_below(6)) {
    case 0:
      return dsmr_lock_try(handle, *mode);
    case 1:
      *mode = DSMR_EXCLUSIVE;
      do {
        outcome = dsmr_lock_acquire_or_wait(handle, &started, timeout_ms);
      } while (outcome == DSMR_LOCK_NOT_YET);
      return outcome;
    default:
      outcome = dsmr_lock_acquire(handle, *mode, timeout_ms);
      if (outcome == DSMR_LOCK_BUSY && chance(20)) {
        /* Waiting may be broken off between two calls. */
        must("cancel", dsmr_lock_cancel(handle));
        return outcome;
      }
      while (outcome == DSMR_LOCK_BUSY) outcome = dsmr_lock_acquire(handle, *mode, timeout_ms);
      return outcome;
  }
}

/* One use of a lock, in a random mode. */
static bool use(uint32_t lock) {
  uint32_t handle = handle_of(lock);
  uint32_t mode = chance(3) ? DSMR_SHARED : DSMR_EXCLUSIVE;
  int32_t outcome = come_in(handle, &mode);
  if (outcome == DSMR_LOCK_BUSY || outcome == DSMR_E_TIMEOUT) return false;
  must("acquire", outcome);
  nest[nest_count].lock = lock;
  nest[nest_count++].mode = mode;
  bool is_gone = mode == DSMR_EXCLUSIVE
                     ? write_cell(handle, lock, outcome == DSMR_LOCK_ABANDONED)
                     : read_cell(handle, lock);
  if (is_gone) return true;
  nest_count--;
  if (nest_count > 0 && chance(2)) {
    kept++;
  } else if (kept > 0 || (nest_count == 0 && chance(8))) {
    int32_t released = must("release all", dsmr_lock_release_all(registry));
    if (released != kept + 1) VIOLATION("let go of %d, not %d locks", released, kept + 1);
    kept = 0;
  } else {
    must("release", dsmr_lock_release(handle));
  }
  return false;
}

static void turn(void) {
  if (entry_count + VOLUME_REST > VOLUME_ENTRIES) {
    must("detach", dsmr_segment_detach(book));
    volume++;
    entry_count = 0;
    attach_book();
  }
  nest_count = 0;
  /* Two of them are crowded: a segment's own, and one in its bytes. */
  (void)use(chance(2) ? 4 * random_below(2) : random_below(LOCKS));
  linger();
}

/* Everything is to be had once more: a lock that somebody living has leaked keeps us here. */
static void say_farewell(void) {
  for (uint32_t lock = 0; lock < LOCKS; lock++) {
    uint32_t handle = handle_of(lock);
    int32_t outcome;
    do {
      outcome = dsmr_lock_acquire(handle, DSMR_EXCLUSIVE, -1);
    } while (outcome == DSMR_LOCK_BUSY);
    must("acquire", outcome);
    must("release", dsmr_lock_release(handle));
  }
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  directory = argv[1];
  life = (uint32_t)strtoul(argv[2], NULL, 10);
  seed = strtoull(argv[3], NULL, 10) * 2 + 1;
  attach();
  printf("{\"pid\":%ld}\n", (long)getpid());
  fflush(stdout);
  while (atomic_load(&control->stop) == 0 && (uint64_t)time(NULL) < control->deadline) turn();
  say_farewell();
  must("close", dsmr_registry_close(registry));
  return 0;
}

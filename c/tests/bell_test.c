/*
 * bell_test.c - death bells whose bytes are not what they were: taken down without a crash, in
 * any order, and the others still ring.
 */
#include "check.h"

#include "layout.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>

/* ---- the bells of a process, oldest first ------------------------------------------------ */

enum { BELLS = 3, WORDS = sizeof(((struct backend_slot *)0)->bell) / sizeof(uint64_t) };

/* The registries that the bells belong to: two backends in one, and one in another. */
static const char registry_of[BELLS][2] = {"r", "s", "r"};
static const uint32_t slot_of[BELLS] = {1, 1, 2}; /* slot 0 is the test's own */

/* The test's own backends, and what it sees of the control files; children see the same. */
static uint32_t own[2];
static struct control_header *files[2];

static int file_of(int bell) { return registry_of[bell][0] == 'r' ? 0 : 1; }

static struct control_header *map_control(const char *name) {
  char path[512];
  struct stat status;
  snprintf(path, sizeof path, "%s/dsmr.r.%s", check_directory, name);
  int fd = open(path, O_RDWR);
  CHECK(fd >= 0 && fstat(fd, &status) == 0);
  void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(bytes != MAP_FAILED);
  close(fd);
  return bytes;
}

static struct backend_slot *row(int file, uint32_t slot) {
  return (struct backend_slot *)(void *)((char *)files[file] + files[file]->backends_offset) + slot;
}

static void make_registries(void) {
  own[0] = check_open("r", 8, 8);
  own[1] = check_open("s", 8, 8);
  files[0] = map_control("r");
  files[1] = map_control("s");
  /* Emulators have none. */
  if (atomic_load(&row(0, 0)->bell_word) == 0) {
    check_skip("this system keeps no lists of robust futexes: there are no bells");
  }
}

static struct backend_slot *bell_row(int bell) { return row(file_of(bell), slot_of[bell]); }

static uint32_t word_of(const struct backend_slot *at) {
  uint32_t index = atomic_load(&at->bell_word);
  CHECK(index >= 1 && index <= sizeof at->bell / sizeof(uint32_t));
  uint32_t word;
  memcpy(&word, at->bell + (index - 1) * sizeof word, sizeof word);
  return word;
}

static void open_bells(uint32_t registries[BELLS]) {
  for (int i = 0; i < BELLS; i++) {
    registries[i] = check_open(registry_of[i], 0, 0);
    CHECK_INT(bell_row(i)->pid, getpid());
    CHECK_INT(word_of(bell_row(i)) & FUTEX_OWNER_DIED, 0);
  }
}

/* ---- what somebody may write ------------------------------------------------------------- */

enum { PATTERNS = 9 };

static uint64_t hostile_word(int pattern, uint64_t *seed) {
  static const uint64_t read_only = 1;
  static uint64_t writable[8];
  switch (pattern) {
    case 0: return 0;
    case 1: return UINT64_MAX;
    case 2: return 0x10;                                      /* unmapped */
    case 3: return (uintptr_t)&read_only;                     /* and so is what lies before it */
    case 4: return (uintptr_t)(writable + 4);                 /* in no list */
    case 5: return UINT64_C(0x8000000000000000);              /* no address at all */
    case 6: return (uintptr_t)bell_row(1)->bell + 40;         /* another bell, or itself: a circle */
    case 7: return check_random(seed) | FUTEX_OWNER_DIED | 1; /* rung, pi */
    default: return check_random(seed) << 32 | check_random(seed);
  }
}

/* Overwrites one word of a bell, or (cell == WORDS) all of it. */
static void damage(struct backend_slot *at, int pattern, int cell, uint64_t *seed) {
  for (int i = 0; i < WORDS; i++) {
    if (cell != WORDS && cell != i) continue;
    uint64_t value = hostile_word(pattern, seed);
    memcpy(at->bell + i * (int)sizeof value, &value, sizeof value);
  }
}

/* ---- one of several bells is overwritten ---------------------------------------------------- */

static const int orders[6][BELLS] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

/* Which bells must ring if, with `victim` overwritten, the first `count` of `order` are closed. */
static void expect(int victim, const int order[BELLS], int count, bool rings[BELLS]) {
  bool hangs[BELLS] = {true, true, true};
  bool is_cut[BELLS] = {false}; /* its way to the next older one is not what it was */
  is_cut[victim] = true;
  for (int i = 0; i < count; i++) {
    hangs[order[i]] = false;
    /* What is before it is told anew what is behind. */
    int newer = order[i] + 1;
    while (newer < BELLS && !hangs[newer]) newer++;
    if (newer < BELLS) is_cut[newer] = false;
  }
  bool is_reached = true;
  for (int i = BELLS - 1; i >= 0; i--) {
    rings[i] = hangs[i] && is_reached && i != victim;
    if (hangs[i] && is_cut[i]) is_reached = false;
  }
}

static int check_one_victim(int victim, int pattern, int cell, const int order[BELLS], int count,
                            uint64_t *seed) {
  bool rings[BELLS];
  int heard = 0;
  pid_t child = check_fork();
  if (child == 0) {
    alarm(60);
    uint32_t registries[BELLS];
    open_bells(registries);
    damage(bell_row(victim), pattern, cell, seed);
    for (int i = 0; i < count; i++) CHECK_OK(dsmr_registry_close(registries[order[i]]));
    (void)kill(getpid(), SIGKILL);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  expect(victim, order, count, rings);
  for (int i = 0; i < BELLS; i++) {
    if (WTERMSIG(status) == SIGKILL && (!rings[i] || (word_of(bell_row(i)) & FUTEX_OWNER_DIED) != 0)) {
      heard += rings[i];
      continue;
    }
    printf("victim %d, pattern %d, cell %d, %d closed of %d%d%d, bell %d:\n", victim, pattern, cell,
           count, order[0], order[1], order[2], i);
    CHECK_INT(status, SIGKILL);
    CHECK_INT(word_of(bell_row(i)) & FUTEX_OWNER_DIED, FUTEX_OWNER_DIED);
  }
  /* Silent or not, the dead are noticed. */
  for (int i = 0; i < 2; i++) CHECK_INT(dsmr_backends(own[i], NULL, 0, &check_error), 1);
  return heard;
}

static void overwritten_bell_is_taken_down_in_any_order_and_others_ring(void) {
  uint64_t seed = UINT64_C(0x5eed0b01);
  int rounds = 0;
  int heard = 0;
  make_registries();
  for (int pattern = 0; pattern < PATTERNS; pattern += CHECK_EMULATED ? 3 : 1) {
    for (int cell = 0; cell <= WORDS; cell++) {
      for (int victim = 0; victim < BELLS; victim++) {
        for (int order = 0; order < 6; order++, rounds++) {
          heard += check_one_victim(victim, pattern, cell, orders[order], rounds % (BELLS + 1), &seed);
        }
      }
    }
  }
  printf("      %d times, %d bells heard\n", rounds, heard);
  CHECK(heard > rounds / 2);
}

/* ---- threads that end ------------------------------------------------------------------------ */

struct ending {
  uint64_t seed;
  int closed_first; /* or none: -1 */
  bool is_main_hung; /* the main thread's bell hangs, too */
};

static void *end_with_damaged_bells(void *argument) {
  struct ending *ending = argument;
  uint32_t registries[BELLS];
  for (int i = 0; i < BELLS; i++) registries[i] = check_open(registry_of[i], 0, 0);
  for (int file = 0; file < 2; file++) {
    for (uint32_t slot = 1; slot < 8; slot++) {
      struct backend_slot *at = row(file, slot);
      if (at->pid != (uint32_t)getpid() || at->tid == (uint32_t)getpid()) continue;
      damage(at, (int)(check_random(&ending->seed) % PATTERNS), WORDS, &ending->seed);
    }
  }
  if (ending->closed_first >= 0) CHECK_OK(dsmr_registry_close(registries[ending->closed_first]));
  return NULL;
}

/* The last bytes are the thread's destructor's business, and musl's, which walks the list itself. */
static void thread_with_overwritten_bells_ends_and_its_process_goes_on(void) {
  enum { ROUNDS = CHECK_EMULATED ? 20 : 200 };
  make_registries();
  for (int round = 0; round < ROUNDS; round++) {
    pid_t child = check_fork();
    if (child == 0) {
      alarm(60);
      struct ending ending = {.seed = (uint64_t)round + 1, .closed_first = round % 4 - 1};
      uint32_t registry = round % 2 == 0 ? check_open("r", 0, 0) : 0;
      pthread_t thread;
      CHECK(pthread_create(&thread, NULL, end_with_damaged_bells, &ending) == 0);
      CHECK(pthread_join(thread, NULL) == 0);
      CHECK_INT(dsmr_backends(own[0], NULL, 0, &check_error), DSMR_E_CLOSED);
      uint32_t again = check_open("r", 0, 0);
      CHECK_INT(dsmr_backends(again, NULL, 0, &check_error), round % 2 == 0 ? 3 : 2);
      if (registry != 0) CHECK_OK(dsmr_registry_close(registry));
      (void)kill(getpid(), SIGKILL); /* with `again` open */
    }
    check_child(child, SIGKILL, __FILE__, __LINE__);
    CHECK((word_of(row(0, round % 2 == 0 ? 2 : 1)) & FUTEX_OWNER_DIED) != 0);
    for (int i = 0; i < 2; i++) CHECK_INT(dsmr_backends(own[i], NULL, 0, &check_error), 1);
  }
}

/* ---- other robust mutexes of the thread -------------------------------------------------------- */

enum { MUTEXES = 3, STEPS = 24 };

struct party {
  pthread_mutex_t mutexes[MUTEXES];
  bool is_locked[MUTEXES];
  bool is_open[BELLS];
  bool has_bell[BELLS];
  bool is_damaged;
  uint32_t slots[BELLS];
};

static uint32_t slot_of_newest(int file, const bool was_live[8]) {
  uint32_t slot = 0;
  while (slot < 8 && (was_live[slot] || SLOT_STATE(atomic_load(&row(file, slot)->word)) != SLOT_LIVE)) {
    slot++;
  }
  CHECK(slot < 8);
  return slot;
}

static bool open_one(struct party *party, int i, uint32_t registries[BELLS]) {
  bool was_live[8];
  bool may_hang = true;
  int file = file_of(i);
  for (uint32_t s = 0; s < 8; s++) was_live[s] = SLOT_STATE(atomic_load(&row(file, s)->word)) == SLOT_LIVE;
  for (int m = 0; m < MUTEXES; m++) may_hang = may_hang && !party->is_locked[m];
  registries[i] = check_open(registry_of[i], 0, 0);
  party->slots[i] = slot_of_newest(file, was_live);
  party->has_bell[i] = atomic_load(&row(file, party->slots[i])->bell_word) != 0;
  /* Nobody's bell hangs in front of a stranger. */
  CHECK_INT(party->has_bell[i], may_hang);
  party->is_open[i] = true;
  return party->has_bell[i];
}

static _Noreturn void live_among_strangers(struct party *party, uint64_t seed, bool is_hostile) {
  uint32_t registries[BELLS];
  /* musl keeps the parent's list in a forked child; the library clears it if it comes first. */
  CHECK_OK(dsmr_registry_close(check_open("r", 0, 0)));
  for (int step = 0; step < STEPS; step++) {
    uint64_t random = check_random(&seed);
    int i = (int)(random >> 8 & 0xff) % BELLS;
    if (random % 8 < 3) {
      if (party->is_open[i]) {
        CHECK_OK(dsmr_registry_close(registries[i]));
        party->is_open[i] = false;
      } else if (open_one(party, i, registries) && is_hostile) {
        damage(row(file_of(i), party->slots[i]), (int)(random >> 16 & 0xff) % PATTERNS, WORDS, &seed);
      }
    } else if (party->is_locked[i]) {
      CHECK(pthread_mutex_unlock(&party->mutexes[i]) == 0);
      party->is_locked[i] = false;
    } else if (random % 8 >= 6) {
      CHECK(pthread_mutex_lock(&party->mutexes[i]) == 0);
      party->is_locked[i] = true;
    }
  }
  (void)kill(getpid(), SIGKILL);
  _exit(1);
}

static void check_among_strangers(struct party *party, uint64_t seed, bool is_hostile, int *heard) {
  pthread_mutexattr_t attributes;
  memset(party, 0, sizeof *party);
  CHECK(pthread_mutexattr_init(&attributes) == 0);
  CHECK(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0);
  CHECK(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
  for (int i = 0; i < MUTEXES; i++) CHECK(pthread_mutex_init(&party->mutexes[i], &attributes) == 0);
  pid_t child = check_fork();
  if (child == 0) {
    alarm(60);
    live_among_strangers(party, seed, is_hostile);
  }
  check_child(child, SIGKILL, __FILE__, __LINE__);
  for (int i = 0; i < MUTEXES; i++) {
    /* They are in front of the bells, so whatever is in these does not matter to them. */
    CHECK_INT(pthread_mutex_trylock(&party->mutexes[i]), party->is_locked[i] ? EOWNERDEAD : 0);
    if (party->is_locked[i]) CHECK(pthread_mutex_consistent(&party->mutexes[i]) == 0);
    CHECK(pthread_mutex_unlock(&party->mutexes[i]) == 0);
    heard[0] += party->is_locked[i];
  }
  for (int i = 0; i < BELLS; i++) {
    if (!party->is_open[i] || !party->has_bell[i] || is_hostile) continue;
    CHECK((word_of(row(file_of(i), party->slots[i])) & FUTEX_OWNER_DIED) != 0);
    heard[1]++;
  }
  for (int i = 0; i < 2; i++) CHECK_INT(dsmr_backends(own[i], NULL, 0, &check_error), 1);
}

static void bells_and_robust_mutexes_of_one_thread_do_not_hurt_each_other(void) {
  if (CHECK_TSAN) check_skip("takes mutexes in any order, which ThreadSanitizer warns of");
  enum { ROUNDS = CHECK_EMULATED ? 100 : 1500 };
  int heard[2] = {0, 0};
  struct party *party = check_shared(sizeof *party);
  make_registries();
  for (int round = 0; round < ROUNDS; round++) {
    check_among_strangers(party, UINT64_C(0x5eed0b02) + (uint64_t)round * 7919, round % 2 != 0, heard);
  }
  printf("      %d times, %d mutexes and %d bells heard\n", ROUNDS, heard[0], heard[1]);
  CHECK(heard[0] > ROUNDS / 2 && heard[1] > ROUNDS / 4);
}

/* ---- somebody who goes on writing ------------------------------------------------------------- */

static int32_t sane(int32_t outcome) {
  CHECK(outcome >= 0 || (outcome <= -5001 && outcome >= -5026));
  return outcome;
}

static int32_t try_open(const char *name) {
  dsmr_registry_options options = {.timeout_ms = 5000};
  return sane(dsmr_registry_open(NAME(name), DIRECTORY, NULL, 0, &options, &check_error));
}

static void bells_are_hung_and_taken_down_while_somebody_writes_into_them(void) {
  enum { ROUNDS = CHECK_EMULATED ? 300 : 5000 };
  int opened = 0;
  make_registries();
  pid_t writer = check_fork();
  if (writer == 0) {
    uint64_t seed = UINT64_C(0x5eed0b03);
    for (;;) {
      uint64_t random = check_random(&seed);
      damage(row((int)(random & 1), (uint32_t)(random >> 8) % 8), (int)(random >> 16 & 0xff) % PATTERNS, WORDS,
             &seed);
    }
  }
  pid_t child = check_fork();
  if (child == 0) {
    for (int round = 0; round < ROUNDS; round++) {
      int32_t registries[BELLS];
      const int *order = orders[round % 6];
      for (int i = 0; i < BELLS; i++) registries[i] = try_open(registry_of[i]);
      for (int i = 0; i < BELLS; i++) {
        if (registries[order[i]] <= 0) continue;
        sane(dsmr_registry_close((uint32_t)registries[order[i]]));
        opened++;
      }
    }
    CHECK(opened > ROUNDS);
    _exit(0);
  }
  CHECK_CHILD(child);
  CHECK_KILL(writer);
}

static const struct check_test tests[] = {
    TEST(overwritten_bell_is_taken_down_in_any_order_and_others_ring),
    TEST(thread_with_overwritten_bells_ends_and_its_process_goes_on),
    TEST(bells_and_robust_mutexes_of_one_thread_do_not_hurt_each_other),
    TEST(bells_are_hung_and_taken_down_while_somebody_writes_into_them),
};
CHECK_MAIN(tests)

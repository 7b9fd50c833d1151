/*
 * segment_test.c - segments: init once, errors of begin, lifetimes, drop, the entry table.
 */
#include "check.h"

/* ---- init once ---------------------------------------------------------------------- */

static void *seen_address;
static uint64_t seen_size;
static void *seen_argument;
static int init_count;

static int32_t init_remembers(void *address, uint64_t size, void *argument) {
  seen_address = address;
  seen_size = size;
  seen_argument = argument;
  init_count++;
  memset(address, 42, size);
  return 0;
}

static void init_runs_once_with_its_very_argument(void) {
  uint32_t registry = check_open("r", 0, 0);
  bool found = true;
  int argument = 0;
  uint32_t first = (uint32_t)CHECK_OK(dsmr_get_named_segment(registry, "s", 100, init_remembers,
                                                             &argument, -1, &found, &check_error));
  CHECK(!found);
  CHECK(seen_argument == &argument);
  CHECK_INT(seen_size, 100);
  CHECK(seen_address == dsmr_segment_address(first));
  CHECK_INT(dsmr_segment_size(first), 100);
  CHECK_INT((uintptr_t)seen_address % 64, 0);
  uint32_t second = (uint32_t)CHECK_OK(dsmr_get_named_segment(registry, "s", 100, init_remembers,
                                                              NULL, -1, &found, &check_error));
  CHECK(found);
  CHECK_INT(second, first);
  CHECK_INT(init_count, 1);
  pid_t child = check_fork();
  if (child == 0) {
    uint32_t own = check_open("r", 0, 0);
    uint32_t segment = (uint32_t)CHECK_OK(dsmr_get_named_segment(own, "s", 0, init_remembers, NULL,
                                                                 -1, &found, &check_error));
    CHECK(found);
    CHECK_INT(init_count, 1);
    CHECK_INT(dsmr_segment_size(segment), 100);
    const unsigned char *bytes = dsmr_segment_address(segment);
    for (int i = 0; i < 100; i++) CHECK_INT(bytes[i], 42);
    _exit(0);
  }
  CHECK_CHILD(child);
}

static int32_t init_fails(void *address, uint64_t size, void *argument) {
  (void)argument;
  memset(address, 99, size);
  return -7;
}

static void failed_init_frees_the_name_for_any_size(void) {
  uint32_t registry = check_open("r", 0, 0);
  bool found = true;
  CHECK_FAILS(
      dsmr_get_named_segment(registry, "s", 100, init_fails, NULL, -1, &found, &check_error),
      DSMR_E_INIT_FAILED);
  CHECK_INT(check_error.status, DSMR_E_INIT_FAILED);
  CHECK_INT(check_error.actual, 7);
  CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 0);
  CHECK_INT(check_count(check_directory, "dsmr.s."), 0);
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "s", 5000, &ticket), DSMR_INITIALIZE);
  CHECK_INT(ticket.size, 5000);
  CHECK(check_is_filled(&ticket, 0));
}

/* Asks for `name` until it has it; opens `waits` each time it is told to wait. */
static int32_t obtain(uint32_t registry, const char *name, uint64_t size,
                      dsmr_segment_ticket *ticket, const struct gate *waits) {
  dsmr_segment_request request = {.size = size, .timeout_ms = -1};
  *ticket = (dsmr_segment_ticket){0};
  bool has_told = false;
  for (;;) {
    int32_t outcome = dsmr_segment_begin(registry, NAME(name), &request, ticket, &check_error);
    if (outcome != DSMR_WAIT) return outcome;
    if (!has_told && waits != NULL) gate_open(waits);
    has_told = true;
    outcome = dsmr_segment_wait(registry, NAME(name), &request, ticket, &check_error);
    if (outcome != 0) return outcome;
  }
}

/* A waiter in another process; `wanted` is what it must get in the end. */
static pid_t start_waiter(const struct gate *waits, uint64_t size, int32_t wanted,
                          unsigned char byte) {
  pid_t child = check_fork();
  if (child != 0) return child;
  uint32_t registry = check_open("r", 0, 0);
  dsmr_segment_ticket ticket;
  CHECK_INT(obtain(registry, "s", size, &ticket, waits), wanted);
  CHECK(check_is_filled(&ticket, byte));
  if (size != 0) CHECK_INT(ticket.size, size);
  if (wanted == DSMR_INITIALIZE) CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
  _exit(0);
}

static void waiter_finds_what_was_committed(void) {
  uint32_t registry = check_open("r", 0, 0);
  struct gate waits = gate_make();
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "s", 100, &ticket), DSMR_INITIALIZE);
  pid_t waiter = start_waiter(&waits, 100, DSMR_FOUND, 7);
  gate_pass(&waits);
  dsmr_backend_info infos[2];
  CHECK_INT(dsmr_backends(registry, infos, 2, &check_error), 2);
  const dsmr_backend_info *other = infos[0].is_self ? &infos[1] : &infos[0];
  /* Between two waits it does not wait for anything. */
  if (other->waiting_length != 0) CHECK_TEXT(other->waiting, "s");
  memset(check_bytes(&ticket), 7, 100);
  CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
  CHECK_CHILD(waiter);
}

static void waiter_takes_over_after_abort_with_its_own_size(void) {
  uint32_t registry = check_open("r", 0, 0);
  struct gate waits = gate_make();
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "s", 100, &ticket), DSMR_INITIALIZE);
  memset(check_bytes(&ticket), 7, 100);
  pid_t waiter = start_waiter(&waits, 300, DSMR_INITIALIZE, 0);
  gate_pass(&waits);
  CHECK_OK(dsmr_segment_abort(ticket.segment, &check_error));
  CHECK_FAILS(dsmr_segment_is_current(ticket.segment), DSMR_E_CLOSED);
  CHECK_CHILD(waiter);
  CHECK_INT(check_begin(registry, "s", 0, &ticket), DSMR_FOUND);
  CHECK_INT(ticket.size, 300);
}

static int32_t init_nests(void *address, uint64_t size, void *argument) {
  (void)address;
  (void)size;
  uint32_t registry = *(const uint32_t *)argument;
  uint32_t inner = (uint32_t)CHECK_OK(dsmr_get_named_segment(registry, "inner", 64, init_remembers,
                                                             NULL, -1, NULL, &check_error));
  CHECK_INT(dsmr_segment_size(inner), 64);
  CHECK_FAILS(
      dsmr_get_named_segment(registry, "outer", 64, init_remembers, NULL, -1, NULL, &check_error),
      DSMR_E_INIT_RECURSION);
  return 0;
}

static void callback_may_ask_for_other_names_but_not_its_own(void) {
  uint32_t registry = check_open("r", 0, 0);
  CHECK_OK(
      dsmr_get_named_segment(registry, "outer", 64, init_nests, &registry, -1, NULL, &check_error));
  CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 2);
  CHECK_INT(init_count, 1);
}

/* Member n of a ring of backends begins segment n, then asks for the next one's. */
static void run_ring(int members) {
  int *deadlocks = check_shared(2 * sizeof *deadlocks);
  struct gate ready = gate_make();
  struct gate go = gate_make();
  pid_t children[3];
  for (int n = 0; n < members; n++) {
    children[n] = check_fork();
    if (children[n] != 0) continue;
    uint32_t registry = check_open("r", 0, 0);
    char own[2] = {(char)('a' + n), 0};
    char next[2] = {(char)('a' + (n + 1) % members), 0};
    dsmr_segment_ticket ticket;
    CHECK_INT(check_begin(registry, own, 64, &ticket), DSMR_INITIALIZE);
    uint32_t segment = ticket.segment;
    gate_open(&ready);
    gate_pass(&go);
    int32_t outcome = obtain(registry, next, 64, &ticket, NULL);
    if (outcome == DSMR_E_DEADLOCK) {
      __atomic_add_fetch(&deadlocks[0], 1, __ATOMIC_RELAXED);
      CHECK_OK(dsmr_segment_abort(segment, &check_error));
    } else {
      CHECK(outcome == DSMR_INITIALIZE || outcome == DSMR_FOUND);
      if (outcome == DSMR_INITIALIZE) CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
      CHECK_OK(dsmr_segment_commit(segment, &check_error));
      __atomic_add_fetch(&deadlocks[1], 1, __ATOMIC_RELAXED);
    }
    _exit(0);
  }
  for (int n = 0; n < members; n++) gate_pass(&ready);
  for (int n = 0; n < members; n++) gate_open(&go);
  for (int n = 0; n < members; n++) CHECK_CHILD(children[n]);
  CHECK_INT(deadlocks[0], 1);
  CHECK_INT(deadlocks[1], members - 1);
}

static void cycle_of_two_gives_deadlock_to_exactly_one(void) { run_ring(2); }
static void cycle_of_three_gives_deadlock_to_exactly_one(void) { run_ring(3); }

static void waiting_gives_up_after_the_requests_timeout(void) {
  uint32_t registry = check_open("r", 0, 0);
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "s", 100, &ticket), DSMR_INITIALIZE);
  pid_t own = getpid();
  for (int32_t timeout_ms = 0; timeout_ms <= 150; timeout_ms += 75) {
    pid_t child = check_fork();
    if (child == 0) {
      uint32_t mine = check_open("r", 0, 0);
      CHECK_FAILS(
          dsmr_get_named_segment(mine, "s", 100, NULL, NULL, timeout_ms, NULL, &check_error),
          DSMR_E_TIMEOUT);
      CHECK_INT(check_error.actual, own);
      CHECK_INT(check_error.requested, timeout_ms);
      dsmr_segment_ticket other;
      CHECK_FAILS(dsmr_segment_lookup(mine, "s", 1, 0, &other, &check_error), DSMR_E_NOT_FOUND);
      CHECK_INT(dsmr_segment_drop(mine, "s", 1, 0, &check_error), 0);
      _exit(0);
    }
    CHECK_CHILD(child);
  }
  CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
  CHECK_FAILS(dsmr_segment_commit(ticket.segment, &check_error), DSMR_E_NOT_HELD);
  CHECK_FAILS(dsmr_segment_abort(ticket.segment, &check_error), DSMR_E_NOT_HELD);
  CHECK_INT(dsmr_segment_is_current(ticket.segment), 1);
}

/* ---- requests ---------------------------------------------------------------------------- */

static void other_size_is_refused_with_both_numbers(void) {
  uint32_t registry = check_open("r", 0, 0);
  check_create(registry, "s", 4096, DSMR_LIFETIME_REGISTRY, 1);
  dsmr_segment_ticket ticket;
  CHECK_FAILS(check_begin(registry, "s", 8192, &ticket), DSMR_E_SIZE_MISMATCH);
  CHECK_INT(check_error.actual, 4096);
  CHECK_INT(check_error.requested, 8192);
  CHECK(strstr(check_error.message, "4096") != NULL && strstr(check_error.message, "8192") != NULL);
  CHECK_INT(check_error.message_length, strlen(check_error.message));
  /* A success leaves the error alone. */
  CHECK_INT(check_begin(registry, "s", 4096, &ticket), DSMR_FOUND);
  CHECK_INT(check_error.requested, 8192);
}

static void sizes_and_lifetimes_out_of_range_are_refused(void) {
  uint32_t registry = check_open("r", 0, 0);
  dsmr_segment_ticket ticket;
  CHECK_FAILS(check_begin(registry, "s", 0, &ticket), DSMR_E_NOT_FOUND);
  CHECK_FAILS(check_begin(registry, "s", UINT64_MAX, &ticket), DSMR_E_SIZE_INVALID);
  CHECK_INT(check_error.actual, UINT64_C(1) << 44);
  CHECK(check_error.requested == UINT64_MAX);
  CHECK_FAILS(check_begin(registry, "s", (UINT64_C(1) << 44) + 1, &ticket), DSMR_E_SIZE_INVALID);
  CHECK_FAILS(check_begin(registry, "s", UINT64_C(1) << 44, &ticket), DSMR_E_NO_SPACE);
  CHECK_INT(check_error.requested, UINT64_C(1) << 44);
  CHECK(check_error.actual > 0);
  dsmr_segment_request request = {.size = 1, .lifetime = 2, .timeout_ms = -1};
  CHECK_FAILS(dsmr_segment_begin(registry, "s", 1, &request, &ticket, &check_error),
              DSMR_E_SIZE_INVALID);
  CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 0);
  CHECK_INT(check_count(check_directory, "dsmr.s."), 0);
  CHECK_INT(check_begin(registry, "s", 1, &ticket), DSMR_INITIALIZE);
  CHECK_INT(ticket.size, 1);
}

/* ---- lifetimes ------------------------------------------------------------------------------ */

static void attached_segment_goes_with_the_last_detach(void) {
  uint32_t first = check_open("r", 0, 0);
  uint32_t second = check_open("r", 0, 0);
  uint32_t segment = check_create(first, "s", 64, DSMR_LIFETIME_ATTACHED, 1);
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(second, "s", 64, &ticket), DSMR_FOUND);
  CHECK_OK(dsmr_segment_detach(segment));
  CHECK_INT(dsmr_segment_is_current(ticket.segment), 1);
  CHECK_INT(dsmr_segments(first, NULL, 0, &check_error), 1);
  CHECK_OK(dsmr_segment_detach(ticket.segment));
  CHECK_INT(dsmr_segments(first, NULL, 0, &check_error), 0);
  CHECK_INT(check_count(check_directory, "dsmr.s."), 0);
}

static void attached_segment_goes_with_the_last_close(void) {
  uint32_t first = check_open("r", 0, 0);
  uint32_t second = check_open("r", 0, 0);
  check_create(first, "s", 64, DSMR_LIFETIME_ATTACHED, 1);
  check_create(first, "kept", 64, DSMR_LIFETIME_REGISTRY, 1);
  CHECK_OK(dsmr_registry_close(first));
  CHECK_INT(dsmr_segments(second, NULL, 0, &check_error), 1);
  CHECK_INT(check_count(check_directory, "dsmr.s."), 1);
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(second, "s", 32, &ticket), DSMR_INITIALIZE);
  CHECK(check_is_filled(&ticket, 0));
  CHECK_INT(check_begin(second, "kept", 64, &ticket), DSMR_FOUND);
  CHECK(check_is_filled(&ticket, 1));
}

/* Whoever asks next must not get the dead one's memory, whichever call it asks by. */
static void attached_segment_goes_with_the_death_of_the_last_backend(void) {
  uint32_t registry = check_open("r", 0, 0);
  for (int way = 0; way < 3; way++) {
    struct gate ready = gate_make();
    pid_t child = check_fork();
    if (child == 0) {
      check_create(check_open("r", 0, 0), "s", 64, DSMR_LIFETIME_ATTACHED, 1);
      gate_open(&ready);
      for (;;) pause();
    }
    gate_pass(&ready);
    CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 1);
    CHECK_KILL(child);
    dsmr_segment_ticket ticket;
    if (way == 0) CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 0);
    if (way == 1) {
      CHECK_FAILS(dsmr_segment_lookup(registry, "s", 1, 0, &ticket, &check_error), DSMR_E_NOT_FOUND);
    }
    CHECK_INT(check_begin(registry, "s", 32, &ticket), DSMR_INITIALIZE);
    CHECK(check_is_filled(&ticket, 0));
    CHECK_OK(dsmr_segment_abort(ticket.segment, &check_error));
    CHECK_INT(check_count(check_directory, "dsmr.s."), 0);
  }
}

static void dropped_segment_keeps_its_memory_and_frees_its_name(void) {
  uint32_t registry = check_open("r", 0, 0);
  uint32_t other = check_open("r", 0, 0);
  uint32_t old = check_create(registry, "s", 64, DSMR_LIFETIME_REGISTRY, 1);
  CHECK_INT(dsmr_segment_is_current(old), 1);
  CHECK_INT(dsmr_segment_drop(other, "s", 1, 0, &check_error), 1);
  CHECK_INT(dsmr_segment_drop(other, "s", 1, 0, &check_error), 0);
  CHECK_INT(dsmr_segment_is_current(old), 0);
  /* The file stays for as long as somebody is attached: whoever reaps one needs its locks. */
  CHECK_INT(check_count(check_directory, "dsmr.s."), 1);
  uint32_t fresh = check_create(registry, "s", 32, DSMR_LIFETIME_REGISTRY, 2);
  CHECK(fresh != old);
  unsigned char *bytes = dsmr_segment_address(old);
  for (int i = 0; i < 64; i++) CHECK_INT(bytes[i], 1);
  bytes[0] = 3;
  CHECK_INT(*(unsigned char *)dsmr_segment_address(fresh), 2);
  CHECK_INT(dsmr_segment_is_current(fresh), 1);
  CHECK_OK(dsmr_segment_detach(old));
  CHECK_INT(check_count(check_directory, "dsmr.s."), 1);
  CHECK_INT(dsmr_segment_is_current(fresh), 1);
  CHECK_FAILS(dsmr_segment_is_current(old), DSMR_E_CLOSED);
  CHECK(dsmr_segment_address(old) == NULL);
  CHECK_INT(dsmr_segment_size(old), 0);
}

/* ---- the table ------------------------------------------------------------------------------- */

static void full_registry_has_room_again_after_a_drop(void) {
  uint32_t registry = check_open("r", 0, 3);
  check_create(registry, "a", 1, DSMR_LIFETIME_REGISTRY, 1);
  check_create(registry, "b", 1, DSMR_LIFETIME_REGISTRY, 1);
  dsmr_segment_ticket half;
  CHECK_INT(check_begin(registry, "c", 1, &half), DSMR_INITIALIZE);
  dsmr_segment_ticket ticket;
  CHECK_FAILS(check_begin(registry, "d", 1, &ticket), DSMR_E_REGISTRY_FULL);
  CHECK_INT(check_error.actual, 3);
  CHECK_INT(check_begin(registry, "a", 1, &ticket), DSMR_FOUND);
  CHECK_INT(dsmr_segment_drop(registry, "a", 1, 0, &check_error), 1);
  check_create(registry, "d", 1, DSMR_LIFETIME_REGISTRY, 1);
  CHECK_FAILS(check_begin(registry, "a", 1, &ticket), DSMR_E_REGISTRY_FULL);
  CHECK_OK(dsmr_segment_abort(half.segment, &check_error));
  check_create(registry, "a", 1, DSMR_LIFETIME_REGISTRY, 1);
}

static void listing_is_a_whole_snapshot_whatever_the_capacity(void) {
  uint32_t registry = check_open("r", 0, 0);
  check_create(registry, "a", 10, DSMR_LIFETIME_ATTACHED, 1);
  dsmr_segment_ticket half;
  CHECK_INT(check_begin(registry, "b", 20, &half), DSMR_INITIALIZE);
  dsmr_segment_info infos[3];
  memset(infos, 0x55, sizeof infos);
  CHECK_INT(dsmr_segments(registry, infos, 1, &check_error), 2);
  CHECK_INT(infos[1].name_length, 0x55555555);
  CHECK_INT(dsmr_segments(registry, infos, 3, &check_error), 2);
  CHECK_INT(infos[2].name_length, 0x55555555);
  const dsmr_segment_info *a = infos[0].name[0] == 'a' ? &infos[0] : &infos[1];
  const dsmr_segment_info *b = a == &infos[0] ? &infos[1] : &infos[0];
  CHECK_TEXT(a->name, "a");
  CHECK_TEXT(b->name, "b");
  CHECK_INT(a->name_length, 1);
  CHECK_INT(a->size, 10);
  CHECK_INT(b->size, 20);
  CHECK_INT(a->is_ready, 1);
  CHECK_INT(b->is_ready, 0);
  CHECK_INT(a->lifetime, DSMR_LIFETIME_ATTACHED);
  CHECK_INT(a->backend_count, 1);
  CHECK_INT(a->creator_pid, getpid());
  CHECK_INT(b->id, half.id);
  dsmr_registry_info info;
  CHECK_OK(dsmr_registry_describe(registry, &info, &check_error));
  CHECK_INT(info.segment_count, 2);
  CHECK_INT(a->owner, info.backend_id);
}

/*
 * Few cells and many names: probes run over tombstones all the time. 8 segments, 24 names;
 * every answer is compared with a model that is an array.
 */
static void table_agrees_with_a_model_over_100000_cycles(void) {
  enum { NAMES = 24, ROOM = 8, CYCLES = 100000 };
  uint32_t registry = check_open("r", 1, ROOM);
  uint64_t ids[NAMES] = {0}; /* 0 = not there */
  uint64_t seed = 20240607;
  int count = 0;
  for (int created = 0; created < CYCLES;) {
    uint64_t random = check_random(&seed);
    uint32_t n = (uint32_t)(random % NAMES);
    char name[16];
    snprintf(name, sizeof name, "name %u", n);
    dsmr_segment_ticket ticket;
    if (ids[n] != 0) {
      if (random >> 20 & 1) {
        CHECK_INT(check_begin(registry, name, 0, &ticket), DSMR_FOUND);
        CHECK_INT(ticket.id, ids[n]);
        CHECK_OK(dsmr_segment_detach(ticket.segment));
      }
      CHECK_INT(dsmr_segment_drop(registry, NAME(name), 0, &check_error), 1);
      ids[n] = 0;
      count--;
    } else if (count == ROOM) {
      CHECK_FAILS(check_begin(registry, name, 1, &ticket), DSMR_E_REGISTRY_FULL);
      CHECK_FAILS(check_begin(registry, name, 0, &ticket), DSMR_E_NOT_FOUND);
    } else {
      CHECK_INT(check_begin(registry, name, 1, &ticket), DSMR_INITIALIZE);
      created++;
      if (random >> 21 & 1) {
        CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
        ids[n] = ticket.id;
        count++;
        CHECK_OK(dsmr_segment_detach(ticket.segment));
      } else {
        CHECK_OK(dsmr_segment_abort(ticket.segment, &check_error));
      }
    }
    if (random >> 22 & 127) continue;
    CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), count);
    for (uint32_t i = 0; i < NAMES; i++) {
      snprintf(name, sizeof name, "name %u", i);
      int32_t outcome = check_begin(registry, name, 0, &ticket);
      CHECK_INT(outcome, ids[i] != 0 ? (int32_t)DSMR_FOUND : DSMR_E_NOT_FOUND);
      if (outcome != DSMR_FOUND) continue;
      CHECK_INT(ticket.id, ids[i]);
      CHECK_OK(dsmr_segment_detach(ticket.segment));
    }
  }
  CHECK_INT(check_count(check_directory, "dsmr.s."), count);
}

static const struct check_test tests[] = {
    TEST(init_runs_once_with_its_very_argument),
    TEST(failed_init_frees_the_name_for_any_size),
    TEST(waiter_finds_what_was_committed),
    TEST(waiter_takes_over_after_abort_with_its_own_size),
    TEST(callback_may_ask_for_other_names_but_not_its_own),
    TEST(cycle_of_two_gives_deadlock_to_exactly_one),
    TEST(cycle_of_three_gives_deadlock_to_exactly_one),
    TEST(waiting_gives_up_after_the_requests_timeout),
    TEST(other_size_is_refused_with_both_numbers),
    TEST(sizes_and_lifetimes_out_of_range_are_refused),
    TEST(attached_segment_goes_with_the_last_detach),
    TEST(attached_segment_goes_with_the_last_close),
    TEST(attached_segment_goes_with_the_death_of_the_last_backend),
    TEST(dropped_segment_keeps_its_memory_and_frees_its_name),
    TEST(full_registry_has_room_again_after_a_drop),
    TEST(listing_is_a_whole_snapshot_whatever_the_capacity),
    TEST(table_agrees_with_a_model_over_100000_cycles),
};
CHECK_MAIN(tests)

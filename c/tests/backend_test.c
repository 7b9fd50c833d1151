/*
 * backend_test.c - backends: slots, liveness, reaping, threads, races between many.
 */
#include "check.h"

#include "layout.h"

#include <fcntl.h>
#include <pthread.h>

static uint32_t backend_id(uint32_t registry) {
  dsmr_registry_info info;
  CHECK_OK(dsmr_registry_describe(registry, &info, &check_error));
  return info.backend_id;
}

static int32_t try_open(int32_t timeout_ms) {
  dsmr_registry_options options = {.timeout_ms = timeout_ms, .label = "label"};
  return dsmr_registry_open("r", 1, DIRECTORY, NULL, 0, &options, &check_error);
}

/* ---- slots -------------------------------------------------------------------------- */

static void slots_end_and_are_reused_with_another_generation(void) {
  uint32_t first = check_open("r", 2, 1);
  uint32_t second = check_open("r", 2, 1);
  CHECK_FAILS(try_open(-1), DSMR_E_BACKENDS_FULL);
  CHECK_INT(check_error.actual, 2);
  CHECK_INT(check_error.requested, 3);
  uint32_t old = backend_id(second);
  CHECK_OK(dsmr_registry_close(second));
  second = (uint32_t)CHECK_OK(try_open(-1));
  CHECK_INT(backend_id(second), old + 256);
  CHECK_FAILS(try_open(-1), DSMR_E_BACKENDS_FULL);
  CHECK_INT(dsmr_backends(first, NULL, 0, &check_error), 2);
}

static pid_t start_backend(const struct gate *ready, const char *begins) {
  pid_t child = check_fork();
  if (child != 0) return child;
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  dsmr_segment_ticket ticket;
  if (begins != NULL) {
    CHECK_INT(check_begin(registry, begins, 64, &ticket), DSMR_INITIALIZE);
    memset(check_bytes(&ticket), 9, 64);
  }
  gate_open(ready);
  for (;;) pause();
}

static void slots_of_the_killed_are_reused(void) {
  struct gate ready = gate_make();
  CHECK_OK(dsmr_registry_close(check_open("r", 2, 1)));
  for (int round = 0; round < 3; round++) {
    pid_t children[2];
    for (int i = 0; i < 2; i++) children[i] = start_backend(&ready, NULL);
    for (int i = 0; i < 2; i++) gate_pass(&ready);
    CHECK_FAILS(try_open(-1), DSMR_E_BACKENDS_FULL);
    for (int i = 0; i < 2; i++) CHECK_KILL(children[i]);
  }
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  CHECK_INT(dsmr_backends(registry, NULL, 0, &check_error), 1);
}

static void listing_says_who_is_there(void) {
  struct gate ready = gate_make();
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  check_create(registry, "mine", 8, DSMR_LIFETIME_REGISTRY, 1);
  pid_t child = start_backend(&ready, NULL);
  gate_pass(&ready);
  dsmr_backend_info infos[3];
  memset(infos, 0x55, sizeof infos);
  CHECK_INT(dsmr_backends(registry, infos, 1, &check_error), 2);
  CHECK_INT(infos[1].pid, 0x55555555);
  CHECK_INT(dsmr_backends(registry, infos, 3, &check_error), 2);
  CHECK_INT(infos[0].is_self, 1);
  CHECK_INT(infos[0].pid, getpid());
  CHECK_INT(infos[0].segment_count, 1);
  CHECK_INT(infos[0].backend_id, backend_id(registry));
  CHECK_INT(infos[1].is_self, 0);
  CHECK_INT(infos[1].pid, child);
  CHECK_INT(infos[1].segment_count, 0);
  CHECK_TEXT(infos[1].label, "label");
  CHECK_INT(infos[1].label_length, 5);
  CHECK_TEXT(infos[1].database, "default");
  CHECK_KILL(child);
}

/* ---- reaping ------------------------------------------------------------------------- */

enum reaping_call { BY_OPEN, BY_BACKENDS, BY_SEGMENTS, BY_BEGIN, REAPING_CALLS };

static void every_reaping_call_replaces_a_dead_initialiser(void) {
  struct gate ready = gate_make();
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  for (int call = 0; call < REAPING_CALLS; call++) {
    pid_t child = start_backend(&ready, "s");
    gate_pass(&ready);
    dsmr_segment_ticket ticket;
    CHECK_INT(check_begin(registry, "s", 64, &ticket), DSMR_WAIT);
    CHECK_INT(ticket.owner_pid, child);
    CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 1);
    CHECK_KILL(child);
    if (call == BY_OPEN) CHECK_OK(dsmr_registry_close((uint32_t)CHECK_OK(try_open(-1))));
    if (call == BY_BACKENDS) CHECK_INT(dsmr_backends(registry, NULL, 0, &check_error), 1);
    if (call == BY_SEGMENTS) CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 0);
    /* The dead one's file goes when it is reaped, not when the name is next used. */
    CHECK_INT(check_count(check_directory, "dsmr.s."), call == BY_BEGIN);
    CHECK_INT(check_begin(registry, "s", 32, &ticket), DSMR_INITIALIZE);
    CHECK_INT(check_count(check_directory, "dsmr.s."), 1);
    CHECK(check_is_filled(&ticket, 0));
    CHECK_OK(dsmr_segment_abort(ticket.segment, &check_error));
  }
}

static void stopped_backend_is_not_reaped(void) {
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  struct gate ready = gate_make();
  pid_t child = start_backend(&ready, "s");
  gate_pass(&ready);
  CHECK(kill(child, SIGSTOP) == 0);
  int status;
  CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
  CHECK_OK(dsmr_registry_close((uint32_t)CHECK_OK(try_open(-1))));
  CHECK_INT(dsmr_backends(registry, NULL, 0, &check_error), 2);
  CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 1);
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "s", 64, &ticket), DSMR_WAIT);
  CHECK_KILL(child);
  CHECK_INT(check_begin(registry, "s", 64, &ticket), DSMR_INITIALIZE);
}

/* ---- the table lock -------------------------------------------------------------------- */

/* Holds the table lock as the library does, for as long as it lives. */
static pid_t start_holder(const struct gate *ready) {
  pid_t child = check_fork();
  if (child != 0) return child;
  char path[512];
  check_path("dsmr.r.", path);
  int fd = open(path, O_RDWR);
  struct flock lock = {
      .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BYTE_TABLE, .l_len = 1};
  CHECK(fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0);
  gate_open(ready);
  raise(SIGSTOP);
  _exit(0);
}

static void stopped_holder_of_the_table_lock_gives_timeout_until_it_goes(void) {
  struct gate ready = gate_make();
  CHECK_OK(dsmr_registry_close(check_open("r", 2, 1)));
  pid_t holder = start_holder(&ready);
  gate_pass(&ready);
  CHECK_FAILS(try_open(0), DSMR_E_TIMEOUT);
  CHECK_FAILS(try_open(30), DSMR_E_TIMEOUT);
  CHECK_INT(check_error.requested, 30);
  struct gate waits = gate_make();
  pid_t waiter = check_fork();
  if (waiter == 0) {
    CHECK_FAILS(try_open(0), DSMR_E_TIMEOUT);
    gate_open(&waits);
    CHECK_OK(try_open(CHECK_PATIENCE_S * 1000));
    _exit(0);
  }
  gate_pass(&waits);
  CHECK_KILL(holder);
  CHECK_CHILD(waiter);
}

/* ---- threads ------------------------------------------------------------------------------ */

static void *open_begin_and_end(void *argument) {
  (void)argument;
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "s", 64, &ticket), DSMR_INITIALIZE);
  CHECK_OK(try_open(-1));
  return NULL;
}

static void thread_that_ends_closes_its_backends(void) {
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  int descriptors = check_descriptors();
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, open_begin_and_end, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK_INT(check_descriptors(), descriptors);
  CHECK_INT(check_count(check_directory, "dsmr.s."), 0);
  CHECK_INT(dsmr_backends(registry, NULL, 0, &check_error), 1);
}

static struct gate to_thread;
static struct gate to_main;

static void *meet_the_other_thread(void *argument) {
  (void)argument;
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  dsmr_error error;
  dsmr_segment_request request = {.size = 64, .timeout_ms = -1};
  dsmr_segment_ticket ticket = {0};
  CHECK_INT(dsmr_segment_begin(registry, "s", 1, &request, &ticket, &error), DSMR_WAIT);
  CHECK_INT(ticket.owner_pid, getpid());
  CHECK_INT(dsmr_backends(registry, NULL, 0, &error), 2);
  gate_open(&to_main);
  int32_t segment = dsmr_get_named_segment(registry, "s", 64, NULL, NULL, -1, NULL, &error);
  CHECK(segment > 0);
  CHECK_INT(*(unsigned char *)dsmr_segment_address((uint32_t)segment), 3);
  gate_open(&to_main);
  gate_pass(&to_thread);
  return NULL;
}

static void two_threads_of_a_process_are_two_backends(void) {
  to_thread = gate_make();
  to_main = gate_make();
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "s", 64, &ticket), DSMR_INITIALIZE);
  memset(check_bytes(&ticket), 3, 64);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, meet_the_other_thread, NULL) == 0);
  gate_pass(&to_main);
  CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
  gate_pass(&to_main);
  dsmr_segment_info info;
  CHECK_INT(dsmr_segments(registry, &info, 1, &check_error), 1);
  CHECK_INT(info.backend_count, 2);
  gate_open(&to_thread);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK_INT(dsmr_segments(registry, &info, 1, &check_error), 1);
  CHECK_INT(info.backend_count, 1);
}

/* A segment is filled with one byte made from its id: whoever attaches one sees it whole. */
static unsigned char byte_of(const dsmr_segment_ticket *ticket) {
  return (unsigned char)(ticket->id % 251 + 1);
}

/* One random call of a thread. Keeps at most one segment attached besides. */
static void act(uint32_t *registry, uint32_t *kept, uint64_t random) {
  static const char names[3][2] = {"a", "b", "c"};
  const char *name = names[random % 3];
  dsmr_error error;
  dsmr_segment_request request = {
      .size = 512, .lifetime = (uint32_t)(random >> 8 & 1), .timeout_ms = -1};
  dsmr_segment_ticket ticket = {0};
  int32_t outcome = 0;
  switch (random >> 16 & 7) {
    case 0:
      CHECK(dsmr_segment_drop(*registry, name, 1, 0, &error) >= 0);
      break;
    case 1:
      CHECK(dsmr_segments(*registry, NULL, 0, &error) <= 3);
      CHECK(dsmr_backends(*registry, NULL, 0, &error) >= 1);
      break;
    case 2:
      if (*kept == 0) break;
      CHECK(dsmr_segment_is_current(*kept) >= 0);
      CHECK(dsmr_segment_detach(*kept) == 0);
      *kept = 0;
      break;
    case 3:
      if ((random >> 24 & 7) != 0) break;
      CHECK(dsmr_registry_close(*registry) == 0);
      *kept = 0;
      *registry = (uint32_t)dsmr_registry_open("r", 1, DIRECTORY, NULL, 0, NULL, &error);
      CHECK((int32_t)*registry > 0);
      break;
    case 4:
      outcome = dsmr_segment_lookup(*registry, name, 1, 0, &ticket, &error);
      CHECK(outcome == DSMR_FOUND || outcome == DSMR_E_NOT_FOUND);
      if (outcome == DSMR_FOUND) CHECK(check_is_filled(&ticket, byte_of(&ticket)));
      break;
    default:
      outcome = dsmr_segment_begin(*registry, name, 1, &request, &ticket, &error);
      CHECK(outcome == DSMR_FOUND || outcome == DSMR_INITIALIZE || outcome == DSMR_WAIT);
      if (outcome == DSMR_WAIT) {
        CHECK(dsmr_segment_wait(*registry, name, 1, &request, &ticket, &error) == 0);
      } else if (outcome == DSMR_FOUND) {
        CHECK(check_is_filled(&ticket, byte_of(&ticket)));
        *kept = ticket.segment;
      } else {
        CHECK(check_is_filled(&ticket, 0));
        memset(check_bytes(&ticket), byte_of(&ticket), 512);
        if ((random >> 32 & 3) == 0) CHECK(dsmr_segment_abort(ticket.segment, &error) == 0);
        else CHECK(dsmr_segment_commit(ticket.segment, &error) == 0);
      }
  }
}

static void *race(void *argument) {
  uint64_t seed = *(const uint64_t *)argument;
  uint32_t registry = (uint32_t)dsmr_registry_open("r", 1, DIRECTORY, NULL, 0, NULL, NULL);
  CHECK((int32_t)registry > 0);
  uint32_t kept = 0;
  for (int i = 0; i < 3000; i++) act(&registry, &kept, check_random(&seed));
  return NULL;
}

static void racing_threads_see_whole_segments_only(void) {
  enum { THREADS = 6 };
  static uint64_t seeds[THREADS];
  pthread_t threads[THREADS];
  for (uint64_t i = 0; i < THREADS; i++) {
    seeds[i] = 1000 + i;
    CHECK(pthread_create(&threads[i], NULL, race, &seeds[i]) == 0);
  }
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  CHECK_INT(dsmr_backends(registry, NULL, 0, &check_error), 1);
  CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error),
            check_count(check_directory, "dsmr.s."));
}

/* ---- many processes -------------------------------------------------------------------------- */

static int32_t count_init(void *address, uint64_t size, void *argument) {
  memset(address, 1, size);
  __atomic_add_fetch((int *)argument, 1, __ATOMIC_RELAXED);
  return 0;
}

static void init_runs_once_for_64_processes_in_50_rounds(void) {
  if (CHECK_TSAN) check_skip("64 processes: ThreadSanitizer watches threads");
  enum { PROCESSES = 64, ROUNDS = 50 };
  int *counts = check_shared(2 * ROUNDS * sizeof *counts);
  struct gate go = gate_make();
  struct gate done = gate_make();
  CHECK_OK(dsmr_registry_close(check_open("r", PROCESSES, ROUNDS)));
  pid_t children[PROCESSES];
  for (int i = 0; i < PROCESSES; i++) {
    children[i] = check_fork();
    if (children[i] != 0) continue;
    uint32_t registry = check_open("r", 0, 0);
    for (int round = 0; round < ROUNDS; round++) {
      char name[16];
      snprintf(name, sizeof name, "round %d", round);
      bool found = false;
      gate_pass(&go);
      uint32_t segment = (uint32_t)CHECK_OK(dsmr_get_named_segment(
          registry, name, 256, count_init, &counts[round], -1, &found, &check_error));
      if (!found) __atomic_add_fetch(&counts[ROUNDS + round], 1, __ATOMIC_RELAXED);
      const unsigned char *bytes = dsmr_segment_address(segment);
      for (int k = 0; k < 256; k++) CHECK_INT(bytes[k], 1);
      gate_open(&done);
      /* Nobody starts on the next round's bytes before all have had this round's. */
    }
    _exit(0);
  }
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < PROCESSES; i++) gate_open(&go);
    for (int i = 0; i < PROCESSES; i++) gate_pass(&done);
    CHECK_INT(counts[round], 1);
    CHECK_INT(counts[ROUNDS + round], 1);
  }
  for (int i = 0; i < PROCESSES; i++) CHECK_CHILD(children[i]);
}

/* Creates, fills and drops one segment for ever. */
static _Noreturn void churn(const struct gate *ready) {
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  gate_open(ready);
  for (;;) {
    dsmr_segment_ticket ticket;
    int32_t outcome = check_begin(registry, "s", 2048, &ticket);
    if (outcome == DSMR_INITIALIZE) {
      memset(check_bytes(&ticket), 9, 2048);
      CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
    }
    CHECK_OK(dsmr_segment_drop(registry, "s", 1, 0, &check_error));
    if (outcome >= 0) CHECK_OK(dsmr_segment_detach(ticket.segment));
  }
}

static void initialiser_killed_at_any_moment_is_replaced(void) {
  if (CHECK_TSAN) check_skip("kills processes: ThreadSanitizer watches threads");
  uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
  struct gate ready = gate_make();
  uint64_t seed = 77;
  for (int round = 0; round < 200; round++) {
    pid_t child = check_fork();
    if (child == 0) churn(&ready);
    gate_pass(&ready);
    /* The moment is random, not a length of time: how far the child gets does not matter. */
    for (volatile uint64_t spins = check_random(&seed) % 200000; spins > 0;) spins = spins - 1;
    CHECK_KILL(child);
    dsmr_segment_ticket ticket;
    int32_t outcome = check_begin(registry, "s", 2048, &ticket);
    CHECK(outcome == DSMR_INITIALIZE || outcome == DSMR_FOUND);
    CHECK(check_is_filled(&ticket, outcome == DSMR_FOUND ? 9 : 0));
    if (outcome == DSMR_INITIALIZE) CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
    CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 1);
    CHECK_INT(dsmr_backends(registry, NULL, 0, &check_error), 1);
    CHECK_INT(check_count(check_directory, "dsmr.s."), 1);
    CHECK_INT(dsmr_segment_drop(registry, "s", 1, 0, &check_error), 1);
    CHECK_OK(dsmr_segment_detach(ticket.segment));
  }
}

/* A creator that has its entry but not yet its file must not make the file after the destroy
 * has looked for files: nobody would ever remove it. */
static void destroy_in_the_middle_of_creating_leaves_no_file(void) {
  if (CHECK_TSAN) check_skip("races processes: ThreadSanitizer watches threads");
  struct gate ready = gate_make();
  pid_t children[2];
  for (int i = 0; i < 2; i++) {
    children[i] = check_fork();
    if (children[i] != 0) continue;
    for (int round = 0; round < 3000; round++) {
      uint32_t registry = (uint32_t)CHECK_OK(try_open(-1));
      if (round == 0) gate_open(&ready);
      dsmr_segment_ticket ticket;
      for (int n = 0; n < 4; n++) {
        char name[2] = {(char)('a' + n), 0};
        (void)check_begin(registry, name, 64, &ticket);
      }
      CHECK_OK(dsmr_registry_close(registry));
    }
    _exit(0);
  }
  for (int i = 0; i < 2; i++) gate_pass(&ready);
  for (int i = 0, status; i < 2; i++) {
    while (waitpid(children[i], &status, WNOHANG) == 0) {
      CHECK_OK(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error));
    }
    CHECK_INT(status, 0);
  }
  CHECK_OK(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error));
  CHECK_INT(check_count(check_directory, ""), 0);
}

static const struct check_test tests[] = {
    TEST(slots_end_and_are_reused_with_another_generation),
    TEST(slots_of_the_killed_are_reused),
    TEST(listing_says_who_is_there),
    TEST(every_reaping_call_replaces_a_dead_initialiser),
    TEST(stopped_backend_is_not_reaped),
    TEST(stopped_holder_of_the_table_lock_gives_timeout_until_it_goes),
    TEST(thread_that_ends_closes_its_backends),
    TEST(two_threads_of_a_process_are_two_backends),
    TEST(racing_threads_see_whole_segments_only),
    TEST(init_runs_once_for_64_processes_in_50_rounds),
    TEST(initialiser_killed_at_any_moment_is_replaced),
    TEST(destroy_in_the_middle_of_creating_leaves_no_file),
};
CHECK_MAIN(tests)

/*
 * reserve_kill_test.c - kill -9 while a thread reserves the space of a large segment: nothing
 * is left over, and the name can be used.
 *
 * Three ways to find the moment. Between two system calls of any thread of the child, the n-th
 * for each n; that is also in front of and behind each piece of the space. In front of
 * every so-many-th instruction of the thread that asks, while the others run. And at random.
 */
#include "watching.h"

#include "layout.h"

#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/vfs.h>

/* More than one piece of os_file_reserve. */
#define LARGE (UINT64_C(17) << 20)
#define SMALL 192u
#define RANDOM_KILLS (CHECK_EMULATED ? 20 : 100)

static uint32_t registry;

static int32_t begin_large(dsmr_segment_ticket *ticket) {
  dsmr_segment_request request = {.size = LARGE, .timeout_ms = -1, .is_async = 1};
  *ticket = (dsmr_segment_ticket){0};
  return dsmr_segment_begin(registry, NAME("new"), &request, ticket, &check_error);
}

static int32_t reserve(uint32_t gives_up) {
  return CHECK_OK(dsmr_segment_reserve(registry, (uint32_t)LARGE, LARGE >> 32, gives_up));
}

/* ---- in the child ------------------------------------------------------------------------- */

static void prepare(void) {
  registry = check_open("k", 3, 4);
  hang_doorbell();
}

/* Only asks for it. */
static void act_asking(void) { CHECK(reserve(0) > 0xffff); }

/* Once before, so that no symbols are resolved while it is stepped through. */
static void prepare_asking(void) {
  prepare();
  check_fires(reserve(0));
  CHECK_INT(reserve(1), 0);
}

/* Reserves it, and begins to initialise it. */
static void act_reserving(void) {
  dsmr_segment_ticket ticket;
  CHECK_INT(begin_large(&ticket), DSMR_RESERVE);
  int32_t watch = reserve(0);
  if (watch != 0) check_fires(watch);
  CHECK_INT(begin_large(&ticket), DSMR_INITIALIZE);
  CHECK_INT(ticket.size, LARGE);
  /* To the last byte. */
  check_bytes(&ticket)[LARGE - 1] = 1;
}

/* Does that for ever, or gives it up, or closes meanwhile. */
static void act_for_ever(void) {
  for (uint64_t seed = os_pid();;) {
    dsmr_segment_ticket ticket;
    uint64_t way = check_random(&seed) % 4;
    CHECK_INT(begin_large(&ticket), DSMR_RESERVE);
    int32_t watch = reserve(0);
    if (way == 0) {
      if (watch != 0) (void)dsmr_watch_end((uint32_t)watch);
      CHECK_INT(reserve(1), 0);
    } else if (way == 1) {
      CHECK_OK(dsmr_registry_close(registry));
      registry = check_open("k", 3, 4);
    } else {
      if (watch != 0) check_fires(watch);
      CHECK_INT(begin_large(&ticket), DSMR_INITIALIZE);
      CHECK_OK(dsmr_segment_abort(ticket.segment, &check_error));
    }
  }
}

/* ---- the world before, the world after ------------------------------------------------------ */

static void make_world(void) {
  CHECK_INT(check_count(check_directory, ""), 0);
  uint32_t own = check_open("k", 3, 4);
  check_create(own, "kept", SMALL, DSMR_LIFETIME_REGISTRY, 11);
  CHECK_OK(dsmr_registry_close(own));
}

/* Examines what is left of the child, who was killed, and removes all. Returns whether its
 * segment had a name already: until then, nothing at all may have been seen of it. */
static bool survive(void) {
  int files = check_count(check_directory, "");
  CHECK(files == 2 || files == 3); /* the table, "kept" and perhaps "new" */
  int descriptors = check_descriptors();
  registry = check_open("k", 3, 4);
  dsmr_segment_info infos[4];
  CHECK_INT(dsmr_segments(registry, infos, 4, &check_error), 1);
  CHECK(strcmp(infos[0].name, "kept") == 0);
  CHECK_INT(check_count(check_directory, ""), 2);
  dsmr_registry_info info;
  CHECK_OK(dsmr_registry_describe(registry, &info, &check_error));
  CHECK_INT(info.segment_count, 1);
  CHECK_INT(info.backend_count, 1);
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "kept", SMALL, &ticket), DSMR_FOUND);
  CHECK(check_is_filled(&ticket, 11));
  /* The name is free, and for whatever size. */
  CHECK_INT(check_begin(registry, "new", SMALL, &ticket), DSMR_INITIALIZE);
  CHECK(check_is_filled(&ticket, 0));
  CHECK_OK(dsmr_registry_close(registry));
  CHECK_INT(dsmr_registry_destroy("k", 1, DIRECTORY, &check_error), 1);
  CHECK_INT(check_count(check_directory, ""), 0);
  CHECK_INT(check_descriptors(), descriptors);
  return files == 3;
}

static uint64_t free_bytes(void) {
  struct statfs space;
  CHECK(statfs(check_directory, &space) == 0);
  return (uint64_t)space.f_bavail * (uint64_t)space.f_bsize;
}

/* Others use the file system, too, but give back what they use; what the dead have left would stay,
 * and be much more. Waits for that: no event tells of it. */
static void check_space(uint64_t before, uint32_t lives) {
  CHECK(lives > 20);
  const struct timespec moment = {.tv_nsec = 50000000};
  for (uint64_t after = free_bytes(); after < before && before - after >= lives * LARGE / 2;
       after = free_bytes()) {
    (void)nanosleep(&moment, NULL); /* the test's alarm ends it */
  }
}

/* ---- the moments ------------------------------------------------------------------------------ */

/* A child that stands in front of `act`, and then of its end. */
static pid_t start_traced(void (*act)(void)) {
  pid_t child = check_fork();
  if (child == 0) {
    if (act == act_asking) prepare_asking();
    else prepare();
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    CHECK(raise(SIGSTOP) == 0);
    act();
    CHECK(raise(SIGSTOP) == 0);
    _exit(1);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK_INT(status, SIGSTOP << 8 | 0x7f);
  return child;
}

/* Its threads were traced, too. */
static void kill_traced(pid_t child) {
  CHECK(kill(child, SIGKILL) == 0);
  int status = 0;
  pid_t ended;
  do {
    ended = waitpid(-1, &status, __WALL);
    CHECK(ended > 0);
  } while (ended != child || !WIFSIGNALED(status));
  CHECK_INT(status, SIGKILL);
}

#define SYSCALL_STOP (SIGTRAP | 0x80)

/* Lets all its threads run to the `point`th entry into or exit from a system call. False if the
 * child came to its end before. */
static bool run_to_call(pid_t child, uint32_t point) {
  long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE;
  CHECK(ptrace(PTRACE_SETOPTIONS, child, NULL, options) == 0);
  CHECK(ptrace(PTRACE_SYSCALL, child, NULL, NULL) == 0);
  for (uint32_t stops = 0;;) {
    int status = 0;
    pid_t stopped = waitpid(-1, &status, __WALL);
    CHECK(stopped > 0);
    if (!WIFSTOPPED(status)) {
      CHECK(stopped != child); /* a thread has ended */
      continue;
    }
    int sign = WSTOPSIG(status);
    if (stopped == child && sign == SIGSTOP) return false;
    if (sign == SYSCALL_STOP && ++stops == point) return true;
    /* SIGSTOP: a thread begins; SIGTRAP: its creator is told. */
    CHECK(sign == SYSCALL_STOP || sign == SIGSTOP || sign == SIGTRAP);
    CHECK(ptrace(PTRACE_SYSCALL, stopped, NULL, NULL) == 0);
  }
}

/* Lets the asking thread do so many instructions. False if it came to its end before. */
static bool step(pid_t child, uint32_t count) {
  CHECK(ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_EXITKILL) == 0);
  for (uint32_t i = 0; i < count; i++) {
    CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSTOPPED(status));
    if (WSTOPSIG(status) == SIGSTOP) return false;
    CHECK_INT(WSTOPSIG(status), SIGTRAP);
  }
  return true;
}

/* The next point to kill at. Each one; or so many further on, and further the more there were:
 * how many instructions it takes depends on the build, and on how long other threads take. */
static uint32_t next_point(uint32_t point, uint32_t width) {
  return point + width + (width == 1 ? 0 : point / 16);
}

static void kill_at_each(void (*act)(void), bool (*run_to)(pid_t child, uint32_t point),
                         uint32_t width) {
  if (CHECK_TSAN) check_skip("kills processes: ThreadSanitizer watches threads");
  if (CHECK_EMULATED) check_skip("the emulator has no ptrace");
  uint64_t space = free_bytes();
  uint32_t lives = 0;
  uint32_t named = 0;
  uint32_t point = 1;
  for (bool goes_on = true; goes_on; lives++, point = next_point(point, width)) {
    make_world();
    pid_t child = start_traced(act);
    goes_on = run_to(child, point);
    kill_traced(child);
    if (survive()) named++;
  }
  /* Near the end it has a name; before, while space is reserved, none. */
  if (act == act_asking) CHECK_INT(named, 0);
  else CHECK(named > 0 && named < lives);
  check_space(space, lives);
  printf("      killed at %u points, the last at %u; its file had a name at %u of them\n", lives, point,
         named);
}

static void killed_between_system_calls(void) { kill_at_each(act_reserving, run_to_call, 1); }

static void killed_between_instructions_of_the_asking_thread(void) {
#if defined(__x86_64__)
  kill_at_each(act_asking, step, 29);
#else
  (void)step;
  check_skip("a step ends a load-exclusive's reservation: written for x86-64");
#endif
}

static void killed_at_random(void) {
  if (CHECK_TSAN) check_skip("kills processes: ThreadSanitizer watches threads");
  uint64_t space = free_bytes();
  uint64_t seed = 7;
  for (uint32_t i = 0; i < RANDOM_KILLS; i++) {
    make_world();
    struct gate begun = gate_make();
    pid_t child = check_fork();
    if (child == 0) {
      prepare();
      gate_open(&begun);
      act_for_ever();
    }
    gate_pass(&begun);
    struct timespec moment = {.tv_nsec = (long)(check_random(&seed) % 20000000)};
    (void)nanosleep(&moment, NULL);
    CHECK_KILL(child);
    close(begun.ends[0]);
    close(begun.ends[1]);
    (void)survive();
  }
  if (!CHECK_EMULATED) check_space(space, RANDOM_KILLS);
}

static const struct check_test tests[] = {
    TEST(killed_between_system_calls),
    TEST(killed_between_instructions_of_the_asking_thread),
    TEST(killed_at_random),
};
CHECK_MAIN(tests)

/*
 * check.h - what the C tests share: checks, child processes, a private directory.
 *
 * Each test runs in a process of its own, in a fresh directory under /dev/shm. So a test that
 * crashes or hangs is one failed test, its children die with it, and the directory is removed
 * whatever happened. A check that fails prints the values and ends the process it is in.
 */
#ifndef CHECK_H
#define CHECK_H

#include "dsmr.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A hang fails its test after this long. Far above what any test needs, also with sanitizers. */
#define CHECK_PATIENCE_S 300u
#define CHECK_SKIPPED 77

#if defined(__SANITIZE_THREAD__)
#define CHECK_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CHECK_TSAN 1
#endif
#endif
#ifndef CHECK_TSAN
#define CHECK_TSAN 0
#endif
#if CHECK_TSAN
/* Tests end by _exit, some in children: a race must end the process where it is found. */
const char *__tsan_default_options(void);
/* Death bells are mutexes that nobody ever waits for, so their order is no deadlock. */
const char *__tsan_default_options(void) { return "halt_on_error=1 detect_deadlocks=0"; }
#endif

/* 1: run by an emulator, which takes ten times as long. */
#ifndef CHECK_EMULATED
#define CHECK_EMULATED 0
#endif
/* 1: libc is linked in, so its code lies between ours. */
#ifndef CHECK_LIBC_INSIDE
#define CHECK_LIBC_INSIDE 0
#endif

/* The test's own directory, for every `directory` argument. */
static char check_directory[64];
#define DIRECTORY check_directory, (uint32_t)strlen(check_directory)
/* For every `error` argument: a failed check prints its message. */
static dsmr_error check_error;

/* ---- checks ------------------------------------------------------------------------- */

#define CHECK(condition) check_true((condition), #condition, __FILE__, __LINE__)
#define CHECK_INT(actual, wanted) \
  check_int((int64_t)(actual), (int64_t)(wanted), #actual, __FILE__, __LINE__)
#define CHECK_TEXT(actual, wanted) check_text((actual), (wanted), #actual, __FILE__, __LINE__)
/* The call succeeds; its value. */
#define CHECK_OK(call) check_ok((call), #call, __FILE__, __LINE__)
/* The call fails with this DSMR_E_ status. */
#define CHECK_FAILS(call, status) check_fails((call), (status), #call, __FILE__, __LINE__)

static inline void check_true(bool is_true, const char *what, const char *file, int line) {
  if (is_true) return;
  printf("%s:%d: not so: %s (errno %d)\n", file, line, what, errno);
  fflush(stdout);
  _exit(1);
}

static inline void check_int(int64_t actual, int64_t wanted, const char *what, const char *file,
                             int line) {
  if (actual == wanted) return;
  printf("%s:%d: %s is %" PRId64 " (%s), wanted %" PRId64 " (%s)\n", file, line, what, actual,
         dsmr_status_name((int32_t)actual), wanted, dsmr_status_name((int32_t)wanted));
  fflush(stdout);
  _exit(1);
}

static inline void check_text(const char *actual, const char *wanted, const char *what,
                              const char *file, int line) {
  if (strcmp(actual, wanted) == 0) return;
  printf("%s:%d: %s is \"%s\", wanted \"%s\"\n", file, line, what, actual, wanted);
  fflush(stdout);
  _exit(1);
}

static inline int32_t check_ok(int32_t outcome, const char *what, const char *file, int line) {
  if (outcome >= 0) return outcome;
  printf("%s:%d: %s failed: %s: %s\n", file, line, what, dsmr_status_name(outcome),
         check_error.status == outcome ? check_error.message : "");
  fflush(stdout);
  _exit(1);
}

static inline void check_fails(int32_t outcome, int32_t status, const char *what, const char *file,
                               int line) {
  check_int(outcome, status, what, file, line);
}

/* ---- the library, shortly ------------------------------------------------------------ */

#define NAME(text) (text), (uint32_t)strlen(text)

/* Registry `name` in the test's directory, small, as a new backend. */
static inline uint32_t check_open(const char *name, uint32_t backend_count_max,
                                  uint32_t segment_count_max) {
  dsmr_registry_options options = {.backend_count_max = backend_count_max,
                                   .segment_count_max = segment_count_max,
                                   .timeout_ms = -1};
  return (uint32_t)CHECK_OK(
      dsmr_registry_open(NAME(name), DIRECTORY, NULL, 0, &options, &check_error));
}

/* One begin; its outcome. */
static inline int32_t check_begin(uint32_t registry, const char *name, uint64_t size,
                                  dsmr_segment_ticket *ticket) {
  dsmr_segment_request request = {.size = size, .timeout_ms = -1};
  *ticket = (dsmr_segment_ticket){0};
  return dsmr_segment_begin(registry, NAME(name), &request, ticket, &check_error);
}

static inline unsigned char *check_bytes(const dsmr_segment_ticket *ticket) {
  return (unsigned char *)(uintptr_t)ticket->address;
}

static inline bool check_is_filled(const dsmr_segment_ticket *ticket, unsigned char byte) {
  for (uint64_t i = 0; i < ticket->size; i++) {
    if (check_bytes(ticket)[i] != byte) return false;
  }
  return true;
}

/* Creates segment `name`, filled with `byte`. */
static inline uint32_t check_create(uint32_t registry, const char *name, uint64_t size,
                                    uint32_t lifetime, unsigned char byte) {
  dsmr_segment_request request = {.size = size, .lifetime = lifetime, .timeout_ms = -1};
  dsmr_segment_ticket ticket = {0};
  CHECK_INT(dsmr_segment_begin(registry, NAME(name), &request, &ticket, &check_error),
            DSMR_INITIALIZE);
  CHECK(check_is_filled(&ticket, 0));
  memset(check_bytes(&ticket), byte, size);
  CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
  return ticket.segment;
}

/* ---- files, descriptors, memory -------------------------------------------------------- */

/* How many names in `path` start so; "" counts all but . and .. */
static inline int check_count(const char *path, const char *prefix) {
  DIR *stream = opendir(path);
  CHECK(stream != NULL);
  int count = 0;
  for (struct dirent *found; (found = readdir(stream)) != NULL;) {
    if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0) continue;
    if (strncmp(found->d_name, prefix, strlen(prefix)) == 0) count++;
  }
  closedir(stream);
  return count;
}

static inline int check_descriptors(void) { return check_count("/proc/self/fd", ""); }

/* The path of the first file whose name starts so. */
static inline void check_path(const char *prefix, char path[512]) {
  DIR *stream = opendir(check_directory);
  CHECK(stream != NULL);
  path[0] = '\0';
  for (struct dirent *found; (found = readdir(stream)) != NULL && path[0] == '\0';) {
    if (strncmp(found->d_name, prefix, strlen(prefix)) != 0) continue;
    CHECK(snprintf(path, 512, "%s/%s", check_directory, found->d_name) < 512);
  }
  closedir(stream);
  CHECK(path[0] != '\0');
}

/* Zeroed memory that this process shares with the children it forks. */
static inline void *check_shared(size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  return memory;
}

/* xorshift64*: the same numbers everywhere for the same seed, which must not be 0. */
static inline uint64_t check_random(uint64_t *seed) {
  *seed ^= *seed >> 12;
  *seed ^= *seed << 25;
  *seed ^= *seed >> 27;
  return (*seed * UINT64_C(2685821657736338717)) >> 16;
}

/* ---- processes -------------------------------------------------------------------------- */

/* As fork; the child dies with us. The child must end by _exit. */
static inline pid_t check_fork(void) {
  pid_t parent = getpid();
  fflush(stdout);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1); /* died before prctl */
  }
  return child;
}

/* Waits for the child's end, which must be _exit(0). */
#define CHECK_CHILD(child) check_child((child), 0, __FILE__, __LINE__)
/* Kills the child and waits until it is gone. */
#define CHECK_KILL(child)                            \
  do {                                               \
    CHECK(kill((child), SIGKILL) == 0);              \
    check_child((child), SIGKILL, __FILE__, __LINE__); \
  } while (0)

static inline void check_child(pid_t child, int wanted, const char *file, int line) {
  int status = 0;
  pid_t got;
  do {
    got = waitpid(child, &status, 0);
  } while (got < 0 && errno == EINTR);
  check_int(got, child, "waitpid", file, line);
  check_int(status, wanted, "the child's wait status", file, line);
}

/* A way to wait for another process: who passes sleeps until somebody opens. */
struct gate {
  int ends[2];
};

static inline struct gate gate_make(void) {
  struct gate gate;
  CHECK(pipe(gate.ends) == 0);
  return gate;
}

static inline void gate_open(const struct gate *gate) { CHECK(write(gate->ends[1], "", 1) == 1); }

static inline void gate_pass(const struct gate *gate) {
  char byte;
  ssize_t got;
  do {
    got = read(gate->ends[0], &byte, 1);
  } while (got < 0 && errno == EINTR);
  CHECK(got == 1);
}

/* ---- the run ---------------------------------------------------------------------------- */

struct check_test {
  const char *name;
  void (*run)(void);
};
#define TEST(function) {#function, function}

/* Ends the test: it cannot run here, for this reason. */
static inline _Noreturn void check_skip(const char *reason) {
  printf("      skipped: %s\n", reason);
  fflush(stdout);
  _exit(CHECK_SKIPPED);
}

static inline void check_remove_tree(const char *path) {
  DIR *stream = opendir(path);
  if (stream != NULL) {
    for (struct dirent *found; (found = readdir(stream)) != NULL;) {
      if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0) continue;
      char inner[1024];
      int length = snprintf(inner, sizeof inner, "%s/%s", path, found->d_name);
      if (length >= (int)sizeof inner) continue;
      struct stat status;
      if (lstat(inner, &status) == 0 && S_ISDIR(status.st_mode)) check_remove_tree(inner);
      else (void)unlink(inner);
    }
    closedir(stream);
  }
  (void)rmdir(path);
}

static volatile sig_atomic_t check_interrupted;
static volatile pid_t check_running;

static inline void check_interrupt(int number) {
  check_interrupted = number;
  if (check_running > 0) kill(check_running, SIGKILL);
}

/* Returns the wait status of the test's process. */
static inline int check_run_one(const struct check_test *test) {
  snprintf(check_directory, sizeof check_directory, "/dev/shm/dsmr-test.XXXXXX");
  if (mkdtemp(check_directory) == NULL) {
    printf("no directory for the tests: %s\n", strerror(errno));
    return 1 << 8;
  }
  pid_t child = check_fork();
  if (child == 0) {
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    alarm(CHECK_PATIENCE_S);
    test->run();
    fflush(stdout);
    _exit(0);
  }
  check_running = child;
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  check_running = 0;
  /* Its children die with it, but not at once, and are ours then: one that still runs could
   * make a file after we have looked. */
  while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) continue;
  check_remove_tree(check_directory);
  return status;
}

/* Runs the tests, or those whose name contains the first argument; the exit status. */
static inline int check_run(const struct check_test *tests, size_t count, int argc, char **argv) {
  int passed = 0;
  int failed = 0;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  signal(SIGINT, check_interrupt);
  signal(SIGTERM, check_interrupt);
  for (size_t i = 0; i < count && check_interrupted == 0; i++) {
    if (argc > 1 && strstr(tests[i].name, argv[1]) == NULL) continue;
    int status = check_run_one(&tests[i]);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CHECK_SKIPPED) {
      printf("skip  %s\n", tests[i].name);
    } else if (status == 0) {
      printf("ok    %s\n", tests[i].name);
      passed++;
    } else {
      if (WIFSIGNALED(status)) printf("      ended by signal %d\n", WTERMSIG(status));
      printf("FAIL  %s\n", tests[i].name);
      failed++;
    }
    fflush(stdout);
  }
  if (check_interrupted != 0) failed++;
  printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

#define CHECK_MAIN(tests)                                                      \
  int main(int argc, char **argv) {                                            \
    return check_run((tests), sizeof(tests) / sizeof(tests)[0], argc, argv);   \
  }

#endif

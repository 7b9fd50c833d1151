/*
 * fault_test.c - a system that says no: no space, no larger files, any call failing.
 */
#include "check.h"

#include "os.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

static int32_t try_open(uint32_t mode, uint32_t backend_count_max, uint32_t segment_count_max) {
  dsmr_registry_options options = {.mode = mode,
                                   .backend_count_max = backend_count_max,
                                   .segment_count_max = segment_count_max,
                                   .timeout_ms = -1};
  return dsmr_registry_open("r", 1, DIRECTORY, NULL, 0, &options, &check_error);
}

/* ---- space ---------------------------------------------------------------------------- */

static void write_file(const char *path, const char *text) {
  int fd = open(path, O_WRONLY);
  if (fd < 0) check_skip("no user namespace to mount a small file system in");
  CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
  close(fd);
}

/*
 * Puts a small tmpfs over the test's directory, in a mount namespace of this process, so that
 * it goes with the process. Who is not root becomes it in a user namespace.
 */
static void mount_small(const char *options) {
  if (geteuid() != 0) {
    char map[64];
    snprintf(map, sizeof map, "0 %u 1", (unsigned)geteuid());
    if (unshare(CLONE_NEWUSER) != 0) check_skip("not root, and no user namespaces");
    write_file("/proc/self/uid_map", map);
  }
  if (unshare(CLONE_NEWNS) != 0) check_skip("no mount namespaces");
  /* Or the mount would be seen by, and left to, everybody. */
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) check_skip("no private mounts");
  if (mount("none", check_directory, "tmpfs", 0, options) != 0) check_skip("no tmpfs to mount");
}

static void full_file_system_is_no_space_with_numbers_and_no_remains(void) {
  mount_small("size=1m,mode=700");
  enum { SIZE = 64 << 10 };
  uint32_t registry = (uint32_t)CHECK_OK(try_open(DSMR_MODE_OPEN, 4, 64));
  dsmr_segment_ticket tickets[64];
  int count = 0;
  int32_t outcome;
  for (;; count++) {
    char name[16];
    snprintf(name, sizeof name, "segment %d", count);
    int descriptors = check_descriptors();
    outcome = check_begin(registry, name, SIZE, &tickets[count]);
    CHECK_INT(check_descriptors(), descriptors);
    if (outcome != DSMR_INITIALIZE) break;
    CHECK_OK(dsmr_segment_commit(tickets[count].segment, &check_error));
    CHECK(count < 16);
  }
  CHECK_INT(outcome, DSMR_E_NO_SPACE);
  CHECK(check_error.actual < SIZE + 128);
  CHECK_INT(check_error.requested, SIZE);
  CHECK(count >= 10);
  CHECK_INT(check_count(check_directory, "dsmr.s."), count);
  CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), count);
  /* What was given can be written: a page that is not there would be a SIGBUS. */
  for (int i = 0; i < count; i++) memset(check_bytes(&tickets[i]), 1, SIZE);
  dsmr_registry_options options = {.timeout_ms = -1};
  CHECK_FAILS(dsmr_registry_open("big", 3, DIRECTORY, NULL, 0, &options, &check_error),
              DSMR_E_NO_SPACE);
  CHECK(check_error.actual > 0 && check_error.actual < check_error.requested);
  CHECK_INT(check_count(check_directory, ""), count + 1);
  CHECK_INT(dsmr_segment_drop(registry, "segment 0", 9, 0, &check_error), 1);
  CHECK_OK(dsmr_segment_detach(tickets[0].segment));
  CHECK_INT(check_begin(registry, "again", SIZE, &tickets[0]), DSMR_INITIALIZE);
  CHECK(check_is_filled(&tickets[0], 0));
}

static void file_system_without_inodes_is_no_space(void) {
  mount_small("size=8m,nr_inodes=3,mode=700"); /* the root, the registry, one segment */
  uint32_t registry = (uint32_t)CHECK_OK(try_open(DSMR_MODE_OPEN, 4, 8));
  check_create(registry, "a", 64, DSMR_LIFETIME_REGISTRY, 1);
  dsmr_segment_ticket ticket;
  CHECK_FAILS(check_begin(registry, "b", 64, &ticket), DSMR_E_NO_SPACE);
  CHECK_INT(check_error.os_errno, ENOSPC);
  CHECK_FAILS(dsmr_registry_open("r2", 2, DIRECTORY, NULL, 0, NULL, &check_error),
              DSMR_E_NO_SPACE);
  CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 1);
  CHECK_INT(dsmr_segment_drop(registry, "a", 1, 0, &check_error), 1);
  /* The file goes when nobody has it mapped any more. */
  CHECK_OK(dsmr_registry_close(registry));
  registry = (uint32_t)CHECK_OK(try_open(DSMR_MODE_OPEN, 4, 8));
  check_create(registry, "b", 64, DSMR_LIFETIME_REGISTRY, 1);
}

/* The kernel would send SIGXFSZ, which kills. */
static void limit_on_file_size_is_no_space_and_no_signal(void) {
  uint32_t registry = (uint32_t)CHECK_OK(try_open(DSMR_MODE_OPEN, 4, 8));
  struct rlimit limit = {100000, 100000};
  CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  dsmr_segment_ticket ticket;
  CHECK_FAILS(check_begin(registry, "s", 100000, &ticket), DSMR_E_NO_SPACE);
  CHECK_INT(check_error.actual, 100000);
  CHECK_INT(check_error.requested, 100000);
  CHECK_FAILS(dsmr_registry_open("big", 3, DIRECTORY, NULL, 0, NULL, &check_error),
              DSMR_E_NO_SPACE);
  CHECK_INT(check_error.actual, 100000);
  CHECK_INT(check_count(check_directory, ""), 1);
  CHECK_INT(check_begin(registry, "s", 100000 - 128, &ticket), DSMR_INITIALIZE);
}

static void process_without_descriptors_is_no_space(void) {
  uint32_t registry = (uint32_t)CHECK_OK(try_open(DSMR_MODE_OPEN, 4, 8));
  check_create(registry, "a", 64, DSMR_LIFETIME_REGISTRY, 1);
  CHECK_OK(dsmr_registry_close(registry));
  registry = (uint32_t)CHECK_OK(try_open(DSMR_MODE_OPEN, 4, 8));
  /* Takes all that are left below the limit. */
  struct rlimit limit = {64, 64};
  CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  while (dup(0) >= 0) continue;
  CHECK_INT(errno, EMFILE);
  dsmr_segment_ticket ticket;
  CHECK_FAILS(check_begin(registry, "a", 64, &ticket), DSMR_E_NO_SPACE);
  CHECK_FAILS(check_begin(registry, "b", 64, &ticket), DSMR_E_NO_SPACE);
  CHECK_FAILS(try_open(DSMR_MODE_OPEN, 4, 8), DSMR_E_NO_SPACE);
  CHECK(close(63) == 0);
  CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 1);
  CHECK_INT(check_begin(registry, "a", 64, &ticket), DSMR_FOUND);
  CHECK_INT(check_begin(registry, "b", 64, &ticket), DSMR_INITIALIZE);
}

static void failed_opens_leak_no_handles(void) {
  CHECK_OK(try_open(DSMR_MODE_OPEN, 4, 8));
  for (int i = 0; i < 70000; i++) {
    CHECK_FAILS(try_open(DSMR_MODE_CREATE, 4, 8), DSMR_E_EXISTS);
  }
  CHECK_OK(try_open(DSMR_MODE_OPEN, 4, 8));
}

/* ---- every call of an operation failing ---------------------------------------------------- */

#ifdef DSMR_FAULTS

/* What an operation works on. */
static uint32_t registry;
static uint32_t segment;

static void prepare_nothing(void) {}

static void prepare_file(void) {
  uint32_t own = (uint32_t)CHECK_OK(try_open(DSMR_MODE_OPEN, 4, 8));
  check_create(own, "kept", 64, DSMR_LIFETIME_REGISTRY, 1);
  CHECK_OK(dsmr_registry_close(own));
}

/* A backend that is attached to one segment, while another process died initialising one. */
static void prepare_backend(void) {
  prepare_file();
  registry = (uint32_t)CHECK_OK(try_open(DSMR_MODE_OPEN, 4, 8));
  pid_t child = check_fork();
  if (child == 0) {
    dsmr_segment_ticket ticket;
    uint32_t own = (uint32_t)CHECK_OK(try_open(DSMR_MODE_OPEN, 4, 8));
    CHECK_INT(check_begin(own, "dead", 64, &ticket), DSMR_INITIALIZE);
    _exit(0);
  }
  CHECK_CHILD(child);
}

static void prepare_initialising(void) {
  dsmr_segment_ticket ticket;
  prepare_backend();
  CHECK_INT(check_begin(registry, "new", 64, &ticket), DSMR_INITIALIZE);
  segment = ticket.segment;
}

static void prepare_temporary(void) {
  prepare_backend();
  segment = check_create(registry, "temporary", 64, DSMR_LIFETIME_ATTACHED, 1);
}

static int32_t act_open(void) {
  int32_t outcome = try_open(DSMR_MODE_OPEN, 4, 8);
  if (outcome > 0) registry = (uint32_t)outcome;
  return outcome;
}

static int32_t act_create(void) {
  dsmr_segment_ticket ticket;
  return check_begin(registry, "new", 64, &ticket);
}

static int32_t act_replace(void) {
  dsmr_segment_ticket ticket;
  return check_begin(registry, "dead", 64, &ticket);
}

static int32_t act_attach(void) {
  dsmr_segment_ticket ticket;
  return check_begin(registry, "kept", 64, &ticket);
}

static int32_t act_commit(void) { return dsmr_segment_commit(segment, &check_error); }
static int32_t act_abort(void) { return dsmr_segment_abort(segment, &check_error); }
static int32_t act_detach(void) { return dsmr_segment_detach(segment); }
static int32_t act_drop(void) { return dsmr_segment_drop(registry, "kept", 4, 0, &check_error); }
static int32_t act_list(void) { return dsmr_registry_list(DIRECTORY, NULL, 0, &check_error); }
static int32_t act_segments(void) { return dsmr_segments(registry, NULL, 0, &check_error); }
static int32_t act_backends(void) { return dsmr_backends(registry, NULL, 0, &check_error); }
static int32_t act_destroy(void) { return dsmr_registry_destroy("r", 1, DIRECTORY, &check_error); }

static int32_t act_create_in_database(void) {
  dsmr_segment_request request = {.size = 64, .timeout_ms = -1, .scope = DSMR_SCOPE_DATABASE};
  dsmr_segment_ticket ticket = {0};
  return dsmr_segment_begin(registry, "own", 3, &request, &ticket, &check_error);
}

static void prepare_database(void) {
  prepare_backend();
  dsmr_segment_request request = {.size = 64, .timeout_ms = -1, .scope = DSMR_SCOPE_DATABASE};
  dsmr_segment_ticket ticket = {0};
  CHECK_INT(dsmr_segment_begin(registry, "own", 3, &request, &ticket, &check_error),
            DSMR_INITIALIZE);
  CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
  CHECK_OK(dsmr_segment_detach(ticket.segment));
}

static int32_t act_drop_database(void) {
  return dsmr_database_drop(registry, "default", 7, &check_error);
}

static int32_t act_close(void) {
  int32_t outcome = dsmr_registry_close(registry);
  registry = 0;
  return outcome;
}

struct operation {
  const char *name;
  void (*prepare)(void);
  int32_t (*act)(void);
};

static const struct operation operations[] = {
    {"open that creates", prepare_nothing, act_open},
    {"open that attaches", prepare_file, act_open},
    {"begin that creates", prepare_backend, act_create},
    {"begin that replaces the dead", prepare_backend, act_replace},
    {"begin that attaches", prepare_backend, act_attach},
    {"commit", prepare_initialising, act_commit},
    {"abort", prepare_initialising, act_abort},
    {"detach", prepare_temporary, act_detach},
    {"drop", prepare_backend, act_drop},
    {"begin that creates in the database", prepare_backend, act_create_in_database},
    {"drop of a database", prepare_database, act_drop_database},
    {"close", prepare_temporary, act_close},
    {"list", prepare_backend, act_list},
    {"segments", prepare_backend, act_segments},
    {"backends", prepare_backend, act_backends},
    {"destroy", prepare_backend, act_destroy},
};

/* ENOENT, EEXIST and EAGAIN are answers, not failures: injected, they would be lies. */
static const int32_t errnos[] = {EIO, ENOSPC, EMFILE, ENOMEM, EACCES, ENOLCK};

/* After the failure the registry works as if nothing had been, and nothing is left of it. */
static void check_recovered(const struct operation *operation, int32_t outcome) {
  dsmr_segment_ticket ticket;
  if (registry != 0 && operation->act != act_destroy) {
    /* What failed can be done again. For commit and abort the segment is still ours. */
    if (outcome < 0) CHECK_OK(operation->act());
    CHECK_OK(check_begin(registry, "fresh", 64, &ticket));
    CHECK_OK(dsmr_registry_close(registry));
    registry = 0;
  }
  if (registry != 0) CHECK_OK(dsmr_registry_close(registry));
  registry = 0;
  CHECK_OK(act_destroy());
  CHECK_INT(check_count(check_directory, ""), 0);
  prepare_backend();
  CHECK_INT(check_begin(registry, "dead", 32, &ticket), DSMR_INITIALIZE);
  CHECK_INT(check_begin(registry, "kept", 64, &ticket), DSMR_FOUND);
  CHECK(check_is_filled(&ticket, 1));
  CHECK_INT(dsmr_backends(registry, NULL, 0, &check_error), 1);
  CHECK_OK(dsmr_registry_close(registry));
  registry = 0;
  CHECK_INT(act_destroy(), 1);
  CHECK_INT(check_count(check_directory, ""), 0);
}

/* The n-th call of the operation fails. False if there are not so many. */
static bool fail_call(const struct operation *operation, uint32_t n, int32_t os_errno) {
  registry = 0;
  int descriptors = check_descriptors();
  operation->prepare();
  os_fault = (struct os_fault){.countdown = n, .os_errno = os_errno};
  int32_t outcome = operation->act();
  bool has_failed = os_fault.countdown == 0;
  os_fault = (struct os_fault){0};
  bool is_sane = outcome >= 0 || (outcome <= -5001 && outcome >= -5026);
  if (!is_sane) printf("%s, call %u, errno %d: %d\n", operation->name, n, os_errno, outcome);
  CHECK(is_sane);
  check_recovered(operation, outcome);
  if (check_descriptors() != descriptors) printf("%s, call %u:\n", operation->name, n);
  CHECK_INT(check_descriptors(), descriptors);
  return has_failed;
}

static void any_failing_call_is_an_error_and_leaks_nothing(void) {
  uint32_t tried = 0;
  CHECK_OK(dsmr_registry_list(DIRECTORY, NULL, 0, &check_error)); /* starts the library */
  for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
    for (size_t k = 0; k < sizeof errnos / sizeof errnos[0]; k++) {
      uint32_t n = 1;
      while (fail_call(&operations[i], n, errnos[k])) n++;
      CHECK(n > 1);
      tried += n - 1;
    }
  }
  printf("      %u failures injected\n", tried);
}

#else

static void any_failing_call_is_an_error_and_leaks_nothing(void) {
  check_skip("built without -DDSMR_FAULTS");
}

#endif

static const struct check_test tests[] = {
    TEST(full_file_system_is_no_space_with_numbers_and_no_remains),
    TEST(file_system_without_inodes_is_no_space),
    TEST(limit_on_file_size_is_no_space_and_no_signal),
    TEST(process_without_descriptors_is_no_space),
    TEST(failed_opens_leak_no_handles),
    TEST(any_failing_call_is_an_error_and_leaks_nothing),
};
CHECK_MAIN(tests)

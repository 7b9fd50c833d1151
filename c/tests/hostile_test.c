/*
 * hostile_test.c - files that are not what they must be: an error each, never a crash.
 */
#include "check.h"

#include "layout.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

static int32_t try_open(const char *name) {
  dsmr_registry_options options = {
      .backend_count_max = 4, .segment_count_max = 8, .timeout_ms = 1000};
  return dsmr_registry_open(NAME(name), DIRECTORY, NULL, 0, &options, &check_error);
}

static int32_t try_destroy(const char *name) {
  return dsmr_registry_destroy(NAME(name), DIRECTORY, &check_error);
}

static void control_path(char path[512]) {
  snprintf(path, 512, "%s/dsmr.r.r", check_directory);
}

/* ---- things under the registry's name that are no file of ours -------------------------- */

/* What is at the path is refused by all calls, and still there. */
static void check_refused(const char *what) {
  char path[512];
  struct stat before;
  struct stat after;
  control_path(path);
  CHECK(lstat(path, &before) == 0);
  CHECK_FAILS(try_open("r"), DSMR_E_PERMISSION);
  CHECK(strstr(check_error.message, path) != NULL);
  CHECK(strstr(check_error.message, what) != NULL);
  CHECK_FAILS(try_destroy("r"), DSMR_E_PERMISSION);
  CHECK(strstr(check_error.message, what) != NULL);
  CHECK_INT(dsmr_registry_list(DIRECTORY, NULL, 0, &check_error), 0);
  CHECK(lstat(path, &after) == 0);
  CHECK_INT(before.st_ino, after.st_ino);
  CHECK_INT(before.st_size, after.st_size);
}

static void links_are_refused(void) {
  char path[512];
  char other[512];
  control_path(path);
  CHECK_OK(dsmr_registry_close((uint32_t)CHECK_OK(try_open("r"))));
  snprintf(other, sizeof other, "%s/elsewhere", check_directory);
  CHECK(link(path, other) == 0);
  check_refused("2 hard links");
  CHECK(unlink(path) == 0 && symlink(other, path) == 0);
  check_refused("symbolic link");
  CHECK(unlink(other) == 0);
  check_refused("symbolic link"); /* one that leads nowhere is not created through */
  CHECK_INT(check_count(check_directory, ""), 1);
}

static void what_is_no_regular_file_is_refused(void) {
  char path[512];
  control_path(path);
  CHECK(mkfifo(path, 0600) == 0);
  check_refused("not a regular file");
  CHECK(unlink(path) == 0 && mkdir(path, 0700) == 0);
  check_refused("not a regular file");
  CHECK(rmdir(path) == 0);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  CHECK(snprintf(address.sun_path, sizeof address.sun_path, "%s", path) > 0);
  CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
  check_refused("not a regular file");
}

static void file_of_another_user_is_refused(void) {
  if (geteuid() != 0) check_skip("only root can give a file away");
  char path[512];
  control_path(path);
  CHECK_OK(dsmr_registry_close((uint32_t)CHECK_OK(try_open("r"))));
  CHECK(chown(path, 4711, 0) == 0);
  check_refused("uid 4711");
}

static void files_are_private_whatever_the_umask(void) {
  static const mode_t masks[] = {0777, 0, 022};
  for (int i = 0; i < 3; i++) {
    umask(masks[i]);
    uint32_t registry = (uint32_t)CHECK_OK(try_open("r"));
    check_create(registry, "s", 8, DSMR_LIFETIME_REGISTRY, 1);
    CHECK_OK(dsmr_registry_close(registry));
    char path[512];
    struct stat status;
    check_path("dsmr.r.", path);
    CHECK(stat(path, &status) == 0);
    CHECK_INT(status.st_mode & 07777, 0600);
    check_path("dsmr.s.", path);
    CHECK(stat(path, &status) == 0);
    CHECK_INT(status.st_mode & 07777, 0600);
    CHECK_INT(try_destroy("r"), 1);
  }
}

/* ---- control files with other bytes -------------------------------------------------------- */

static unsigned char pristine[1 << 18];
static size_t pristine_size;

/*
 * A registry with all that there can be in one, and its bytes: segments of both lifetimes, a
 * dropped one, one that a dead backend was initialising, dead backends' slots.
 */
static void make_pristine(void) {
  pid_t child = check_fork();
  if (child == 0) {
    uint32_t registry = (uint32_t)CHECK_OK(try_open("r"));
    dsmr_segment_ticket ticket;
    check_create(registry, "a", 64, DSMR_LIFETIME_REGISTRY, 1);
    check_create(registry, "b", 5000, DSMR_LIFETIME_REGISTRY, 2);
    check_create(registry, "c", 64, DSMR_LIFETIME_ATTACHED, 3);
    check_create(registry, "d", 64, DSMR_LIFETIME_REGISTRY, 4);
    CHECK_INT(check_begin(registry, "e", 64, &ticket), DSMR_INITIALIZE);
    CHECK_INT(dsmr_segment_drop(registry, "d", 1, 0, &check_error), 1);
    _exit(0);
  }
  CHECK_CHILD(child);
  char path[512];
  control_path(path);
  int fd = open(path, O_RDONLY);
  ssize_t size = read(fd, pristine, sizeof pristine);
  CHECK(fd >= 0 && size > 4000 && size < (ssize_t)sizeof pristine);
  pristine_size = (size_t)size;
  close(fd);
}

/* Puts these bytes under the registry's name, as a new file. */
static void put_control(const void *bytes, size_t size) {
  char path[512];
  control_path(path);
  (void)unlink(path);
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
  close(fd);
}

static void control_file_of_any_other_length_is_corrupt(void) {
  make_pristine();
  for (size_t size = 0; size < pristine_size; size += size < 512 ? 1 : 61) {
    put_control(pristine, size);
    CHECK_FAILS(try_open("r"), DSMR_E_CORRUPT);
    dsmr_registry_info info;
    CHECK_INT(dsmr_registry_list(DIRECTORY, &info, 1, &check_error), 1);
    CHECK_INT(info.status, DSMR_E_CORRUPT);
  }
  pristine[pristine_size] = 0;
  put_control(pristine, pristine_size + 1);
  CHECK_FAILS(try_open("r"), DSMR_E_CORRUPT);
  put_control(pristine, 100);
  CHECK_INT(try_destroy("r"), 1);
  CHECK_INT(check_count(check_directory, ""), 0);
}

/* What open must say when byte `at` of the header is another one. */
static int32_t wanted_for_byte(size_t at) {
  if (at >= 8 && at < 12) return DSMR_E_VERSION_MISMATCH;
  if (at < 24) return DSMR_E_CORRUPT;             /* magic, state, size */
  if (at >= 64 && at < 96) return DSMR_E_CORRUPT; /* limits, offsets, the name's length */
  if (at == 96) return DSMR_E_CORRUPT;            /* the name, which is "r" */
  size_t tranches = offsetof(struct control_header, tranches_offset);
  if (at >= tranches && at < tranches + 4) return DSMR_E_CORRUPT;
  return 0; /* numbers that may be anything */
}

static void every_header_byte_that_matters_is_checked(void) {
  static const unsigned char masks[] = {0x01, 0x80, 0xff};
  make_pristine();
  for (size_t at = 0; at < sizeof(struct control_header); at++) {
    for (int i = 0; i < 3; i++) {
      unsigned char bytes[sizeof pristine];
      memcpy(bytes, pristine, pristine_size);
      bytes[at] ^= masks[i];
      put_control(bytes, pristine_size);
      int32_t outcome = try_open("r");
      int32_t wanted = wanted_for_byte(at);
      if (outcome >= 0 ? wanted != 0 : outcome != wanted) {
        printf("byte %zu changed by %02x: ", at, masks[i]);
        CHECK_INT(outcome, wanted);
      }
      if (outcome > 0) CHECK_OK(dsmr_registry_close((uint32_t)outcome));
    }
  }
}

/* A status, or a success; anything else would be a crash. */
static int32_t sane(int32_t outcome) {
  CHECK(outcome >= 0 || (outcome <= -5001 && outcome >= -5026));
  return outcome;
}

/* Every call once, on whatever is there. */
static void use_everything(uint32_t registry) {
  static const char names[7][2] = {"a", "b", "c", "d", "e", "f", "g"};
  static dsmr_segment_info segments[64];
  static dsmr_backend_info backends[256];
  static dsmr_lock_info locks[64];
  static dsmr_tranche_info tranches[64];
  dsmr_registry_info info;
  sane(dsmr_tranches(registry, tranches, 64, &check_error));
  sane(dsmr_tranche_new(registry, "t", 1, 0, &check_error));
  sane(dsmr_locks(registry, locks, 64, &check_error));
  for (int i = 0; i < 7; i++) {
    dsmr_segment_request request = {.size = i % 2 == 0 ? 64 : 0, .timeout_ms = 0};
    dsmr_segment_ticket ticket = {0};
    int32_t outcome =
        sane(dsmr_segment_begin(registry, names[i], 1, &request, &ticket, &check_error));
    if (outcome == DSMR_WAIT) {
      sane(dsmr_segment_wait(registry, names[i], 1, &request, &ticket, &check_error));
    } else if (outcome >= 0) {
      memset(check_bytes(&ticket), 5, ticket.size);
      int32_t lock = sane(dsmr_lock_of_segment(ticket.segment, &check_error));
      if (lock > 0) {
        if (sane(dsmr_lock_acquire((uint32_t)lock, DSMR_EXCLUSIVE, 20)) < DSMR_LOCK_BUSY) {
          sane(dsmr_locks(registry, locks, 64, &check_error));
          sane(dsmr_lock_release((uint32_t)lock));
        }
        sane(dsmr_lock_cancel((uint32_t)lock));
        if (sane(dsmr_lock_try((uint32_t)lock, DSMR_SHARED)) < DSMR_LOCK_BUSY) {
          sane(dsmr_lock_release((uint32_t)lock));
        }
      }
      sane(dsmr_segment_is_current(ticket.segment));
      if (outcome == DSMR_INITIALIZE && i != 5) {
        sane(dsmr_segment_commit(ticket.segment, &check_error));
      }
      if (i == 6) sane(dsmr_segment_detach(ticket.segment));
    }
    if (i == 2) sane(dsmr_segment_lookup(registry, "a", 1, 0, &ticket, &check_error));
  }
  sane(dsmr_segments(registry, segments, 64, &check_error));
  sane(dsmr_backends(registry, backends, 256, &check_error));
  sane(dsmr_registry_describe(registry, &info, &check_error));
  for (int i = 0; i < 3; i++) sane(dsmr_segment_drop(registry, names[i], 1, 0, &check_error));
}

static void set_random_word(unsigned char *bytes, uint64_t *seed) {
  static const uint32_t values[] = {0,  1,  2,   3,      4,      15,         16,         17,
                                    63, 64, 255, 0x1000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff};
  uint64_t random = check_random(seed);
  uint32_t value = random >> 40 & 1 ? (uint32_t)check_random(seed) : values[random >> 32 & 15];
  /* Words behind the header, mostly: a header that does not pass ends the matter at once. */
  size_t first = (random >> 44 & 7) == 0 ? 0 : sizeof(struct control_header);
  size_t at = first + random % ((pristine_size - first) / 4) * 4;
  memcpy(bytes + at, &value, sizeof value);
}

static void mutate(unsigned char *bytes, uint64_t *seed) {
  uint64_t count = check_random(seed) % 24 + 1;
  for (uint64_t i = 0; i < count; i++) {
    uint64_t random = check_random(seed);
    if ((random & 3) == 0) {
      bytes[256 + (random >> 8) % (pristine_size - 256)] = (unsigned char)(random >> 40);
    } else {
      set_random_word(bytes, seed);
    }
  }
  /* Now and then one entry's bytes for another's, so that names, ids and states repeat. */
  if (count % 5 == 0) {
    size_t entries = pristine_size - 16 * sizeof(struct entry);
    memmove(bytes + entries + check_random(seed) % 16 * sizeof(struct entry),
            bytes + entries + check_random(seed) % 16 * sizeof(struct entry), sizeof(struct entry));
  }
}

/* Changes the file that the registry has mapped, as somebody would who writes at random. */
static void mutate_attached(const unsigned char *bytes) {
  char path[512];
  control_path(path);
  int fd = open(path, O_WRONLY);
  CHECK(fd >= 0 && pwrite(fd, bytes, pristine_size, 0) == (ssize_t)pristine_size);
  close(fd);
}

static void mutated_control_files_never_crash_or_hang_anybody(void) {
  if (CHECK_TSAN) check_skip("forks 4,000 processes: ThreadSanitizer watches threads");
  enum { ROUNDS = CHECK_EMULATED ? 400 : 4000 };
  uint64_t seed = UINT64_C(0x5eed0001);
  int32_t *attached = check_shared(sizeof *attached);
  make_pristine();
  for (int round = 0; round < ROUNDS; round++) {
    uint64_t start = seed;
    unsigned char bytes[sizeof pristine];
    memcpy(bytes, pristine, pristine_size);
    mutate(bytes, &seed);
    bool is_mutated_before = round % 2 == 0;
    put_control(is_mutated_before ? bytes : pristine, pristine_size);
    pid_t child = check_fork();
    if (child == 0) {
      alarm(60);
      int32_t registry = sane(try_open("r"));
      if (!is_mutated_before) mutate_attached(bytes);
      if (registry > 0) {
        *attached += 1;
        use_everything((uint32_t)registry);
      }
      sane(dsmr_registry_list(DIRECTORY, NULL, 0, &check_error));
      if (registry > 0 && round % 4 < 2) sane(dsmr_registry_close((uint32_t)registry));
      sane(try_destroy("r"));
      if (registry > 0 && round % 4 >= 2) sane(dsmr_registry_close((uint32_t)registry));
      _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    if (status != 0) printf("round %d, seed %016" PRIx64 ":\n", round, start);
    CHECK_INT(status, 0);
    (void)try_destroy("r");
  }
  printf("      %d mutations from seed 5eed0001, %d of them attached\n", ROUNDS, *attached);
  CHECK(*attached > ROUNDS / 2);
}

/* Writes words at random into the registry's control file, until it is killed. */
static _Noreturn void write_on(uint64_t seed, const struct gate *begun) {
  char path[512];
  control_path(path);
  int fd = open(path, O_RDWR);
  CHECK(fd >= 0);
  unsigned char *bytes = mmap(NULL, pristine_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(bytes != MAP_FAILED);
  gate_open(begun);
  for (;;) {
    set_random_word(bytes, &seed);
    /* And often what was there, so that those who read it get somewhere. */
    size_t at = check_random(&seed) % (pristine_size / 64) * 64;
    memcpy(bytes + at, pristine + at, 64);
  }
}

static void control_file_that_somebody_writes_into_all_the_time_crashes_nobody(void) {
  if (CHECK_TSAN) check_skip("races with a writer on purpose");
  enum { ROUNDS = CHECK_EMULATED ? 10 : 100 };
  make_pristine();
  int32_t *attached = check_shared(sizeof *attached);
  for (int round = 0; round < ROUNDS; round++) {
    put_control(pristine, pristine_size);
    struct gate begun = gate_make();
    pid_t writer = check_fork();
    if (writer == 0) write_on(UINT64_C(0x5eed0003) + (uint64_t)round * 7919, &begun);
    gate_pass(&begun);
    pid_t child = check_fork();
    if (child == 0) {
      alarm(60);
      for (int i = 0; i < 20; i++) {
        int32_t registry = sane(try_open("r"));
        if (registry <= 0) continue;
        *attached += 1;
        if (i % 2 == 0) use_everything((uint32_t)registry);
        sane(dsmr_registry_close((uint32_t)registry));
      }
      _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    if (status != 0) printf("round %d:\n", round);
    CHECK_KILL(writer);
    CHECK_INT(status, 0);
    CHECK(close(begun.ends[0]) == 0 && close(begun.ends[1]) == 0);
    (void)try_destroy("r");
  }
  printf("      attached %d times\n", *attached);
  CHECK(*attached > 0);
}

/* ---- segment files ---------------------------------------------------------------------------- */

/* The segment cannot be attached, and trying leaves no trace; dropping and asking anew helps. */
static void check_segment_refused(uint32_t registry, int32_t status) {
  dsmr_segment_ticket ticket;
  dsmr_segment_info info;
  int descriptors = check_descriptors();
  CHECK_FAILS(check_begin(registry, "s", 64, &ticket), status);
  CHECK_FAILS(dsmr_segment_lookup(registry, "s", 1, 0, &ticket, &check_error), status);
  CHECK_INT(check_descriptors(), descriptors);
  CHECK_INT(dsmr_segments(registry, &info, 1, &check_error), 1);
  CHECK_INT(info.backend_count, 0);
}

static void make_segment(uint32_t registry, char path[512]) {
  (void)dsmr_segment_drop(registry, "s", 1, 0, &check_error);
  CHECK_OK(dsmr_segment_detach(check_create(registry, "s", 64, DSMR_LIFETIME_REGISTRY, 1)));
  check_path("dsmr.s.", path);
}

static void segment_file_of_another_length_is_corrupt(void) {
  char path[512];
  uint32_t registry = (uint32_t)CHECK_OK(try_open("r"));
  make_segment(registry, path);
  for (off_t size = 0; size < 300; size++) {
    if (size == 64 + SEGMENT_DATA_OFFSET) continue;
    CHECK(truncate(path, size) == 0);
    check_segment_refused(registry, DSMR_E_CORRUPT);
  }
  make_segment(registry, path);
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "s", 64, &ticket), DSMR_FOUND);
}

static void segment_file_with_another_header_is_corrupt(void) {
  char path[512];
  uint32_t registry = (uint32_t)CHECK_OK(try_open("r"));
  for (off_t at = 0; at < (off_t)sizeof(struct segment_header); at++) {
    make_segment(registry, path);
    int fd = open(path, O_RDWR);
    unsigned char byte = 0;
    CHECK(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 0x40;
    CHECK(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
    bool is_reserved = (at >= 12 && at < 16) || at >= 40;
    dsmr_segment_ticket ticket;
    if (!is_reserved) {
      check_segment_refused(registry, DSMR_E_CORRUPT);
    } else {
      CHECK_INT(check_begin(registry, "s", 64, &ticket), DSMR_FOUND);
      CHECK_OK(dsmr_segment_detach(ticket.segment));
    }
  }
}

static void segment_file_that_is_gone_or_no_file_is_refused(void) {
  char path[512];
  uint32_t registry = (uint32_t)CHECK_OK(try_open("r"));
  make_segment(registry, path);
  CHECK(unlink(path) == 0);
  check_segment_refused(registry, DSMR_E_CORRUPT);
  CHECK(strstr(check_error.message, path) != NULL);
  CHECK(symlink("/dev/zero", path) == 0);
  check_segment_refused(registry, DSMR_E_PERMISSION);
  CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0);
  check_segment_refused(registry, DSMR_E_PERMISSION);
  make_segment(registry, path);
  char other[512];
  snprintf(other, sizeof other, "%s/elsewhere", check_directory);
  CHECK(link(path, other) == 0);
  check_segment_refused(registry, DSMR_E_PERMISSION);
  CHECK(unlink(other) == 0);
  if (geteuid() == 0) {
    CHECK(chown(path, 4711, 0) == 0);
    check_segment_refused(registry, DSMR_E_PERMISSION);
  }
}

static const struct check_test tests[] = {
    TEST(links_are_refused),
    TEST(what_is_no_regular_file_is_refused),
    TEST(file_of_another_user_is_refused),
    TEST(files_are_private_whatever_the_umask),
    TEST(control_file_of_any_other_length_is_corrupt),
    TEST(every_header_byte_that_matters_is_checked),
    TEST(mutated_control_files_never_crash_or_hang_anybody),
    TEST(control_file_that_somebody_writes_into_all_the_time_crashes_nobody),
    TEST(segment_file_of_another_length_is_corrupt),
    TEST(segment_file_with_another_header_is_corrupt),
    TEST(segment_file_that_is_gone_or_no_file_is_refused),
};
CHECK_MAIN(tests)

/*
 * os_darwin.c - the operating-system seam on macOS 14.4 and later.
 *
 * BUILT, NOT YET RUN: the compiler and the linker have seen this file, a Mac has not. What
 * it says about macOS was read in headers and manual pages.
 *
 * What differs from Linux:
 *
 *   - There is no memory file system. The files lie on the disk's file system, the kernel
 *     writes changed pages to disk now and then, and they may outlive a restart.
 *   - No file is without a name. A new control file has a temporary one, and a process that
 *     is killed there leaves it behind.
 *   - Reserved space is kept for writes in place. A file system that copies on write for a
 *     snapshot may still run out of it.
 *   - The futex is os_sync_wait_on_address, public since macOS 14.4. On an older system the
 *     library cannot be loaded.
 */
#include "os.h"

#include "os_fault.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/param.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Hidden by the headers when a POSIX level is asked for. */
#ifndef F_OFD_SETLK
#define F_OFD_SETLK 90
#define F_OFD_GETLK 92
#endif

/* From <os/os_sync_wait_on_address.h> and <os/clock.h>; not every SDK brings the first. */
#define SYNC_SHARED 1u
#define CLOCK_MACH_ABSOLUTE_TIME 32u
extern int os_sync_wait_on_address_with_timeout(void *address, uint64_t value, size_t size,
                                                uint32_t flags, uint32_t clock,
                                                uint64_t timeout_ns);
extern int os_sync_wake_by_address_any(void *address, size_t size, uint32_t flags);
extern int os_sync_wake_by_address_all(void *address, size_t size, uint32_t flags);

/* A system call's result in this library's terms. */
static int32_t result(int value) { return value < 0 ? -errno : value; }

/* ---- default directory ----------------------------------------------------------- */

static char default_directory[PATH_MAX];
static pthread_once_t default_directory_once = PTHREAD_ONCE_INIT;

static void find_default_directory(void) {
  size_t size = confstr(_CS_DARWIN_USER_TEMP_DIR, default_directory, sizeof default_directory);
  if (size < 2 || size > sizeof default_directory) {
    memcpy(default_directory, "/tmp", sizeof "/tmp");
    return;
  }
  size_t length = size - 1;
  if (length > 1 && default_directory[length - 1] == '/') default_directory[length - 1] = '\0';
}

/*
 * The user's own temporary directory, which $TMPDIR names unless somebody changed it. The
 * variable itself is not asked: two processes of one user must meet, also when only one of
 * them was started with it. The system cleans this directory of files not accessed for three
 * days, so a registry that lives longer belongs in a directory of its own, by $DSMR_DIR.
 */
const char *os_default_directory(void) {
  pthread_once(&default_directory_once, find_default_directory);
  return default_directory;
}

/* ---- files ----------------------------------------------------------------------- */

#define OPEN_FLAGS (O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

int32_t os_file_open(const char *path) {
  FAULT();
  return result(open(path, OPEN_FLAGS));
}

int32_t os_file_create(const char *path) {
  FAULT();
  int fd = open(path, OPEN_FLAGS | O_CREAT | O_EXCL, 0600);
  if (fd < 0) return -errno;
  /* The umask may have taken bits that we need; it must not add any, and cannot. */
  if (fchmod(fd, 0600) != 0) {
    int32_t failure = -errno;
    close(fd);
    return failure;
  }
  return fd;
}

int32_t os_file_create_nameless(const char *directory, const char *temporary, bool *is_named) {
  (void)directory;
  if (temporary == NULL) return -ENOTSUP;
  *is_named = true;
  return os_file_create(temporary);
}

/* Not link and unlink: between the two the file would have two names and be refused. */
int32_t os_file_publish(int fd, const char *temporary, bool is_named, const char *path) {
  FAULT();
  (void)fd;
  if (!is_named) return -EINVAL;
  return result(renameatx_np(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_EXCL));
}

static void file_info_of(const struct stat *status, struct os_file_info *info) {
  *info = (struct os_file_info){
      .size = status->st_size < 0 ? 0 : (uint64_t)status->st_size,
      .device = (uint64_t)status->st_dev,
      .inode = status->st_ino,
      .uid = status->st_uid,
      .link_count = status->st_nlink,
      .is_regular = S_ISREG(status->st_mode),
  };
}

int32_t os_file_info(int fd, struct os_file_info *info) {
  FAULT();
  struct stat status;
  if (fstat(fd, &status) != 0) return -errno;
  file_info_of(&status, info);
  return 0;
}

int32_t os_path_info(const char *path, struct os_file_info *info) {
  FAULT();
  struct stat status;
  if (lstat(path, &status) != 0) return -errno;
  file_info_of(&status, info);
  return 0;
}

int32_t os_file_read(int fd, void *bytes, size_t size) {
  FAULT();
  size_t got = 0;
  while (got < size) {
    ssize_t count = pread(fd, (char *)bytes + got, size - got, (off_t)got);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -errno;
    if (count == 0) break;
    got += (size_t)count;
  }
  return (int32_t)got;
}

void os_file_write_over(int fd, uint64_t offset, const void *bytes, size_t size) {
  struct os_file_info info = {0};
  if (os_file_info(fd, &info) != 0 || info.size < offset + size) return;
  ssize_t written = pwrite(fd, bytes, size, (off_t)offset);
  (void)written; /* it is a courtesy */
}

int32_t os_file_unlink(const char *path) {
  FAULT();
  return result(unlink(path));
}

void os_file_close(int fd) { close(fd); }

int32_t os_file_reserve(int fd, uint64_t size, uint64_t *free_bytes) {
  FAULT();
  *free_bytes = 0;
  if (size > INT64_MAX) return -EFBIG;
  /* Past the limit the kernel would send SIGXFSZ, which kills: ask first. */
  struct rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      size > limit.rlim_cur) {
    *free_bytes = limit.rlim_cur;
    return -EFBIG;
  }
  struct statfs space;
  if (fstatfs(fd, &space) == 0 && space.f_blocks > 0) {
    *free_bytes = space.f_bavail * (uint64_t)space.f_bsize;
    if (size > *free_bytes) return -ENOSPC;
  }
  /* All or nothing, counted from the end of the file, which is new and empty. */
  fstore_t store = {.fst_flags = F_ALLOCATEALL,
                    .fst_posmode = F_PEOFPOSMODE,
                    .fst_offset = 0,
                    .fst_length = (off_t)size};
  int outcome;
  do {
    outcome = fcntl(fd, F_PREALLOCATE, &store);
  } while (outcome != 0 && errno == EINTR);
  if (outcome != 0) return -errno;
  /* The blocks are the file's only once its end lies behind them. They read as zeros. */
  do {
    outcome = ftruncate(fd, (off_t)size);
  } while (outcome != 0 && errno == EINTR);
  return result(outcome);
}

int32_t os_map(int fd, uint64_t size, void **address) {
  FAULT();
  void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return -errno;
  *address = mapped;
  return 0;
}

void os_unmap(void *address, uint64_t size) { munmap(address, size); }

static void *map_zeros(void *address, uint64_t size) {
  return mmap(address, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0);
}

void os_unmap_to_zeros(void *address, uint64_t size) { (void)map_zeros(address, size); }

/* ---- locks on bytes -------------------------------------------------------------- */

static int32_t lock_call(int fd, int command, short type, int64_t byte, struct flock *lock) {
  *lock = (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
  int outcome;
  do {
    outcome = fcntl(fd, command, lock);
  } while (outcome != 0 && errno == EINTR);
  return outcome == 0 ? 0 : -errno;
}

int32_t os_lock_try(int fd, int64_t byte) {
  FAULT();
  struct flock lock;
  int32_t outcome = lock_call(fd, F_OFD_SETLK, F_WRLCK, byte, &lock);
  return outcome == -EACCES ? -EAGAIN : outcome;
}

int32_t os_lock_release(int fd, int64_t byte) {
  struct flock lock;
  return lock_call(fd, F_OFD_SETLK, F_UNLCK, byte, &lock);
}

int32_t os_lock_is_held(int fd, int64_t byte) {
  FAULT();
  struct flock lock;
  int32_t outcome = lock_call(fd, F_OFD_GETLK, F_WRLCK, byte, &lock);
  if (outcome != 0) return outcome;
  return lock.l_type != F_UNLCK;
}

/* ---- futex ----------------------------------------------------------------------- */

/*
 * Always with the shared flag, also for words that only this process sees: a wait and its
 * wake must agree on it, and a wake without it never reaches another process.
 */

void os_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns) {
  /* The system calls a timeout of 0 invalid; to us it is over. */
  if (timeout_ns == 0) return;
  os_sync_wait_on_address_with_timeout((void *)word, expected, sizeof *word, SYNC_SHARED,
                                       CLOCK_MACH_ABSOLUTE_TIME, timeout_ns);
}

uint32_t os_futex_wake(_Atomic uint32_t *word, uint32_t count) {
  if (count == 0) return 0;
  /* There is one or all. One too many looks again and sleeps on. */
  if (count == 1) {
    return os_sync_wake_by_address_any((void *)word, sizeof *word, SYNC_SHARED) == 0;
  }
  /* The system does not say how many: at least one. */
  return os_sync_wake_by_address_all((void *)word, sizeof *word, SYNC_SHARED) == 0;
}

bool os_futex_can_wait_any(void) { return false; }

int32_t os_futex_wait_any(const struct os_futex_wait_on *waits, uint32_t count,
                          uint64_t timeout_ns) {
  (void)count;
  os_futex_wait(waits[0].word, waits[0].expected, timeout_ns);
  return -1;
}

/* ---- doorbells and threads ----------------------------------------------------------- */

int32_t os_pair_open(struct os_pair *pair) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return -errno;
  for (int i = 0; i < 2; i++) {
    int on = 1;
    (void)fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    (void)fcntl(ends[i], F_SETFL, O_NONBLOCK);
    (void)setsockopt(ends[i], SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
  }
  pair->ours = ends[0];
  pair->theirs = ends[1];
  struct os_file_info info = {0};
  int32_t outcome = os_file_info(pair->theirs, &info);
  if (outcome != 0) {
    close(ends[0]);
    close(ends[1]);
    return outcome;
  }
  pair->device = info.device;
  pair->inode = info.inode;
  return 0;
}

bool os_pair_ring(const struct os_pair *pair) {
  if (send(pair->ours, "!", 1, 0) == 1) return true;
  /* Full means that there are rings enough; broken, that nobody listens any more. */
  return errno == EAGAIN || errno == EPIPE;
}

uintptr_t os_thread(void) { return (uintptr_t)pthread_self(); }

/* No robust mutexes here: a death is found out by looking at the OFD lock. */
int32_t os_bell_hang(void *room, void *older, void **bell) {
  (void)room;
  (void)older;
  (void)bell;
  return -ENOTSUP;
}

void os_bell_unhang(void *bell, void *newer, void *older) {
  (void)bell;
  (void)newer;
  (void)older;
}

bool os_bell_has_rung(const _Atomic uint32_t *word) {
  (void)word;
  return false;
}

bool os_bell_listen(_Atomic uint32_t *word, uint32_t *expected) {
  (void)word;
  (void)expected;
  return false;
}

void os_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ volatile("yield");
#endif
}

/* ---- the rest -------------------------------------------------------------------- */

/* The clock that stands still while the machine sleeps, as CLOCK_MONOTONIC on Linux does. */
uint64_t os_monotonic_ns(void) { return clock_gettime_nsec_np(CLOCK_UPTIME_RAW); }
uint64_t os_wall_ns(void) { return clock_gettime_nsec_np(CLOCK_REALTIME); }
uint32_t os_pid(void) { return (uint32_t)getpid(); }
uint32_t os_uid(void) { return (uint32_t)geteuid(); }

uint32_t os_tid(void) {
  uint64_t id = 0;
  pthread_threadid_np(NULL, &id);
  return (uint32_t)id; /* for people; the low half tells threads apart */
}

int32_t os_random(uint64_t *value) {
  FAULT();
  return result(getentropy(value, sizeof *value));
}

/*
 * Memory that a forked child sees as zeros. The system has no MADV_WIPEONFORK, and with
 * minherit(VM_INHERIT_NONE) the child would have no memory there at all: its first look at a
 * handle would end it. So fork() itself runs a handler in the child that maps fresh pages
 * over the region. A child made without libc's fork() keeps the parent's copy.
 */
struct wiped_region {
  struct wiped_region *next;
  void *memory;
  size_t size;
};

static _Atomic(struct wiped_region *) wiped_regions;
static pthread_once_t wipe_once = PTHREAD_ONCE_INIT;
static bool has_wipe_handler;

/* In the child, whose only thread is this one. Only calls that are safe in a signal handler. */
static void wipe_regions(void) {
  struct wiped_region *region = atomic_load_explicit(&wiped_regions, memory_order_relaxed);
  for (; region != NULL; region = region->next) {
    if (map_zeros(region->memory, region->size) == MAP_FAILED) {
      memset(region->memory, 0, region->size);
    }
  }
}

static void add_wipe_handler(void) {
  has_wipe_handler = pthread_atfork(NULL, NULL, wipe_regions) == 0;
}

void *os_memory_wiped_by_fork(size_t size) {
  pthread_once(&wipe_once, add_wipe_handler);
  if (!has_wipe_handler) return NULL;
  struct wiped_region *region = malloc(sizeof *region);
  if (region == NULL) return NULL;
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (memory == MAP_FAILED) {
    free(region);
    return NULL;
  }
  region->memory = memory;
  region->size = size;
  region->next = atomic_load_explicit(&wiped_regions, memory_order_relaxed);
  /* Release: another thread may fork now, and its child walks the list. */
  while (!atomic_compare_exchange_weak_explicit(&wiped_regions, &region->next, region,
                                                memory_order_release, memory_order_relaxed)) {
  }
  return memory;
}

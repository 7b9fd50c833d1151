/*
 * os_linux.c - the operating-system seam on Linux.
 *
 * The library is linked without a C library and serves glibc and musl processes alike, so
 * what the two spell differently (struct statfs, fstat's symbol) goes through syscall(). So does
 * what a C library only passes on: each symbol that the library asks it for takes some 70 bytes.
 */
#include "os.h"

#include "os_fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef F_OFD_GETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#endif

/* A system call's result in this library's terms. */
static int32_t result(int64_t value) { return value < 0 ? -errno : (int32_t)value; }

const char *os_default_directory(void) { return "/dev/shm"; }

/* ---- files ----------------------------------------------------------------------- */

static int opened(const char *path, int flags) {
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600);
}

void os_file_close(int fd) { (void)syscall(SYS_close, fd); }

#define OPEN_FLAGS (O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

int32_t os_file_open(const char *path) {
  FAULT();
  return result(opened(path, OPEN_FLAGS));
}

/* The umask may have taken bits that we need; it must not add any, and cannot. */
static int32_t created(int fd) {
  if (fd < 0) return -errno;
  if (syscall(SYS_fchmod, fd, 0600) != 0) {
    int32_t failure = -errno;
    os_file_close(fd);
    return failure;
  }
  return fd;
}

int32_t os_file_create(const char *path) {
  FAULT();
  return created(opened(path, OPEN_FLAGS | O_CREAT | O_EXCL));
}

int32_t os_file_create_nameless(const char *directory, const char *temporary, bool *is_named) {
  FAULT();
  *is_named = false;
  int fd = opened(directory, O_TMPFILE | O_RDWR | O_CLOEXEC);
  /* EOPNOTSUPP: this file system cannot. EISDIR: this kernel cannot. */
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) return created(fd);
  if (temporary == NULL) return -ENOTSUP;
  *is_named = true;
  return os_file_create(temporary);
}

int32_t os_file_publish(int fd, const char *temporary, bool is_named, const char *path) {
  FAULT();
  if (is_named) return result(syscall(SYS_renameat2, AT_FDCWD, temporary, AT_FDCWD, path, 1u));
  char self[32];
  (void)snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
  int32_t outcome =
      result(syscall(SYS_linkat, AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW));
  /* Without /proc: the same by the descriptor, which older kernels allow to root only. */
  if (outcome == -ENOENT) {
    outcome = result(syscall(SYS_linkat, fd, "", AT_FDCWD, path, AT_EMPTY_PATH));
  }
  return outcome;
}

static void file_info_of(const struct stat *status, struct os_file_info *info) {
  *info = (struct os_file_info){
      .size = status->st_size < 0 ? 0 : (uint64_t)status->st_size,
      .device = status->st_dev,
      .inode = status->st_ino,
      .uid = status->st_uid,
      .link_count = (uint32_t)status->st_nlink,
      .is_regular = S_ISREG(status->st_mode),
  };
}

int32_t os_file_info(int fd, struct os_file_info *info) {
  FAULT();
  struct stat status;
  if (syscall(SYS_fstat, fd, &status) != 0) return -errno;
  file_info_of(&status, info);
  return 0;
}

int32_t os_path_info(const char *path, struct os_file_info *info) {
  FAULT();
  struct stat status;
  if (syscall(SYS_newfstatat, AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW) != 0) return -errno;
  file_info_of(&status, info);
  return 0;
}

int32_t os_file_read(int fd, void *bytes, size_t size) {
  FAULT();
  size_t got = 0;
  while (got < size) {
    long count = syscall(SYS_pread64, fd, (char *)bytes + got, size - got, (off_t)got);
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
  long written = syscall(SYS_pwrite64, fd, bytes, size, (off_t)offset);
  (void)written; /* it is a courtesy */
}

int32_t os_file_unlink(const char *path) {
  FAULT();
  return result(syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

int32_t os_file_reserve(int fd, uint64_t size, uint64_t *free_bytes) {
  FAULT();
  *free_bytes = 0;
  /* Past the limit the kernel would send SIGXFSZ, which kills: ask first. */
  struct rlimit limit;
  if (syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      size > limit.rlim_cur) {
    *free_bytes = limit.rlim_cur;
    return -EFBIG;
  }
  /* tmpfs takes page after page before it finds out that there are too few: ask first. A
   * file system that knows no bound says it has 0 blocks. */
  struct statfs space;
  if (syscall(SYS_fstatfs, fd, &space) == 0 && space.f_blocks > 0) {
    *free_bytes = (uint64_t)space.f_bavail * (uint64_t)space.f_bsize;
    if (size > *free_bytes) return -ENOSPC;
  }
  /* In pieces: tmpfs undoes a whole call when a signal interrupts it, and a runtime that
   * is sent signals often enough would never get a large segment. */
  const uint64_t piece = UINT64_C(16) << 20;
  for (uint64_t done = 0; done < size;) {
    uint64_t length = size - done < piece ? size - done : piece;
    if (syscall(SYS_fallocate, fd, 0, (off_t)done, (off_t)length) == 0) {
      done += length;
    } else if (errno != EINTR) {
      return -errno;
    }
  }
  return 0;
}

int32_t os_map(int fd, uint64_t size, void **address) {
  FAULT();
  void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return -errno;
  *address = mapped;
  return 0;
}

void os_unmap(void *address, uint64_t size) { munmap(address, size); }

void os_unmap_to_zeros(void *address, uint64_t size) {
  void *zeros = mmap(address, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  /* If even that fails the old mapping stays: still no fault. */
  (void)zeros;
}

/* ---- locks on bytes -------------------------------------------------------------- */

static int32_t lock_call(int fd, int command, short type, int64_t byte, struct flock *lock) {
  *lock = (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
  int outcome;
  do {
    outcome = (int)syscall(SYS_fcntl, fd, command, lock);
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

/* Not FUTEX_PRIVATE_FLAG: a private wake-up never reaches another process. */

void os_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns) {
  struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                             .tv_nsec = (long)(timeout_ns % 1000000000u)};
  syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, NULL, 0);
}

uint32_t os_futex_wake(_Atomic uint32_t *word, uint32_t count) {
  long woken =
      syscall(SYS_futex, word, FUTEX_WAKE, count > INT32_MAX ? INT32_MAX : count, NULL, NULL, 0);
  return woken < 0 ? 0 : (uint32_t)woken;
}

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
/* struct futex_waitv and FUTEX2_SIZE_U32 of newer kernel headers. */
struct waitv {
  uint64_t value;
  uint64_t address;
  uint32_t flags;
  uint32_t reserved;
};
#define WAITV_U32 2u

/* 0 = may be there; 1 = an older kernel, or a seccomp filter, said no once. */
static _Atomic uint32_t lacks_waitv;

bool os_futex_can_wait_any(void) {
  return atomic_load_explicit(&lacks_waitv, memory_order_relaxed) == 0;
}

int32_t os_futex_wait_any(const struct os_futex_wait_on *waits, uint32_t count,
                          uint64_t timeout_ns) {
  if (count > 1 && os_futex_can_wait_any()) {
    struct waitv list[OS_FUTEX_WAIT_MAX];
    if (count > OS_FUTEX_WAIT_MAX) count = OS_FUTEX_WAIT_MAX;
    for (uint32_t i = 0; i < count; i++) {
      list[i] = (struct waitv){.value = waits[i].expected,
                               .address = (uint64_t)(uintptr_t)waits[i].word,
                               .flags = WAITV_U32};
    }
    uint64_t deadline = os_monotonic_ns() + timeout_ns;
    struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000u),
                             .tv_nsec = (long)(deadline % 1000000000u)};
    int32_t woken = result(syscall(SYS_futex_waitv, list, count, 0, &until, CLOCK_MONOTONIC));
    if (woken >= 0) return woken;
    if (woken != -ENOSYS && woken != -EPERM) return -1;
    atomic_store_explicit(&lacks_waitv, 1, memory_order_relaxed);
    return -1; /* whoever looks again often enough does so now */
  }
  os_futex_wait(waits[0].word, waits[0].expected, timeout_ns);
  return -1;
}

/* ---- death bells ------------------------------------------------------------------- */

/*
 * The kernel walks a dying thread's list of robust futexes, sets FUTEX_OWNER_DIED in each word
 * that has the thread's id, and wakes one sleeper. A thread has one such list, which belongs to
 * its C library's robust mutexes. A bell is one more node in it, of our own making: a word, at the
 * distance from the node that the list has for all, and what glibc and musl alike know of a
 * neighbour, `next` at the node and `prev` before it.
 *
 * A bell lies in shared memory, which anybody may have overwritten, its `next` included. So
 * nothing of it is ever read here, neither by us nor by a C library that we call (unlocking a
 * mutex there is following two pointers that are in it). Who is whose neighbour is known without:
 *
 * - A list grows at its head only, which is in the C library's private memory. A bell is hung
 *   only if the head names this thread's next older bell, or nobody if there is none. So between
 *   two bells there is never a stranger, nor behind the oldest one. Who comes while the thread
 *   holds a robust mutex (or, in musl, a recursive one) gets no bell: its death is found out by
 *   looking.
 * - Strangers are in front only: from the head to the newest bell the way goes through mutexes of
 *   others, which their C library trusts as much.
 *
 * The one thing written when a bell goes is the `next` of what is before it, which is the head, a
 * stranger's, or that of a bell of this thread, which is mapped as long as it hangs; what is
 * written is the address of a bell or the head. `prev` is for the C library to write to, when
 * strangers come and go; only it of their own does it read. So whatever the bytes are, we write
 * to memory that is there, and leave a list of memory that is there.
 *
 * Death. Before the word has the thread's id the kernel passes the node by, and the slot is not
 * LIVE yet. After the word is 0 it does, too: a thread killed between that and the slot's being
 * vacated is found by looking. Where a `next` was overwritten the kernel's walk ends: it reads
 * guardedly and takes 2,048 steps at most, and the bells behind are silent. Then the lock on the
 * slot's byte, which falls when the process's descriptors are closed, is what tells, to whoever
 * looks: sleepers do, every so often. A thread that ends in a process that goes on takes its bells
 * down before (see close_thread), so what it leaves is sound.
 */
struct bell {
  uint8_t room[32]; /* the word is in here: 32 bytes before `next` in glibc, 28 in musl */
  struct robust_list *prev;
  struct robust_list next;
};

/* The calling thread's list, as the kernel knows it. NULL: it knows none. */
static struct robust_list_head *robust_list(void) {
  struct robust_list_head *list = NULL;
  size_t size = 0;
  return syscall(SYS_get_robust_list, 0, &list, &size) == 0 ? list : NULL;
}

/* From a thread's control block to its list: the same for all threads, and in a forked child. */
static _Atomic uintptr_t robust_list_offset;

/*
 * musl tells the kernel of a list when the thread locks its first robust mutex, and the kernel
 * gives a forked child none. glibc begins a new one there; musl keeps what the parent had in its
 * own, and linking a mutex to that would write into the parent's bell: so it is cleared. (If the
 * child has locked a robust mutex of its own before, it stays, and the child gets no bell.)
 */
static struct robust_list_head *new_robust_list(void) {
  uintptr_t offset = atomic_load_explicit(&robust_list_offset, memory_order_relaxed);
  if (offset != 0) {
    struct robust_list_head *stale = (void *)(os_thread() + offset);
    stale->list.next = &stale->list;
  }
  pthread_mutex_t mutex;
  pthread_mutexattr_t attributes;
  /* There is nothing in either that would have to be destroyed. */
  if (pthread_mutexattr_init(&attributes) != 0 ||
      pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) != 0 ||
      pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) != 0 ||
      pthread_mutex_init(&mutex, &attributes) != 0 || pthread_mutex_lock(&mutex) != 0) {
    return NULL;
  }
  (void)pthread_mutex_unlock(&mutex);
  struct robust_list_head *list = robust_list();
  if (list != NULL) {
    atomic_store_explicit(&robust_list_offset, (uintptr_t)list - os_thread(),
                          memory_order_relaxed);
  }
  return list;
}

static _Atomic uint32_t *bell_word(const struct robust_list_head *list, struct robust_list *node) {
  return (_Atomic uint32_t *)(void *)((char *)node + list->futex_offset);
}

int32_t os_bell_hang(void *room, void *older, void **bell) {
  _Static_assert(sizeof(struct bell) <= OS_BELL_SIZE, "the room is too small");
  FAULT();
  struct robust_list_head *list = robust_list();
  if (list == NULL) list = new_robust_list();
  if (list == NULL) return -ENOTSUP;
  struct robust_list *first = older == NULL ? &list->list : older;
  struct robust_list *node = &((struct bell *)room)->next;
  int64_t word = (int64_t)offsetof(struct bell, next) + list->futex_offset;
  if (list->list.next != first || word < 0 || word > 28 || word % 4 != 0) return -ENOTSUP;
  memset(room, 0, OS_BELL_SIZE);
  node->next = first;
  /* For the kernel, which may walk the list between any two instructions. */
  atomic_signal_fence(memory_order_release);
  list->list.next = node;
  atomic_store_explicit(bell_word(list, node), os_tid(), memory_order_relaxed);
  *bell = node;
  return (int32_t)(word / 4);
}

void os_bell_unhang(void *bell, void *newer, void *older) {
  struct robust_list_head *list = robust_list();
  if (list == NULL) return;
  _Atomic uint32_t *word = bell_word(list, bell);
  atomic_store_explicit(word, 0, memory_order_relaxed);
  os_futex_wake(word, 1);
  struct robust_list *before = newer == NULL ? &list->list : newer;
  if (newer == NULL) {
    /* The lowest bit tells of a mutex's kind. */
    for (struct robust_list *next; (next = (void *)((uintptr_t)before->next & ~(uintptr_t)1)) != bell;) {
      if (next == &list->list) return; /* a stranger took it away, from the wrong end */
      before = next;
    }
  }
  before->next = older == NULL ? &list->list : older;
}

/*
 * Both are asked without a lock, as a hint, while the slot's next tenant may just be hanging
 * its bell with plain stores of the C library. What is read then is of the old tenant or the
 * new one; whoever acts on it looks again under the table lock. ThreadSanitizer need not watch.
 */
OS_UNWATCHED bool os_bell_has_rung(const _Atomic uint32_t *word) {
  return (atomic_load_explicit(word, memory_order_acquire) & FUTEX_OWNER_DIED) != 0;
}

OS_UNWATCHED bool os_bell_listen(_Atomic uint32_t *word, uint32_t *expected) {
  uint32_t seen = atomic_load_explicit(word, memory_order_relaxed);
  do {
    if ((seen & FUTEX_OWNER_DIED) != 0 || (seen & FUTEX_TID_MASK) == 0) return false;
    *expected = seen | FUTEX_WAITERS;
  } while (!atomic_compare_exchange_weak_explicit(word, &seen, *expected, memory_order_relaxed,
                                                  memory_order_relaxed));
  return true;
}

/* ---- doorbells and threads ----------------------------------------------------------- */

int32_t os_pair_open(struct os_pair *pair) {
  FAULT();
  int ends[2];
  if (syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    return -errno;
  }
  pair->ours = ends[0];
  pair->theirs = ends[1];
  struct os_file_info info = {0};
  int32_t outcome = os_file_info(pair->theirs, &info);
  if (outcome != 0) {
    os_file_close(ends[0]);
    os_file_close(ends[1]);
    return outcome;
  }
  pair->device = info.device;
  pair->inode = info.inode;
  return 0;
}

bool os_pair_ring(const struct os_pair *pair) {
  int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
  if (syscall(SYS_sendto, pair->ours, "!", 1, flags, NULL, 0) == 1) return true;
  /* Full means that there are rings enough; broken, that nobody listens any more. */
  return errno == EAGAIN || errno == EPIPE;
}

void os_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* ---- the rest -------------------------------------------------------------------- */

static uint64_t clock_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t os_monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
uint64_t os_wall_ns(void) { return clock_ns(CLOCK_REALTIME); }
uint32_t os_pid(void) { return (uint32_t)syscall(SYS_getpid); }
uint32_t os_tid(void) { return (uint32_t)syscall(SYS_gettid); }
uint32_t os_uid(void) { return (uint32_t)syscall(SYS_geteuid); }

int32_t os_random(uint64_t *value) {
  FAULT();
  long got;
  do {
    got = syscall(SYS_getrandom, value, sizeof *value, 0);
  } while (got < 0 && errno == EINTR);
  return got == (long)sizeof *value ? 0 : -EIO;
}

void *os_memory_wiped_by_fork(size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return NULL;
  /* Before Linux 4.14 a forked child would see its parent's handles; that is all. */
  (void)syscall(SYS_madvise, memory, size, MADV_WIPEONFORK);
  return memory;
}

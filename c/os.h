/*
 * os.h - everything the library asks of the operating system, and nothing else.
 *
 * One implementation per system: os_linux.c, os_darwin.c. No other file of the library
 * includes a system header or names a system.
 *
 * Calls return 0 (or what they say) on success and -errno on failure, and set nothing else.
 *
 * OFD locks belong to an open file description, so two descriptions in one process exclude
 * each other, and the kernel drops a lock when its description goes: at the latest when the
 * process dies, zombie or not, in whatever pid namespace. That is the only liveness test
 * the library believes.
 */
#ifndef DSMR_OS_H
#define DSMR_OS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct os_file_info {
  uint64_t size;
  uint64_t device;
  uint64_t inode;
  uint32_t uid;
  uint32_t link_count;
  bool is_regular;
};

/* The directory used when neither the caller nor $DSMR_DIR names one. */
const char *os_default_directory(void);

/* Opens an existing file read-write: never creates, never follows a last symbolic link
 * (-ELOOP), never blocks on a FIFO. Returns the descriptor. */
int32_t os_file_open(const char *path);

/*
 * Creates a file with mode 0600 that has no name yet in the directory of `path`, or, where
 * the file system cannot do that, under the name `temporary` (NULL: -ENOTSUP). Returns the
 * descriptor.
 * os_file_publish then gives it the name `path`, in one step: -EEXIST if that is taken.
 */
int32_t os_file_create_nameless(const char *directory, const char *temporary, bool *is_named);
int32_t os_file_publish(int fd, const char *temporary, bool is_named, const char *path);

/* Creates `path` with mode 0600; -EEXIST if it is there. Returns the descriptor. */
int32_t os_file_create(const char *path);

int32_t os_file_info(int fd, struct os_file_info *info);
int32_t os_path_info(const char *path, struct os_file_info *info); /* of a link: the link */
/* Reads at most `size` bytes from the start; returns how many. */
int32_t os_file_read(int fd, void *bytes, size_t size);
/* Writes over bytes that the file has; does nothing if it has not. For a file that cannot be
 * trusted enough to be mapped. */
void os_file_write_over(int fd, uint64_t offset, const void *bytes, size_t size);
int32_t os_file_unlink(const char *path);
void os_file_close(int fd);

/*
 * Makes the file `size` bytes long, all zero, with the space reserved, so that no later
 * write to a mapping of it can fail. -ENOSPC (with the bytes that are free in `free_bytes`,
 * if known) or -EFBIG (the process's file size limit, likewise): found out beforehand
 * where possible. Interrupted by signals it goes on.
 */
int32_t os_file_reserve(int fd, uint64_t size, uint64_t *free_bytes);

int32_t os_map(int fd, uint64_t size, void **address);
void os_unmap(void *address, uint64_t size);
/* Puts private zeros where a mapping was. */
void os_unmap_to_zeros(void *address, uint64_t size);

/* One byte of an OFD write lock. try: -EAGAIN if somebody else has it. */
int32_t os_lock_try(int fd, int64_t byte);
int32_t os_lock_release(int fd, int64_t byte);
/* 1 if another description holds the byte, 0 if none does. */
int32_t os_lock_is_held(int fd, int64_t byte);

/*
 * Sleeps while *word == expected, at most timeout_ns. Returns on a wake-up, a change, a
 * signal, or for no reason: the caller looks again. Works across processes.
 */
void os_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns);
/* Returns how many were asleep and now wake, as far as the system says. */
uint32_t os_futex_wake(_Atomic uint32_t *word, uint32_t count);

/*
 * The same on several words at once: returns when one of them wakes or is not as expected.
 * Returns the index of one that was woken, or -1 if none was, as far as the system says. Where
 * the system cannot do it, it waits on the first alone.
 */
#define OS_FUTEX_WAIT_MAX 128u
struct os_futex_wait_on {
  _Atomic uint32_t *word;
  uint32_t expected;
};
int32_t os_futex_wait_any(const struct os_futex_wait_on *waits, uint32_t count,
                          uint64_t timeout_ns);
/* False once the system has said that it cannot. */
bool os_futex_can_wait_any(void);

/*
 * A death bell: OS_BELL_SIZE bytes of shared memory that the kernel marks when the calling
 * thread dies, without any of its code being run. os_bell_hang returns the index of the futex
 * word among the uint32_t's of the room, or -errno where there is no such thing; then liveness
 * is found out by looking. os_bell_unhang belongs to the same thread, before the memory goes.
 * The room may be overwritten by others at any time. Therefore the caller keeps the bell's name,
 * which os_bell_hang stores, and says which bells of the thread, of those that hang, were hung
 * next before it (`older`) and next after it (`newer`); NULL: none.
 */
#define OS_BELL_SIZE 64u
/* For what looks at a bell's word as a hint, while its next owner hangs it with plain stores. */
#ifdef __has_attribute
#if __has_attribute(disable_sanitizer_instrumentation)
#define OS_UNWATCHED __attribute__((disable_sanitizer_instrumentation))
#endif
#endif
#ifndef OS_UNWATCHED
#define OS_UNWATCHED
#endif
int32_t os_bell_hang(void *room, void *older, void **bell);
void os_bell_unhang(void *bell, void *newer, void *older);
/* True if the thread that hung the bell is dead: none of its instructions will run. */
bool os_bell_has_rung(const _Atomic uint32_t *word);
/*
 * Arranges that the bell's word wakes whoever sleeps on it, and returns what it is then, to
 * sleep on. False if there is nothing to wait for: nobody hangs there, or it has rung.
 */
bool os_bell_listen(_Atomic uint32_t *word, uint32_t *expected);

/*
 * Two ends of a connection: a byte written to ours wakes an event loop that reads theirs.
 * Neither blocks. Closing closes theirs, too, unless somebody else has done so.
 */
struct os_pair {
  int ours;
  int theirs;
  uint64_t device; /* of theirs, so that it is told from a later file of the same number */
  uint64_t inode;
};
int32_t os_pair_open(struct os_pair *pair);
/* False if the system could not, for want of memory: try again later. */
bool os_pair_ring(const struct os_pair *pair);
/* Is theirs still what it was? */
bool os_pair_is_open(const struct os_pair *pair);
void os_pair_close(const struct os_pair *pair);

/* Starts a thread that takes no signals and is waited for by nobody. 0 or -errno. */
int32_t os_thread_start(void (*run)(void *argument), void *argument);

/* Tells the processor that this is a spin loop. */
void os_pause(void);

/* The address of the calling thread's own control block: pthread_self, without the call where
 * the compiler can do that. */
#ifdef __linux__
static inline uintptr_t os_thread(void) { return (uintptr_t)__builtin_thread_pointer(); }
#else
uintptr_t os_thread(void);
#endif

uint64_t os_monotonic_ns(void);
uint64_t os_wall_ns(void);
uint32_t os_pid(void);
uint32_t os_tid(void);
uint32_t os_uid(void); /* effective */
int32_t os_random(uint64_t *value);

/* Calls visit for each name in the directory until it returns non-zero, which is returned. */
int32_t os_directory_scan(const char *directory, int32_t (*visit)(const char *name, void *argument),
                          void *argument);

/* Zeroed private memory that a forked child sees as zeros again. */
void *os_memory_wiped_by_fork(size_t size);

/*
 * Keeps the library in the process for good. A runtime may unload it when a Worker ends, and
 * the thread would then run our destructor, which is not there any more.
 */
void os_stay_loaded(void);

/* What the system says about an errno, for messages. */
const char *os_errno_text(int32_t os_errno);

/* The portable reading of a system error: a DSMR_E_... status. */
int32_t os_status_of(int32_t os_errno);

/*
 * Fault injection, in test builds (-DDSMR_FAULTS) only: the test counts the system calls
 * that can fail and makes the n-th fail with an errno of its choice. Each thread has its own.
 */
#ifdef DSMR_FAULTS
struct os_fault {
  uint32_t countdown; /* 1 = the next call fails; 0 = none does */
  int32_t os_errno;
  uint32_t calls; /* counted so far */
};
extern _Thread_local struct os_fault os_fault;
#endif

#endif

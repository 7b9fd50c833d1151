/*
 * process.h - what belongs to the process as a whole: one lock, the mappings its threads
 * share, what happens when a thread ends, what happens after fork.
 */
#ifndef DSMR_PROCESS_H
#define DSMR_PROCESS_H

#include "os.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Once per process, and again in a forked child, where everything inherited is forgotten:
 * the parent's backends are not ours, and `after_fork` closes their descriptors. When a
 * thread ends that has a list, `thread_ends` gets it. Returns 0 or DSMR_E_NO_SPACE.
 */
int32_t process_start(void (*thread_ends)(void *list), void (*after_fork)(void));

/* False in a forked child until it starts the library itself. */
bool process_is_started(void);

/* A lock among the process's threads: a word, zero when free. Held for microseconds. */
void latch_lock(_Atomic uint32_t *latch);
void latch_unlock(_Atomic uint32_t *latch);

/* The one latch over process-local tables. Held for microseconds, never around a wait. */
void process_lock(void);
void process_unlock(void);

/* A number for the calling thread that no other living thread has; never 0. In one
 * instruction: it is asked on the way into every lock. */
static inline uintptr_t process_thread(void) { return os_thread(); }

/* A random number for the calling thread, other than that of any thread of any process. */
uint64_t process_thread_number(void);

/* The calling thread's list. */
void process_set_thread_list(void *list);
void *process_thread_list(void);

/*
 * When the calling thread ends, `ends` (the same for all threads) is called with the argument,
 * before or after the thread's list was dealt with. False if there is no memory for that.
 */
bool process_on_thread_end(void (*ends)(void *argument), void *argument);

/* ---- mappings, shared by the threads of the process --------------------------------- */

/*
 * A file mapped once, however many backends of the process use it: a second one costs no
 * mmap, and ThreadSanitizer sees that two threads touch the same word.
 */
struct mapping {
  struct mapping *next;
  uint64_t device;
  uint64_t inode;
  uint64_t size;
  void *address;
  uint32_t use_count;
  uint32_t end; /* enum mapping_end */
};

/*
 * What an address becomes when its mapping goes. A runtime may still be reading or writing the
 * bytes on another thread (an asynchronous write of a view, say), whatever has become of the
 * view. So the address of a segment reads as zeros for a while: until some hundred others
 * have gone. One that was handed on for good reads as zeros for ever.
 */
enum mapping_end { MAPPING_UNMAPPED, MAPPING_ZEROS_FOR_A_WHILE, MAPPING_ZEROS_FOR_EVER };

/* Maps `size` bytes of an open file, or shares the mapping there is. -errno on failure. */
int32_t mapping_acquire(int fd, uint64_t device, uint64_t inode, uint64_t size,
                        struct mapping **mapping);
void mapping_release(struct mapping *mapping);
/* Raises what the mapping becomes in the end. */
void mapping_set_end(struct mapping *mapping, enum mapping_end end);

#endif

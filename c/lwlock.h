/*
 * lwlock.h - the lock: 64 bytes of shared memory, exclusive or shared, that survives the
 * death of anybody.
 *
 * This is the protocol alone. Who may call, handles and messages are lock.c's business.
 */
#ifndef DSMR_LWLOCK_H
#define DSMR_LWLOCK_H

#include "backend.h"
#include "os.h"

enum lwlock_mode { LWLOCK_FREE = 0, LWLOCK_SHARED = 1, LWLOCK_EXCLUSIVE = 2 };

/* Where an acquisition stands. */
enum claim_state {
  CLAIM_IDLE = 0,
  CLAIM_WAITING,  /* wants to come in; nothing in shared memory says so but our slot */
  CLAIM_DRAINING, /* owns the owner word, waits for the readers inside */
  CLAIM_HELD,
};

/*
 * One backend's use of one lock. Private to the process, used by the backend's thread alone.
 * There is one for each lock and backend, so that asking twice is noticed.
 */
struct claim {
  /* What the uncontended path needs, in one cache line. */
  struct lwlock *lock;
  _Atomic uint64_t *journal; /* our cell in slot->held, or NULL; see journal.h */
  _Atomic uint64_t *readers; /* the word of lock->readers that has our bit */
  uint64_t reader_bit;
  uint64_t record; /* HELD_RECORD without the mode */
  uint32_t token;
  uint8_t mode;  /* enum lwlock_mode: what is held, or wanted; nothing while IDLE */
  uint8_t state; /* enum claim_state */
  bool is_marking; /* the lock was BIASed when last looked at */
  bool is_marked;  /* it is held, shared, by our mark in the slot, not by our bit */
  bool has_slept;
  bool is_starving; /* we have put ourselves into lock->starving */
  bool is_watched;  /* waits without blocking: see lwlock_watch */
  uint16_t meetings; /* how often we have met another reader; see lwlock_leave_readers */
  _Atomic uint64_t *mark; /* our cell for it in slot->held */

  struct backend *backend;
  struct backend_slot *slot; /* our own */
  struct attachment *attachment;
  struct claim *next; /* of the attachment */
  uint64_t waiting_since_ns; /* monotonic; 0 = has not begun to wait */
  uint64_t look_ns;          /* when to look for a cycle, and for damage; monotonic */
  uint64_t look_after_ns;
  uint32_t handle;
  uint32_t damage_count; /* looks in a row that found damage */
  struct claim *next_in_bucket; /* of the attachment's table of claims */
};

enum lwlock_outcome {
  LWLOCK_ACQUIRED = 0,
  LWLOCK_ACQUIRED_ABANDONED = 1, /* exclusive, and an exclusive holder died inside before */
  LWLOCK_BUSY = 2,               /* try: not to be had now; slice: not yet */
  LWLOCK_DEAD = 3,               /* slice: a backend in the way is dead; reap it and go on */
  LWLOCK_LOOK = 4,               /* slice: has waited long: look for a cycle */
};

/* Makes the memory a lock that nobody holds. */
void lwlock_initialize(struct lwlock *lock, uint32_t tranche);
bool lwlock_is_initialized(const struct lwlock *lock);

/*
 * For all that take a lock, the claim must have a cell of the journal: see journal_reserve.
 *
 * Takes it if that can be done at once; else BUSY, and nothing has changed for anybody.
 */
int32_t lwlock_try(struct claim *claim, enum lwlock_mode mode);

/*
 * Goes on acquiring, after an attempt has failed, until `until_ns` (monotonic): sleeps, at most
 * LWLOCK_SLEEP_MAX_NS at a time. After BUSY, DEAD or LOOK the claim stands where it stood: call
 * again, or lwlock_cancel.
 */
int32_t lwlock_acquire(struct claim *claim, enum lwlock_mode mode, uint64_t until_ns);
void lwlock_cancel(struct claim *claim);

/*
 * As lwlock_acquire, without sleeping: after BUSY, `words` are what to sleep on, at least one,
 * and the lock makes sure that they change. Other outcomes as there; LOOK never.
 */
#define LWLOCK_WORDS_MAX 4u
int32_t lwlock_watch(struct claim *claim, enum lwlock_mode mode,
                     struct os_futex_wait_on words[LWLOCK_WORDS_MAX], uint32_t *count);

/* The claim must be HELD. */
void lwlock_release(struct claim *claim);
/* Lets go as the dead do: an exclusive lock is left abandoned. */
void lwlock_abandon(struct claim *claim);
void lwlock_mark_consistent(struct claim *claim);

/* As LWLockUpdateVar: stores, and wakes who waits for the variable. Held exclusively. */
void lwlock_update_variable(struct claim *claim, _Atomic uint64_t *variable, uint64_t value);

/*
 * As LWLockWaitForVar: sleeps while the lock is held exclusively and *variable == expected,
 * at most until until_ns. ACQUIRED: nobody holds it exclusively (nothing was acquired).
 * ABANDONED: the variable has another value, now in *value. BUSY: not yet. DEAD: as above.
 * With variable == NULL: just until it is not held exclusively.
 */
int32_t lwlock_wait_for_variable(struct claim *claim, _Atomic uint64_t *variable,
                                 uint64_t expected, uint64_t *value, uint64_t until_ns);
/* The same without sleeping: BUSY, and what to sleep on. */
int32_t lwlock_watch_variable(struct claim *claim, _Atomic uint64_t *variable, uint64_t expected,
                              uint64_t *value, struct os_futex_wait_on words[LWLOCK_WORDS_MAX],
                              uint32_t *count);

/* Whom a claimant would wait for: the i-th 64 slots of those that are inside, shared, or trying to
 * be, by a bit or by a mark. */
uint64_t lwlock_readers(const struct claim *claim, uint32_t i);
bool lwlock_has_readers(const struct claim *claim);

/* Is anybody dead whom the lock names? Asks the kernel; a hint, for a reaper to look into. */
bool lwlock_is_blocked_by_dead(const struct claim *claim);

/*
 * Is this no lock any more, or does it name a living backend whose journal knows nothing of it?
 * Only damaged memory does for long; a look may meet one that lets go and comes back. `state`: the
 * claim's own, which another thread than its backend's must not read.
 */
bool lwlock_seems_damaged(const struct claim *claim, enum claim_state state);
/* Several such looks in a row, this one included. Some time apart: that is the caller's business. */
bool lwlock_is_damaged(struct claim *claim);

/* For the wait graph, while a call waits for the lock to be let go, or (if not NULL) for the
 * variable not to be `expected`; since_ns 0: it does not any more. */
void lwlock_publish_wait(struct claim *claim, uint64_t since_ns, const _Atomic uint64_t *variable,
                         uint64_t expected);

/* Is there a LIVE slot, dead or not, with this token? */
bool lwlock_token_is_known(const struct control *control, uint32_t token);

/* Takes a backend's name out of `starving`, and the flag with it. */
void lwlock_end_starving(struct lwlock *lock, uint32_t token);

/*
 * Takes a dead backend, or a token that nobody has, out of a lock. Under the table lock. True
 * if it was left abandoned.
 */
bool lwlock_reap(struct lwlock *lock, uint32_t token);

/* How long a waiter sleeps at most before it looks again. A test sets it to hours, so that no
 * lost wake-up is mended by it. */
#ifndef LWLOCK_SLEEP_MAX_NS
#define LWLOCK_SLEEP_MAX_NS 10000000u
#endif

#endif

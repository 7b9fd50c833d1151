/*
 * dsmr.h - named shared memory for processes: the public calls.
 *
 * A registry is a named control file in shared memory and all that hangs off it. A thread
 * that attaches is a backend. Backends ask for segments by name: the first one creates and
 * initialises, everyone else finds it done. Any of them may be killed at any instruction;
 * the others go on.
 *
 * CONVENTIONS
 *
 *   - Every call returns int32_t: 0 or more is success, less is a DSMR_E_... status.
 *   - Registries and segments are named by u32 handles. A handle is checked on every call:
 *     a stale, foreign or made-up one is DSMR_E_CLOSED, never a crash.
 *   - A handle belongs to the thread that got it. Another thread that uses it gets
 *     DSMR_E_UNSUPPORTED. When the thread ends, its backends are closed.
 *   - Names are pointer and length, UTF-8, 1 to 63 bytes, without NUL and '/'.
 *   - `error` may be NULL. Otherwise a call that fails fills it: status, errno, the two
 *     numbers involved and one sentence for a person. A call that succeeds leaves it alone.
 *   - After a failure nothing has changed, unless the call says otherwise.
 *   - No call blocks but those that say so. All may wait for the registry's table lock, which
 *     others hold for some microseconds; should its holder be stopped (SIGSTOP) they give up
 *     with DSMR_E_TIMEOUT after DSMR_TABLE_PATIENCE_MS, or their own timeout if that is less.
 *
 * CAVEATS
 *
 *   - fork: a child does not inherit its parent's handles (they are DSMR_E_CLOSED there).
 *     Until it calls exec, dsmr_registry_open, _list or _destroy, or ends, it keeps the
 *     parent's slots alive.
 *   - One uid is one trust domain: who may write the files may truncate them, and the
 *     kernel answers with SIGBUS to whoever has them mapped.
 *
 * ADDING A CALL: prototype and contract here -> the .c file of its subject -> lib/ffi/
 * symbols.ts -> a method of the TypeScript class -> a test in tests/. A test compares this
 * file with symbols.ts.
 */
#ifndef DSMR_H
#define DSMR_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DSMR_API __attribute__((visibility("default")))

#define DSMR_NAME_SIZE 64u /* bytes a name field has; a name has at most 63 */
#define DSMR_LABEL_SIZE 32u
#define DSMR_MESSAGE_SIZE 480u
#define DSMR_TABLE_PATIENCE_MS 10000

/* ---- statuses -------------------------------------------------------------------- */

/*
 * Own codes lie below -4096 so that they can never meet a negated errno. Append only:
 * numbers are never reused. TypeScript knows a status by its name without DSMR_E_.
 */
#define DSMR_STATUS(X)                                                                     \
  X(EXISTS, -5001)           /* asked to create what is there */                           \
  X(NOT_FOUND, -5002)        /* no such registry, segment or directory */                  \
  X(SIZE_MISMATCH, -5003)    /* the segment has another size than requested */             \
  X(LAYOUT_MISMATCH, -5004)  /* ... another layout */                                      \
  X(SCOPE_MISMATCH, -5005)   /* ... another scope */                                       \
  X(NAME_INVALID, -5006)     /* empty, not UTF-8, or with NUL or '/' */                    \
  X(NAME_TOO_LONG, -5007)    /* over 63 bytes */                                           \
  X(SIZE_INVALID, -5008)     /* a size or a limit out of its range */                      \
  X(NO_SPACE, -5009)         /* file system, memory or file descriptors are used up */     \
  X(REGISTRY_FULL, -5010)    /* no entry free */                                           \
  X(BACKENDS_FULL, -5011)    /* no slot free */                                            \
  X(TRANCHES_FULL, -5012)    /* no tranche free */                                         \
  X(PERMISSION, -5013)       /* not ours, not allowed, or a link where a file should be */ \
  X(CORRUPT, -5014)          /* a file is not what it must be */                           \
  X(VERSION_MISMATCH, -5015) /* made by an incompatible version */                         \
  X(INIT_FAILED, -5016)      /* the init callback failed */                                \
  X(INIT_RECURSION, -5017)   /* asked for the name one is initialising */                  \
  X(TIMEOUT, -5018)          /* the time given is up */                                    \
  X(ABORTED, -5019)          /* cancelled by the caller */                                 \
  X(ABANDONED, -5020)        /* the lock's exclusive holder died inside */                 \
  X(NOT_HELD, -5021)         /* released what one does not hold */                         \
  X(ALREADY_HELD, -5022)     /* acquired what one holds */                                 \
  X(DEADLOCK, -5023)         /* waiting would close a cycle */                             \
  X(DETACHED, -5024)         /* the segment was detached */                                \
  X(CLOSED, -5025)           /* the registry was closed or destroyed */                    \
  X(UNSUPPORTED, -5026)      /* this system or this use cannot work */

enum dsmr_status {
#define DSMR_STATUS_ENUM(name, value) DSMR_E_##name = (value),
  DSMR_STATUS(DSMR_STATUS_ENUM)
#undef DSMR_STATUS_ENUM
};

/* What went wrong. Owned by the caller, filled by a call that fails. */
typedef struct dsmr_error {
  int32_t status;
  int32_t os_errno;   /* the system's reason, or 0 */
  uint64_t actual;    /* what is there: a size, a count, a limit; 0 where it says nothing */
  uint64_t requested; /* what was asked for */
  uint32_t message_length;
  uint32_t reserved;
  char message[DSMR_MESSAGE_SIZE]; /* NUL-terminated UTF-8, for a person */
} dsmr_error;

/* ---- numbers ----------------------------------------------------------------------- */

/*
 * Writes this library's numbers as text, one "name offset size" or "name value" a line:
 * statuses, modes, limits, sizes of the structures below and the place of each field.
 * Bindings read it at load time instead of copying offsets.
 *
 * Returns the bytes the whole text has. At most `capacity` are written, never a NUL.
 */
DSMR_API int32_t dsmr_abi(char *text, uint32_t capacity);

/*
 * The directory that registries are in when a call names none: $DSMR_DIR, else the system's
 * (/dev/shm on Linux). Returns its length; at most `capacity` bytes are written, never a NUL.
 * Or NAME_INVALID, NAME_TOO_LONG: $DSMR_DIR is no absolute path, or too long a one.
 */
DSMR_API int32_t dsmr_default_directory(char *directory, uint32_t capacity,
                                        dsmr_error *error);

/* ---- registries -------------------------------------------------------------------- */

enum dsmr_mode {
  DSMR_MODE_OPEN = 0,   /* attach, creating it if it is not there */
  DSMR_MODE_CREATE = 1, /* create; DSMR_E_EXISTS if it is there */
  DSMR_MODE_ATTACH = 2, /* attach; DSMR_E_NOT_FOUND if it is not there */
  DSMR_MODE_LOOK = 3,   /* the same; a database that is not there is not made: it is as dropped */
};

enum dsmr_lifetime {
  DSMR_LIFETIME_REGISTRY = 0, /* until dropped, or the registry is destroyed */
  DSMR_LIFETIME_ATTACHED = 1, /* until the last backend detaches or dies */
};

typedef struct dsmr_registry_options {
  uint32_t mode;              /* enum dsmr_mode */
  uint32_t backend_count_max; /* 1 to 256; 0 = 256. Only used by the creator */
  uint32_t segment_count_max; /* 1 to 65,536; 0 = 1,024. Only used by the creator */
  int32_t timeout_ms;         /* -1 = DSMR_TABLE_PATIENCE_MS */
  char label[DSMR_LABEL_SIZE]; /* what program this is, for people; NUL-padded */
} dsmr_registry_options;

/*
 * Attaches the calling thread to the registry `name` as a backend, and creates the registry
 * first where the mode says so. Each call makes a new backend with a slot of its own.
 *
 * `directory` may be empty: then $DSMR_DIR, else /dev/shm. `database` may be empty: then
 * "default"; it is created if it is not there. `options` may be NULL for all defaults.
 *
 * The control file is created with mode 0600 and refused unless it is a regular file of the
 * caller's own effective uid with one link and no symbolic link, of this format, and whole.
 *
 * Returns the registry's handle, or
 *   NAME_INVALID, NAME_TOO_LONG  the registry's or the database's name
 *   SIZE_INVALID      a count out of range, or a mode that is none
 *   EXISTS, NOT_FOUND as the mode says; NOT_FOUND also for a directory that is not there
 *   NO_SPACE          directory full, or no memory or file descriptor
 *   BACKENDS_FULL     every slot is held by a live backend
 *   REGISTRY_FULL     every database row is taken
 *   PERMISSION, CORRUPT, VERSION_MISMATCH   the file is refused; the message names it
 *   TIMEOUT           the table lock's holder does not let go (it is stopped)
 *   UNSUPPORTED       the file system cannot do this
 *
 *   int32_t shop = dsmr_registry_open("shop", 4, NULL, 0, NULL, 0, NULL, NULL);
 */
DSMR_API int32_t dsmr_registry_open(const char *name, uint32_t name_length,
                                    const char *directory, uint32_t directory_length,
                                    const char *database, uint32_t database_length,
                                    const dsmr_registry_options *options, dsmr_error *error);

/*
 * Leaves: aborts what this backend is initialising, detaches its segments (their addresses
 * are invalid from here on), frees its slot and the handle. Segments of lifetime "attached"
 * that nobody else is attached to are removed.
 *
 * Returns 0, or CLOSED (stale handle), UNSUPPORTED (another thread's).
 * Should the table lock be unobtainable the backend leaves as if it had died: the memory
 * is unmapped, and others reap the slot.
 */
DSMR_API int32_t dsmr_registry_close(uint32_t registry);

/*
 * 1 if the registry can still be used, 0 if it was destroyed, DSMR_E_CLOSED for a stale
 * handle. Takes no lock and makes no system call.
 */
DSMR_API int32_t dsmr_registry_is_usable(uint32_t registry);

/*
 * How long the calls of this backend that have no timeout of their own wait for the registry's
 * table lock, from now on; 0: DSMR_TABLE_PATIENCE_MS, as at first. For programs that must not
 * block: set it, call, set it back, and try again later after a TIMEOUT. Returns 0 or CLOSED.
 */
DSMR_API int32_t dsmr_registry_patience(uint32_t registry, int32_t timeout_ms);

typedef struct dsmr_registry_info {
  uint64_t size;       /* bytes of the control file */
  uint64_t created_ns; /* wall clock */
  uint64_t instance;   /* random; tells the registry from an earlier one of its name */
  uint32_t creator_pid;
  uint32_t backend_count; /* live ones */
  uint32_t backend_count_max;
  uint32_t segment_count;
  uint32_t segment_count_max;
  uint32_t backend_id; /* the caller's, in dsmr_registry_describe; else 0 */
  uint32_t database_id; /* likewise */
  int32_t status;      /* 0, or why it cannot be attached: DSMR_E_CORRUPT, ... */
  uint32_t name_length;
  uint32_t database_length; /* the caller's database, in dsmr_registry_describe; else 0 */
  char name[DSMR_NAME_SIZE];
  char database[DSMR_NAME_SIZE];
} dsmr_registry_info;

/* Describes an attached registry. Returns 0, CLOSED, UNSUPPORTED or TIMEOUT. */
DSMR_API int32_t dsmr_registry_describe(uint32_t registry, dsmr_registry_info *info,
                                        dsmr_error *error);

/*
 * Lists the registries of a directory, in one scan, without attaching. Those of other users
 * are left out. One that cannot be attached is listed with its status.
 *
 * Returns how many there are and fills at most `capacity` of them; call again with more room
 * if there are more. Or NOT_FOUND, PERMISSION: the directory.
 */
DSMR_API int32_t dsmr_registry_list(const char *directory, uint32_t directory_length,
                                    dsmr_registry_info *infos, uint32_t capacity,
                                    dsmr_error *error);

/*
 * Destroys a registry: its name and those of its segments go, every backend's next call on
 * it is CLOSED, waiters wake up. Memory that is mapped stays valid until it is detached. A
 * registry that is corrupt or of another version is removed, too. A process killed in here
 * leaves a registry that the next open, list or destroy finishes off.
 *
 * Returns 1, or 0 if there is none, or NAME_INVALID, NAME_TOO_LONG, PERMISSION, TIMEOUT.
 */
DSMR_API int32_t dsmr_registry_destroy(const char *name, uint32_t name_length,
                                       const char *directory, uint32_t directory_length,
                                       dsmr_error *error);

typedef struct dsmr_backend_info {
  uint32_t backend_id;
  uint32_t pid;
  uint32_t tid;
  uint32_t database_id;
  uint64_t attached_ns;   /* wall clock */
  uint32_t segment_count; /* segments it is attached to */
  uint32_t is_self;       /* 1 for the caller */
  uint32_t label_length;
  uint32_t database_length;
  uint32_t waiting_length; /* length of `waiting`, 0 when it waits for nothing */
  uint32_t reserved;
  char label[DSMR_LABEL_SIZE];
  char database[DSMR_NAME_SIZE];
  char waiting[DSMR_NAME_SIZE]; /* the segment whose initialisation it waits for */
} dsmr_backend_info;

/*
 * Lists the live backends, reaping dead ones first: one consistent snapshot. Returns their
 * number and fills at most `capacity`; or CLOSED, UNSUPPORTED, TIMEOUT.
 */
DSMR_API int32_t dsmr_backends(uint32_t registry, dsmr_backend_info *infos, uint32_t capacity,
                               dsmr_error *error);

/* 1 if the backend with this id lives, 0 if it is dead, has left or never was; or CLOSED,
 * UNSUPPORTED. Asks the kernel; takes no lock. */
DSMR_API int32_t dsmr_backend_is_alive(uint32_t registry, uint32_t backend_id);

/* ---- databases --------------------------------------------------------------------- */

/*
 * A database is a name within a registry (64 at most) that backends open, and a scope for
 * segments of its own. Its id is never given twice in a registry: a database that was dropped and
 * made anew has another one, and begins empty.
 */
typedef struct dsmr_database_info {
  uint64_t created_ns; /* wall clock */
  uint32_t id;
  uint32_t name_length;
  char name[DSMR_NAME_SIZE];
} dsmr_database_info;

/* Lists the databases; as dsmr_backends. */
DSMR_API int32_t dsmr_databases(uint32_t registry, dsmr_database_info *infos, uint32_t capacity,
                                dsmr_error *error);

/*
 * Drops a database, be it "default" or the caller's own, with the segments in its scope, as
 * dsmr_segment_drop does: who is attached keeps the memory until it detaches. Its backends stay;
 * what they ask for in its scope is CLOSED from here on, also the commit of what they are
 * initialising; what is global goes on. Whoever opens the name next makes it anew.
 *
 * All of that is one step to others. A process killed in here has either dropped nothing, or the
 * database; then its segments go when it is reaped, and nobody finds them before.
 *
 * Returns 1, or 0 if there is none; or NAME_INVALID, NAME_TOO_LONG, CLOSED, UNSUPPORTED, TIMEOUT.
 */
DSMR_API int32_t dsmr_database_drop(uint32_t registry, const char *name, uint32_t name_length,
                                    dsmr_error *error);

/* ---- segments ---------------------------------------------------------------------- */

/*
 * GetNamedDSMSegment in parts, so that the init callback may throw, nest and take its time:
 *
 *   begin -> DSMR_FOUND       attached, initialised by somebody else (or by us, earlier)
 *         -> DSMR_INITIALIZE  attached, all zero, ours to fill; then commit or abort
 *         -> DSMR_WAIT        another backend is at it; dsmr_segment_wait, then begin again
 *         -> DSMR_RESERVE     (is_async) much space is to be reserved; dsmr_segment_reserve, then
 *                             begin again
 *
 * dsmr_get_named_segment below is the loop for C programs.
 */
enum dsmr_begin { DSMR_FOUND = 0, DSMR_INITIALIZE = 1, DSMR_WAIT = 2, DSMR_RESERVE = 3 };

/*
 * Whose name it is: one for the whole registry, or one in each database. The same name may be both.
 * When a database is dropped, whatever its backends ask for in the latter scope is CLOSED.
 */
enum dsmr_scope {
  DSMR_SCOPE_GLOBAL = 0,
  DSMR_SCOPE_DATABASE = 1, /* the database that the caller opened */
};

typedef struct dsmr_segment_request {
  uint64_t size;      /* bytes; 0 = whatever is there (NOT_FOUND if there is nothing) */
  uint32_t lifetime;  /* enum dsmr_lifetime; only used by whoever creates it */
  int32_t timeout_ms; /* for the whole of begin and wait; -1 = for ever */
  uint32_t is_async;  /* 1: waits by dsmr_segment_watch, which is no part of a DEADLOCK */
  uint32_t scope;     /* enum dsmr_scope */
  uint64_t layout;    /* hash of what the bytes mean; 0 = none: whatever is there */
} dsmr_segment_request;

typedef struct dsmr_segment_ticket {
  uint64_t started_ns; /* in: 0 at the first begin of a request; then left alone */
  uint64_t address;    /* FOUND, INITIALIZE: the user's bytes, aligned to 64 */
  uint64_t size;       /* likewise: how many */
  uint64_t id;         /* the segment's id, never given twice in a registry */
  uint64_t layout;     /* likewise: the hash that it was made with, or 0 */
  uint32_t segment;    /* FOUND, INITIALIZE: the handle */
  uint32_t entry;      /* WAIT: what dsmr_segment_wait needs */
  uint32_t word;       /* likewise */
  uint32_t owner;      /* WAIT: backend id of who is at it */
  uint32_t owner_pid;  /* WAIT: for people */
  uint32_t reserved;
} dsmr_segment_ticket;

/*
 * Finds, attaches or starts to initialise the segment `name`. Does not wait.
 *
 * A backend that has the segment attached gets the same handle and address again. Memory to
 * be initialised is zero, and reserved: writing to it cannot fail for want of space.
 * No lock is held when this returns, whatever it returns.
 *
 * Returns an enum dsmr_begin and fills `ticket`, or
 *   NAME_INVALID, NAME_TOO_LONG, SIZE_INVALID
 *   NOT_FOUND       size 0 and nothing there
 *   SIZE_INVALID    also: a lifetime or a scope that is none
 *   SIZE_MISMATCH   there, with another size: error.actual and error.requested
 *   LAYOUT_MISMATCH there, and a layout was asked for that it was not made with: likewise; its
 *                   own is 0 if it was made without. Told before another size is
 *   REGISTRY_FULL   no entry free
 *   NO_SPACE        the directory has not the room; nothing is left behind
 *   INIT_RECURSION  this backend is initialising that very name
 *   DEADLOCK        its initialiser waits, in the end, for this backend
 *   PERMISSION, CORRUPT  the segment's file is refused; the message names it
 *   CLOSED          also: the scope is the database's, and that was dropped
 *   UNSUPPORTED, TIMEOUT (table lock)
 */
DSMR_API int32_t dsmr_segment_begin(uint32_t registry, const char *name, uint32_t name_length,
                                    const dsmr_segment_request *request,
                                    dsmr_segment_ticket *ticket, dsmr_error *error);

/*
 * After DSMR_WAIT: sleeps until the entry changes, its initialiser dies, or some 100 ms have
 * gone by, whichever is first. Blocks the thread. Returns 0: call begin again; or TIMEOUT
 * once the request's timeout has passed since the first begin; CLOSED, UNSUPPORTED.
 */
DSMR_API int32_t dsmr_segment_wait(uint32_t registry, const char *name, uint32_t name_length,
                                   const dsmr_segment_request *request,
                                   const dsmr_segment_ticket *ticket, dsmr_error *error);

/*
 * After DSMR_INITIALIZE: publishes the segment and wakes the waiters. What was written
 * before is seen by everyone who attaches. Returns 0, or CLOSED, UNSUPPORTED, TIMEOUT (then
 * it is still ours to commit or abort); NOT_HELD: the segment is not being initialised. CLOSED,
 * too, if its database was dropped meanwhile: it is still ours, to abort.
 */
DSMR_API int32_t dsmr_segment_commit(uint32_t segment, dsmr_error *error);

/*
 * After DSMR_INITIALIZE: gives up. The memory is freed, the handle and the address are
 * invalid, the next waiter becomes initialiser, with any size. Returns as commit.
 */
DSMR_API int32_t dsmr_segment_abort(uint32_t segment, dsmr_error *error);

/*
 * Attaches a segment that is there and initialised, of whatever size; as begin with size 0,
 * but one that is still being initialised is NOT_FOUND, too. `scope` is an enum dsmr_scope.
 */
DSMR_API int32_t dsmr_segment_lookup(uint32_t registry, const char *name, uint32_t name_length,
                                     uint32_t scope, dsmr_segment_ticket *ticket,
                                     dsmr_error *error);

/*
 * Unmaps the segment: its address is invalid from here on (it reads as private zeros for a
 * while, for the sake of runtimes that still work on it), and so is the handle. Returns 0,
 * or CLOSED, UNSUPPORTED. If the table lock cannot be had the memory is unmapped all the
 * same, and the registry learns of it when the backend leaves.
 */
DSMR_API int32_t dsmr_segment_detach(uint32_t segment);

/*
 * For bindings whose language may still hold the address when the segment is detached (an
 * ArrayBuffer that was transferred to another Worker, say): from here on, when the memory is
 * unmapped, private zeros take its place, so that a late access finds nothing instead of
 * faulting. Costs address space, not memory. A thread that ends does this to all it has.
 * Returns 0, or CLOSED, UNSUPPORTED.
 */
DSMR_API int32_t dsmr_segment_park(uint32_t segment);

/*
 * Removes a name. Backends that are attached keep their memory until they detach; the name
 * is free at once. One that is being initialised is not there yet and is left alone.
 * Returns 1, or 0 if there is no such segment in the scope (enum dsmr_scope); or NAME_INVALID,
 * NAME_TOO_LONG, SIZE_INVALID (the scope), CLOSED, UNSUPPORTED, TIMEOUT.
 */
DSMR_API int32_t dsmr_segment_drop(uint32_t registry, const char *name, uint32_t name_length,
                                   uint32_t scope, dsmr_error *error);

/*
 * 1 while the attached segment is what its name means in the registry, 0 once it was dropped
 * or the registry destroyed, CLOSED for a stale handle. A hot call: no lock, no system call.
 */
DSMR_API int32_t dsmr_segment_is_current(uint32_t segment);

typedef struct dsmr_segment_info {
  uint64_t id;
  uint64_t size;
  uint64_t created_ns; /* wall clock */
  uint64_t layout;     /* the hash that it was made with, or 0 */
  uint32_t creator_pid;
  uint32_t is_ready;   /* 0: being initialised */
  uint32_t lifetime;   /* enum dsmr_lifetime */
  uint32_t backend_count; /* attached ones */
  uint32_t name_length;
  uint32_t owner;      /* backend id of who created it, or is at it */
  uint32_t database_id; /* whose name it is, or 0: global */
  uint32_t reserved;
  char name[DSMR_NAME_SIZE];
} dsmr_segment_info;

/* Lists the segments; as dsmr_backends. */
DSMR_API int32_t dsmr_segments(uint32_t registry, dsmr_segment_info *infos, uint32_t capacity,
                               dsmr_error *error);

/* ---- locks ------------------------------------------------------------------------- */

/*
 * LWLocks: 64 bytes inside a segment, exclusive or shared, for up to 256 backends. Every
 * segment carries one; more can be made in its bytes with dsmr_lock_init.
 *
 * Uncontended, taking and letting go are one atomic operation each and no system call.
 * A lock outlives anybody: a shared holder that dies is taken out of it; an exclusive one
 * that dies inside leaves it abandoned, which the next exclusive owner is told
 * (DSMR_LOCK_ABANDONED) and ends with dsmr_lock_mark_consistent when it has put the data
 * right. Until then the lock works and stays marked. Closing, detaching or ending the thread
 * while inside counts as dying.
 *
 * A lock is held by a backend, that is by a thread. A handle belongs to the backend; asking
 * for the same lock again gives the same handle.
 */
enum dsmr_lock_mode { DSMR_SHARED = 1, DSMR_EXCLUSIVE = 2 };

enum dsmr_lock_outcome {
  DSMR_LOCK_ACQUIRED = 0,
  DSMR_LOCK_ABANDONED = 1, /* acquired, and its exclusive holder had died inside */
  DSMR_LOCK_BUSY = 2,      /* not acquired */
  DSMR_LOCK_NOT_YET = 3,   /* acquire_or_wait: still waiting */
};

/*
 * The lock that the segment carries; then that of the 64 bytes at `offset` (a multiple of 64,
 * wholly inside the segment), which dsmr_lock_init has made. Returns the lock's handle, or
 *   SIZE_INVALID  the offset is misaligned or outside
 *   CORRUPT       there is no lock at the offset: it was never initialised, or overwritten
 *   NO_SPACE, CLOSED, UNSUPPORTED
 */
DSMR_API int32_t dsmr_lock_of_segment(uint32_t segment, dsmr_error *error);
DSMR_API int32_t dsmr_lock_at(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
                              dsmr_error *error);

/*
 * Makes the 64 bytes at `offset` a lock of the tranche, free. Belongs into the init callback,
 * or under a lock: nobody may be using it. Returns 0, or SIZE_INVALID (the offset), NOT_FOUND
 * (the tranche), ALREADY_HELD (there is a lock, and it is held), CLOSED, UNSUPPORTED.
 */
DSMR_API int32_t dsmr_lock_init(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
                                uint32_t tranche, dsmr_error *error);

/*
 * Takes the lock if that can be done at once; as LWLockConditionalAcquire. Returns an enum
 * dsmr_lock_outcome, or ALREADY_HELD (in any mode), NO_SPACE (128 locks are held), CLOSED,
 * UNSUPPORTED. dsmr_lock_explain tells the rest of an error.
 */
DSMR_API int32_t dsmr_lock_try(uint32_t lock, uint32_t mode);

/*
 * Takes the lock; as LWLockAcquire. Blocks, but at most some 100 ms: DSMR_LOCK_BUSY means
 * "not yet, call again with the same arguments". The place among the waiters is kept
 * meanwhile, until dsmr_lock_cancel. timeout_ms counts from the first call; -1 = for ever.
 *
 * Returns ACQUIRED or ABANDONED; BUSY; or, with nothing left behind: TIMEOUT, DEADLOCK (its
 * holder waits, in the end, for this backend; found after some 20 ms), ALREADY_HELD,
 * NO_SPACE, CLOSED (also: the registry was destroyed while waiting), UNSUPPORTED, CORRUPT (the
 * lock was overwritten, or names a holder that does not hold it).
 */
DSMR_API int32_t dsmr_lock_acquire(uint32_t lock, uint32_t mode, int32_t timeout_ms);

/*
 * Takes the lock exclusively if it is free; else waits until it is let go, and does not take
 * it: DSMR_LOCK_BUSY. As LWLockAcquireOrWait: for work that one does for all who came
 * meanwhile. Blocks at most some 100 ms: DSMR_LOCK_NOT_YET means call again. *started_ns is 0
 * at the first call. Otherwise as acquire.
 */
DSMR_API int32_t dsmr_lock_acquire_or_wait(uint32_t lock, uint64_t *started_ns,
                                           int32_t timeout_ms);

/* Ends a waiting that acquire has begun. Returns 0, CLOSED, UNSUPPORTED. */
DSMR_API int32_t dsmr_lock_cancel(uint32_t lock);

/* Lets go; as LWLockRelease. Returns 0, or NOT_HELD, CLOSED, UNSUPPORTED. */
DSMR_API int32_t dsmr_lock_release(uint32_t lock);

/* Lets go of every lock of the backend, and ends every waiting; as LWLockReleaseAll. Returns
 * how many were held, or CLOSED, UNSUPPORTED. */
DSMR_API int32_t dsmr_lock_release_all(uint32_t registry);

/* The data is in order again. Needs the lock exclusively: else NOT_HELD. */
DSMR_API int32_t dsmr_lock_mark_consistent(uint32_t lock);

/* enum dsmr_lock_mode as this backend holds it, or 0; plus 4 if the lock is abandoned; plus 8
 * if some backend has it exclusively, 16 if some have it shared, 32 if some wait for it, or
 * have it exclusively, as it looked just now. Or CLOSED, UNSUPPORTED. */
DSMR_API int32_t dsmr_lock_state(uint32_t lock);

/*
 * As LWLockUpdateVar: stores *value to the 8 bytes at `offset` (a multiple of 8) of the
 * lock's segment, and wakes who waits for them; with release_too as LWLockReleaseClearVar.
 * Needs the lock exclusively. Returns 0, or NOT_HELD, SIZE_INVALID, CLOSED, UNSUPPORTED.
 */
DSMR_API int32_t dsmr_lock_update_variable(uint32_t lock, uint32_t offset_low,
                                           uint32_t offset_high, const uint64_t *value,
                                           uint32_t release_too);

/*
 * As LWLockWaitForVar: waits until the lock is not held exclusively (returns 0), or the 8
 * bytes at `offset` are not *value any more (returns 1, and the new ones in *value). Does not
 * take the lock. Blocks at most some 100 ms: 2 means call again. Or TIMEOUT, as acquire, when
 * timeout_ms have passed since *started_ns (0 at the first call); SIZE_INVALID, ALREADY_HELD
 * (exclusively, by this backend), CLOSED, UNSUPPORTED.
 */
DSMR_API int32_t dsmr_lock_wait_for_variable(uint32_t lock, uint32_t offset_low,
                                             uint32_t offset_high, uint64_t *value,
                                             uint64_t *started_ns, int32_t timeout_ms);

/* What a failed lock call would have said with a dsmr_error. Returns the status. */
DSMR_API int32_t dsmr_lock_explain(uint32_t lock, int32_t status, int32_t timeout_ms,
                                   dsmr_error *error);

typedef struct dsmr_lock_info {
  uint32_t backend_id;
  uint32_t pid;
  uint32_t mode;       /* enum dsmr_lock_mode */
  uint32_t is_waiting; /* 1: waits for it; 0: holds it */
  uint64_t since_ns;   /* wall clock; of a holder 0: that is not noted down */
  uint64_t offset;     /* in the segment; UINT64_MAX: the lock that it carries */
  uint32_t segment_length;
  uint32_t tranche_length;
  char segment[DSMR_NAME_SIZE];
  char tranche[DSMR_NAME_SIZE];
} dsmr_lock_info;

/* Lists who holds and who waits for which lock, as it looked just now; as dsmr_backends. Of the
 * locks that a backend waits for by watches, one. */
DSMR_API int32_t dsmr_locks(uint32_t registry, dsmr_lock_info *infos, uint32_t capacity,
                            dsmr_error *error);

/* ---- tranches ---------------------------------------------------------------------- */

/*
 * Makes a tranche: a named family of locks, which is what a wait shows up as; as
 * LWLockNewTrancheId. Names need not be unique. With `segment` it goes when that segment is
 * removed; with 0 it stays until it is dropped. Returns its id (over 0), or NAME_INVALID,
 * NAME_TOO_LONG, TRANCHES_FULL (1,024 are in use), CLOSED, UNSUPPORTED, TIMEOUT.
 */
DSMR_API int32_t dsmr_tranche_new(uint32_t registry, const char *name, uint32_t name_length,
                                  uint32_t segment, dsmr_error *error);

/* Gives the id back; locks that carry it have no tranche then, and work all the same.
 * Returns 1, or 0 if there is none; or CLOSED, UNSUPPORTED, TIMEOUT. */
DSMR_API int32_t dsmr_tranche_drop(uint32_t registry, uint32_t tranche, dsmr_error *error);

typedef struct dsmr_tranche_info {
  uint32_t id;          /* 0: the tranche of a segment's own lock */
  uint32_t name_length;
  uint64_t contended;   /* acquisitions that had to wait */
  uint64_t waited_ns;   /* how long, together */
  uint64_t abandoned;   /* deaths of exclusive holders inside */
  char name[DSMR_NAME_SIZE];
} dsmr_tranche_info;

/* Lists the tranches, those of the segments' own locks included; as dsmr_backends. */
DSMR_API int32_t dsmr_tranches(uint32_t registry, dsmr_tranche_info *infos, uint32_t capacity,
                               dsmr_error *error);

/* ---- waiting without blocking ------------------------------------------------------ */

/*
 * A thread with an event loop waits by watches. It calls one of the dsmr_..._watch, which tries
 * at once; if it has to wait, a watch is set, and its id (over 65,535) returned. When there is
 * reason to try again, a thread of the process, which watches for all, queues the id and rings
 * the doorbell: a socket that becomes readable. The thread reads what is there, asks
 * dsmr_doorbell_answer for the ids, and calls again for each: nothing is acquired behind its
 * back. A watch fires once. Detaching or closing ends the watches on what goes, unfired; so does
 * the end of their thread.
 *
 * The calling thread's doorbell, made at the first call: the descriptor to read from, which is
 * the caller's to read and to close. After that, the next call makes another. Or NO_SPACE.
 */
DSMR_API int32_t dsmr_doorbell(dsmr_error *error);

/* Takes the ids of fired watches off the thread's queue, at most `capacity`; returns how many.
 * If it was that many, there may be more. */
DSMR_API int32_t dsmr_doorbell_answer(uint32_t *ids, uint32_t capacity);

/* Ends a watch of the thread, fired or not. Returns 1, or 0 if there is none. */
DSMR_API int32_t dsmr_watch_end(uint32_t watch);

/*
 * As dsmr_lock_acquire, without blocking. Returns ACQUIRED, ABANDONED; or a watch's id: the
 * place among the waiters is kept until the next call of it, or dsmr_lock_cancel (which does not
 * end the watch). Or, with nothing left behind, what dsmr_lock_try returns; NO_SPACE: also
 * 65,536 watches; UNSUPPORTED: also no doorbell; CORRUPT: as dsmr_lock_acquire; TIMEOUT: a dead
 * process is in the way, and others were changing the registry's tables for all the 5 ms that
 * this call tried to clear it away: call again after a moment. Waits of this kind are no part of
 * a DEADLOCK: their backend goes on meanwhile.
 */
DSMR_API int32_t dsmr_lock_watch(uint32_t lock, uint32_t mode);

/* As dsmr_lock_wait_for_variable, likewise; both halves of the offset 0xffffffff: just until it
 * is not held exclusively. Waits also for the calling backend itself, whose tasks may change the
 * variable, or let go, while another waits. Returns 0, 1, or a watch's id, or an error of that
 * call. */
DSMR_API int32_t dsmr_lock_watch_variable(uint32_t lock, uint32_t offset_low,
                                          uint32_t offset_high, uint64_t *value);

/*
 * Sleeps while the 32 bits at `offset` (a multiple of 4) of a segment are `expected`, at most
 * timeout_ms (-1: until the slice ends) and some 100 ms. Returns 0, for whatever reason: look
 * again; or SIZE_INVALID, CLOSED, UNSUPPORTED. dsmr_word_wake wakes at most `count` of those who
 * sleep there, and returns how many. dsmr_word_watch is the first without blocking: 0 (they are
 * not), or a watch's id. It fires on a change for certain, on a wake that changed nothing as a
 * rule: change the word first.
 */
DSMR_API int32_t dsmr_word_wait(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
                                uint32_t expected, int32_t timeout_ms);
DSMR_API int32_t dsmr_word_wake(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
                                uint32_t count);
DSMR_API int32_t dsmr_word_watch(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
                                 uint32_t expected);

/*
 * After a begin that returned DSMR_RESERVE: reserves the space of a segment of `size` bytes (low
 * and high half) in a thread of its own, in a file without a name. 0 (begin again), or a watch's
 * id; or NO_SPACE, CLOSED, UNSUPPORTED. The next begin of that size takes it; or, with `gives_up`
 * not 0, it is given back, and 0 returned.
 */
DSMR_API int32_t dsmr_segment_reserve(uint32_t registry, uint32_t size_low, uint32_t size_high,
                                      uint32_t gives_up);

/* After a begin that returned DSMR_WAIT: 0 (begin again), or a watch's id. */
DSMR_API int32_t dsmr_segment_watch(uint32_t registry, const dsmr_segment_ticket *ticket,
                                    dsmr_error *error);

/*
 * Watches for segments and backends that come and go. *seen is a number that grows with each
 * change: 0 (and the new number) if it has changed, or a backend is dead and not yet cleared
 * away, which any listing does; else a watch's id.
 */
DSMR_API int32_t dsmr_registry_watch(uint32_t registry, uint32_t *seen, dsmr_error *error);

/* ---- for C programs ---------------------------------------------------------------- */

/* The address and size of an attached segment; NULL and 0 for a stale handle. */
DSMR_API void *dsmr_segment_address(uint32_t segment);
DSMR_API uint64_t dsmr_segment_size(uint32_t segment);

/* Fills a fresh, zeroed segment. 0, or any negative number to give it up. */
typedef int32_t (*dsmr_init_callback)(void *address, uint64_t size, void *argument);

/*
 * The global segment `name` (NUL-terminated), as GetNamedDSMSegment: creates it if it is not there
 * and has exactly one backend run `init` (which may be NULL: then it is all zero); everyone
 * else waits here until it is done. `found` (may be NULL) is false for the one that
 * initialised. Blocks as long as another backend initialises, at most `timeout_ms`
 * (-1 = for ever).
 *
 * No lock is held while `init` runs, and it may ask for other segments. If it fails, the
 * segment is freed, the caller gets INIT_FAILED and the next waiter tries. If its process
 * dies, the next waiter tries.
 *
 * Returns the segment's handle, or a status of begin, wait or commit, or INIT_FAILED.
 *
 *   bool found;
 *   int32_t seg = dsmr_get_named_segment(shop, "hits", 4096, NULL, NULL, -1, &found, NULL);
 *   _Atomic uint32_t *hits = dsmr_segment_address((uint32_t)seg);
 */
DSMR_API int32_t dsmr_get_named_segment(uint32_t registry, const char *name, uint64_t size,
                                        dsmr_init_callback init, void *argument,
                                        int32_t timeout_ms, bool *found, dsmr_error *error);

/* The name of a status without its prefix, such as "NOT_FOUND"; "" for a number unknown. */
DSMR_API const char *dsmr_status_name(int32_t status);

#ifdef __cplusplus
}
#endif

#endif

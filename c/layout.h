/*
 * layout.h - the on-memory format of a registry.
 *
 * Everything in this file is shared between processes that may have been built at
 * different times, from different languages, against different C libraries. So:
 *
 *   - fixed-width types only, no pointers, every offset asserted below;
 *   - `format` folds the version and the sizes of the structures into one number; a file
 *     with another number is refused (DSMR_E_VERSION_MISMATCH), never reinterpreted;
 *   - the first 64 bytes of a control file keep their meaning in every version, so that
 *     any version can list and destroy a registry of any other.
 *
 * FILES, in the shared-memory directory (/dev/shm on Linux):
 *
 *   dsmr.r.NAME                                   control file of registry NAME
 *   dsmr.s.NAME.<instance, 16 hex>.<id, 16 hex>   one segment of that registry
 *
 * A control file appears under its name complete (it is built nameless and linked), so
 * there is no half-made control file to wait for or to repair.
 *
 * CONTROL FILE
 *
 *   offset                  what                       written by
 *   0                       struct control_header      creator; then see the fields
 *   header.backends_offset  struct backend_slot[]      the slot's owner; reapers
 *   header.databases_offset struct database_row[]      under the table lock
 *   header.tranches_offset  struct tranche_row[]       under the table lock
 *   header.entries_offset   struct entry[]             under the table lock
 *
 * KERNEL LOCKS on the control file. Each backend has an open file description of its own
 * and takes OFD locks through it. They lie far behind the end of any file, and fall when
 * the description is closed: at the latest when the process dies.
 *
 *   byte                    held by
 *   LOCK_BYTE_TABLE         whoever changes a table (the "table lock"), for microseconds
 *   LOCK_BYTE_SLOT + n      the backend in slot n, as long as it lives: this IS liveness
 *
 * SEGMENT FILE
 *
 *   0    struct segment_header   written by the initialiser before anybody attaches
 *   64   one LWLock              the lock that every segment carries
 *   128  the user's bytes        (SEGMENT_DATA_OFFSET)
 */
#ifndef DSMR_LAYOUT_H
#define DSMR_LAYOUT_H

#include "dsmr.h"

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define DSMR_BACKENDS_MAX 256u
#define DSMR_SEGMENTS_MAX 65536u
#define DSMR_BACKENDS_DEFAULT 256u
#define DSMR_SEGMENTS_DEFAULT 1024u
#define DSMR_DATABASES_MAX 64u

#define CONTROL_MAGIC UINT64_C(0x3154435f524d5344) /* "DSMR_CT1" in memory order */
#define SEGMENT_MAGIC UINT64_C(0x3147535f524d5344) /* "DSMR_SG1" in memory order */
#define FORMAT_VERSION 6u

#define LOCK_BYTE_TABLE (INT64_C(1) << 40)
#define LOCK_BYTE_SLOT (LOCK_BYTE_TABLE + 64)

/* ---- control file: header -------------------------------------------------------- */

/*
 * control_header.state. A creator publishes CONTROL_READY before the file has a name;
 * the only later change is READY -> DESTROYED, under the table lock, and it is final.
 */
enum control_state {
  CONTROL_READY = 1,
  CONTROL_DESTROYED = 2, /* whoever finds it finishes the unlinking */
};

struct control_header {
  /* The first 64 bytes mean the same in every version. */
  uint64_t magic;
  uint32_t format;
  _Atomic uint32_t state;
  uint64_t size;     /* bytes in the whole file */
  uint64_t instance; /* random; tells this registry from an earlier one of its name */
  uint64_t created_ns; /* wall clock */
  uint32_t creator_pid; /* for people */
  uint32_t reserved[5];

  uint32_t backend_count_max;
  uint32_t segment_count_max;
  uint32_t entry_capacity; /* cells in the entry table: a power of two, >= 2 * max */
  uint32_t database_count_max;
  uint32_t backends_offset;
  uint32_t databases_offset;
  uint32_t entries_offset;
  uint32_t name_length;
  char name[DSMR_NAME_SIZE];

  /*
   * 1 when somebody may be asleep waiting for the table lock. Legal to be 1 with nobody
   * asleep (a waiter died: one wake-up too many); never 0 with somebody asleep for longer
   * than TABLE_SLEEP_MAX_NS, because every sleep is bounded by that.
   */
  _Atomic uint32_t table_waiters;
  _Atomic uint32_t table_holder; /* pid of the last holder, or 0; for messages only */
  uint64_t reserved3;
  uint32_t last_database_id; /* under the table lock; ids are never given twice */
  /* Entries with a name. Changed under the table lock; recounted by each reap, so a death between
   * the entry's store and this one is mended. Read without the lock by listings. */
  _Atomic uint32_t segment_count;
  uint32_t tranches_offset;
  /* Grows by 2 when a segment or a backend comes or goes; bit 0: somebody sleeps on it. Under
   * the table lock, but for the flag. */
  _Atomic uint32_t changes;
  uint32_t reserved2[16];
};

static_assert(sizeof(struct control_header) == 256, "control_header");
static_assert(offsetof(struct control_header, state) == 12, "stable in every version");
static_assert(offsetof(struct control_header, size) == 16, "stable in every version");
static_assert(offsetof(struct control_header, instance) == 24, "stable in every version");
static_assert(offsetof(struct control_header, backend_count_max) == 64, "stable part ends");
static_assert(offsetof(struct control_header, name) == 96, "name");
static_assert(offsetof(struct control_header, table_waiters) == 160, "table_waiters");
static_assert(offsetof(struct control_header, last_database_id) == 176, "last_database_id");

/* ---- control file: backend slots ------------------------------------------------- */

/*
 * backend_slot.word
 *
 *   31            8 7      0
 *  +---------------+--------+
 *  |  generation   | state  |
 *  +---------------+--------+
 *
 * The word with state cut off, plus the slot number, is the backend id:
 * generation << 8 | slot. FREE -> LIVE and LIVE -> FREE (generation + 1) happen under the
 * table lock only, so a reaper can never touch a slot's next tenant.
 *
 * LIVE in the word says "somebody was here"; whether they still are is what the kernel
 * says about LOCK_BYTE_SLOT + n, nothing else.
 */
enum slot_state { SLOT_FREE = 0, SLOT_LIVE = 1 };
#define SLOT_STATE(word) ((word) & 0xffu)
#define SLOT_GENERATION(word) ((word) >> 8)
#define SLOT_WORD(generation, state) (((uint32_t)(generation) << 8) | (uint32_t)(state))
#define BACKEND_ID(generation, slot) (((uint32_t)(generation) << 8) | (uint32_t)(slot))
#define BACKEND_SLOT(id) ((id) & 0xffu)

#define SLOT_LABEL_SIZE DSMR_LABEL_SIZE

/*
 * The journal of locks. A record stands in backend_slot.held from before the first
 * instruction that may mark a lock as this backend's until after the last that unmarks it.
 * Legal: a record for a lock that is not held. Illegal: a held lock without a record.
 *
 *   63                    25 24                8 7    2 1   0
 *  +------------------------+-------------------+------+-----+
 *  |  line: offset in file  |   entry's index   |  0   | mode|     mode 1 shared, 2 exclusive
 *  |       in 64 bytes      |                   |      |     |     0 = no record
 *  +------------------------+-------------------+------+-----+
 *
 * The entry's cell cannot be given to another segment meanwhile: a segment is removed when
 * nobody is attached to it any more, and a backend is until it is reaped.
 *
 * Behind the records of the journal stand the marks of readers, in a cache line of their own: of
 * a lock that is BIASed a record with mode 1 there is what the reader's bit is elsewhere, the
 * mark itself. Which of the cells it is follows from the lock. Mode 3: the mark is taken away, the
 * record is left until that has been told.
 */
#define HELD_MAX 128u
#define MARKS_MAX 8u
#define HELD_CELLS (HELD_MAX + MARKS_MAX)
#define HELD_RECORD(line, entry, mode) \
  ((uint64_t)(line) << 25 | (uint64_t)(entry) << 8 | (uint64_t)(mode))
#define HELD_MODE(record) ((uint32_t)((record) & 3u))
#define HELD_ENTRY(record) ((uint32_t)((record) >> 8 & 0x1ffffu))
#define HELD_LINE(record) ((record) >> 25)
#define HELD_LOCK(record) ((record) & ~UINT64_C(3)) /* which lock, whatever the mode */
#define HELD_UNMARKED UINT64_C(3)
#define MARK_CELL(record) (HELD_MAX + (HELD_LINE(record) + HELD_ENTRY(record)) % MARKS_MAX)

/*
 * backend_slot.waiting_lock: the record of the lock that this backend waits for, with one of
 * these in the bits between mode and entry, or 0. A waiter for the owner word holds nothing
 * of that lock; one that drains holds the owner word, and waits for the readers inside.
 */
#define WAITING_OWNER UINT64_C(0x04)
#define WAITING_READERS UINT64_C(0x08)
#define WAITING_KIND(record) ((record) & UINT64_C(0xfc))

struct backend_slot {
  _Atomic uint32_t word;
  uint32_t database_id;
  uint32_t pid; /* pid, tid, attached_ns, label: for people, never to decide anything */
  uint32_t tid;
  uint64_t attached_ns; /* wall clock */
  /*
   * The entry whose initialisation this backend waits for: index + 1 and id, or 0. Set
   * under the table lock, cleared by the backend alone. Read under the table lock to find
   * cycles; the id makes a stale pair harmless.
   */
  _Atomic uint32_t waiting_entry;
  _Atomic uint32_t bell_word; /* index of the futex word in `bell`, + 1; 0 = there is none */
  _Atomic uint64_t waiting_entry_id;
  char label[SLOT_LABEL_SIZE]; /* which program, for example "deno 2.9.6" */
  _Atomic uint64_t waiting_lock;
  _Atomic uint64_t waiting_since_ns; /* monotonic; together they name one wait */
  /* The same, random number for all backends of one thread: they wait as one. */
  uint64_t thread;
  /* One of the locks that this backend waits for without blocking: its record and since when.
   * The one in whose `starving` its name may stand; no edge of the wait graph, for the backend
   * goes on meanwhile. */
  _Atomic uint64_t watched_lock;
  _Atomic uint64_t watched_since_ns;
  /* With waiting_lock: the wait ends, too, when these eight bytes of the lock's file are not what
   * is expected any more. 0: it does not. */
  _Atomic uint64_t waiting_variable;
  _Atomic uint64_t waiting_expected;
  /*
   * The death bell: a futex word, at bell_word, and what makes it a node of the kernel's list of
   * the backend's thread (see os_linux.c). When the thread dies the kernel sets OWNER_DIED in
   * the word, and wakes one sleeper. Others only look at that word and sleep on it.
   */
  uint8_t bell[64];
  _Atomic uint64_t held[HELD_CELLS];
};

static_assert(sizeof(struct backend_slot) == 1280, "backend_slot");
static_assert(offsetof(struct backend_slot, waiting_entry_id) == 32, "waiting_entry_id");
static_assert(offsetof(struct backend_slot, bell) == 128, "bell");
static_assert(offsetof(struct backend_slot, held) == 192, "held");

/* ---- control file: databases ----------------------------------------------------- */

struct database_row {
  /* 0 = free row; else stable, never given twice. Storing it is what makes a database, and
   * storing 0 what drops it; see database.c. */
  _Atomic uint32_t id;
  uint32_t name_length;
  char name[DSMR_NAME_SIZE];
  uint64_t created_ns;
};

static_assert(sizeof(struct database_row) == 80, "database_row");

/* ---- control file: tranches ------------------------------------------------------- */

/* Added to by waiters and reapers only: never on the uncontended path. */
struct lock_counters {
  _Atomic uint64_t contended; /* acquisitions that had to wait */
  _Atomic uint64_t waited_ns;
  _Atomic uint64_t abandoned;
  uint64_t reserved;
};

/*
 * A tranche's id is generation << 12 | row. The word is the id while the row is in use, else
 * generation << 12 | 0xfff: a row that no id has. Under the table lock; the word is stored
 * last. Every segment's own lock is in the tranche TRANCHE_OF_ENTRY(its index), which has no
 * row: its name is the segment's, its counters are in the entry.
 */
#define TRANCHES_MAX 1024u
#define TRANCHE_ROW(id) ((id) & 0xfffu)
#define TRANCHE_GENERATION(id) ((id) >> 12 & 0x7ffffu)
#define TRANCHE_ID(generation, row) (((uint32_t)(generation) & 0x7ffffu) << 12 | (uint32_t)(row))
#define TRANCHE_NO_ROW 0xfffu
#define TRANCHE_OF_ENTRY(index) (UINT32_C(0x80000000) | (uint32_t)(index))
#define TRANCHE_IS_OF_ENTRY(id) (((id) & UINT32_C(0x80000000)) != 0)
#define TRANCHE_ENTRY(id) ((id) & UINT32_C(0x7fffffff))

struct tranche_row {
  _Atomic uint32_t word;
  uint32_t name_length;
  uint64_t owner; /* id of the segment that it goes with, or 0: the registry */
  char name[DSMR_NAME_SIZE];
  struct lock_counters counters;
  uint8_t reserved[16];
};

static_assert(sizeof(struct tranche_row) == 128, "tranche_row");

/* ---- control file: entries ------------------------------------------------------- */

/*
 * entry.word
 *
 *   31               3 2      0
 *  +------------------+--------+
 *  |     sequence     | state  |      sequence + 1 at every change of state
 *  +------------------+--------+
 *
 *                begin                commit
 *   EMPTY ----------------> INITIALIZING ----------> READY
 *     ^   TOMBSTONE ------------^   |                  |
 *     |       ^                     | abort, death     | drop, last detach of "attached"
 *     |       |                     v                  |
 *     +-------+------------------ DROPPING <-----------+
 *           file unlinked
 *
 * drop, while backends are attached: READY -> DROPPED, and DROPPED -> DROPPING with the last.
 *
 * The table is open-addressed by the hash of database and name, with linear probing. EMPTY ends a
 * probe, TOMBSTONE does not. The word is the one commit point of every change: a process
 * killed before the store has changed nothing that counts, one killed after has finished,
 * save for DROPPING, which means "gone; the file may still have to be unlinked" and is
 * finished by whoever reaps the dead.
 *
 * All changes are made under the table lock. The word is also read without it: by waiters
 * (futex) and to see whether an attachment is still current.
 */
enum entry_state {
  ENTRY_EMPTY = 0,
  ENTRY_INITIALIZING = 1,
  ENTRY_READY = 2,
  ENTRY_DROPPING = 3,
  ENTRY_TOMBSTONE = 4,
  ENTRY_DROPPED = 5, /* without a name, but backends are attached */
};
#define ENTRY_STATE(word) ((word) & 7u)
#define ENTRY_NEXT(word, state) ((((word) & ~7u) + 8u) | (uint32_t)(state))

/* entry.flags */
#define ENTRY_LIFETIME_ATTACHED 1u /* goes when the last backend leaves or dies */
#define ENTRY_HAS_TRANCHES 2u      /* some tranche's owner, perhaps of the past */

struct entry {
  _Atomic uint32_t word;
  uint32_t owner; /* backend id of the initialiser; who created it, once READY */
  /* Names the file. 52 random bits: never given twice, for all that can happen, and nobody
   * of another uid can put a file where the next segment's will be. */
  uint64_t id;
  uint64_t size;  /* the user's bytes */
  uint64_t created_ns; /* wall clock */
  uint32_t creator_pid; /* for people */
  uint32_t flags;
  uint32_t name_hash;
  uint32_t name_length;
  char name[DSMR_NAME_SIZE];
  /* Bit n: the backend in slot n is attached. Under the table lock. */
  uint64_t attached[DSMR_BACKENDS_MAX / 64];
  /* Counters of the segment's own tranche; see struct tranche_row. */
  struct lock_counters counters;
  uint64_t layout; /* hash of what the bytes mean, chosen by the creator; 0 = none */
  uint32_t database_id; /* 0: global. With the name, what it is found by */
  uint32_t reserved;
};

static_assert(sizeof(struct entry) == 192, "entry");
static_assert(offsetof(struct entry, layout) == 176, "entry.layout");
static_assert(offsetof(struct entry, name) == 48, "entry.name");
static_assert(offsetof(struct entry, attached) == 112, "entry.attached");

/* ---- segment file ---------------------------------------------------------------- */

struct segment_header {
  uint64_t magic;
  uint32_t format;
  uint32_t reserved;
  uint64_t instance; /* must be the registry's */
  uint64_t id;       /* must be the entry's */
  uint64_t size;     /* must be the entry's */
  uint8_t reserved2[24];
};

static_assert(sizeof(struct segment_header) == 64, "segment_header");
#define SEGMENT_LOCK_OFFSET 64u
#define SEGMENT_DATA_OFFSET 128u

/* ---- locks ------------------------------------------------------------------------ */

/*
 * An LWLock: one cache line, at an offset that is a multiple of 64 from the start of the
 * segment's file. See lwlock.c for the protocol.
 *
 * owner
 *
 *   31       30        29         28     27             9 8            0
 *  +--------+---------+----------+------+---------------+--------------+
 *  | POISON | WAITERS | STARVING | BIAS |  generation   |   slot + 1   |
 *  +--------+---------+----------+------+---------------+--------------+
 *
 *   token     the lower 28 bits: the backend that has claimed it, 0 = nobody. From the claim
 *             on, no new reader comes in; inside is who has also seen no reader left.
 *   POISON    an exclusive holder died inside; stays until markConsistent.
 *   WAITERS   somebody may sleep on this word. Legal to be set with nobody asleep; if it is
 *             clear with somebody asleep (a woken waiter died), the bounded sleep ends that.
 *   STARVING  `starving` names a backend that has waited long: others queue behind it.
 *             Set after `starving`, cleared before it, by that backend or its reaper alone.
 *   BIAS      towards readers: some may be inside that have no bit in `readers` but a mark in
 *             their slot. Set by a reader that leaves, in a word without a claim; cleared by a
 *             claimant that has seen no mark left, by nobody else.
 *
 * drain
 *
 *   31                              1 0
 *  +---------------------------------+---+
 *  |            sequence             | S |    S: the claimant sleeps until readers leave
 *  +---------------------------------+---+
 */
#define LOCK_POISON (UINT32_C(1) << 31)
#define LOCK_WAITERS (UINT32_C(1) << 30)
#define LOCK_STARVING (UINT32_C(1) << 29)
#define LOCK_BIAS (UINT32_C(1) << 28)
#define LOCK_TOKEN(word) ((word) & UINT32_C(0x0fffffff))
#define LOCK_TOKEN_OF(backend_id) \
  (((backend_id) >> 8 & 0x7ffffu) << 9 | (BACKEND_SLOT(backend_id) + 1))
#define LOCK_TOKEN_SLOT(token) (((token) & 0x1ffu) - 1)
#define LOCK_MAGIC UINT32_C(0x4b434c44) /* "DLCK" in memory order */
#define LOCK_SIZE 64u

struct lwlock {
  _Atomic uint32_t owner; /* futex word of whoever waits to come in */
  _Atomic uint32_t phase; /* the owner's token while it is inside, else 0 */
  /* Bit n: the backend in slot n is inside, shared, or trying to be. See BIAS. */
  _Atomic uint64_t readers[DSMR_BACKENDS_MAX / 64];
  _Atomic uint32_t drain;    /* futex word of the claimant */
  _Atomic uint32_t starving; /* token, and in bit 29 whether it wants to be exclusive */
  _Atomic uint32_t magic;    /* LOCK_MAGIC once initialised */
  uint32_t tranche;
  /* Grows when the holder has updated a variable, or has let go of a lock that is waited
   * for; bit 0: somebody sleeps here. Futex word of who waits for either without wanting the
   * lock, and of the one that starves. */
  _Atomic uint32_t events;
  /* When it was let go of last with STARVING set: milliseconds of the monotonic clock. Who
   * starves has its chance from then on, for STARVE_CHANCE_MS. */
  _Atomic uint32_t freed_ms;
};

#define STARVING_EXCLUSIVE (UINT32_C(1) << 29)

static_assert(sizeof(struct lwlock) == LOCK_SIZE, "lwlock");
static_assert(offsetof(struct lwlock, readers) == 8, "lwlock.readers");
static_assert(offsetof(struct lwlock, drain) == 40, "lwlock.drain");
static_assert(DSMR_BACKENDS_MAX < 0x1ff, "a slot + 1 fits into a token");

/*
 * Version, and the sizes that a careless change would move. Changes to any structure above
 * change a size or must raise FORMAT_VERSION.
 */
#define DSMR_FORMAT                                                                        \
  ((FORMAT_VERSION << 24) ^ ((uint32_t)sizeof(struct control_header) << 14) ^              \
   ((uint32_t)sizeof(struct backend_slot) << 7) ^ ((uint32_t)sizeof(struct entry) << 1) ^  \
   (uint32_t)sizeof(struct segment_header))

#endif

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
#define FORMAT_VERSION 1u

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
  uint64_t last_segment_id; /* under the table lock; ids are never given twice */
  uint32_t last_database_id; /* likewise */
  /* Entries in use. Changed under the table lock; recounted by each reap, so a death between
   * the entry's store and this one is mended. Read without the lock by listings. */
  _Atomic uint32_t segment_count;
  uint32_t reserved2[18];
};

static_assert(sizeof(struct control_header) == 256, "control_header");
static_assert(offsetof(struct control_header, state) == 12, "stable in every version");
static_assert(offsetof(struct control_header, size) == 16, "stable in every version");
static_assert(offsetof(struct control_header, instance) == 24, "stable in every version");
static_assert(offsetof(struct control_header, backend_count_max) == 64, "stable part ends");
static_assert(offsetof(struct control_header, name) == 96, "name");
static_assert(offsetof(struct control_header, table_waiters) == 160, "table_waiters");
static_assert(offsetof(struct control_header, last_segment_id) == 168, "last_segment_id");

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
  uint32_t reserved;
  _Atomic uint64_t waiting_entry_id;
  char label[SLOT_LABEL_SIZE]; /* which program, for example "deno 2.9.6" */
  uint8_t reserved2[56];
};

static_assert(sizeof(struct backend_slot) == 128, "backend_slot");
static_assert(offsetof(struct backend_slot, waiting_entry_id) == 32, "waiting_entry_id");

/* ---- control file: databases ----------------------------------------------------- */

struct database_row {
  _Atomic uint32_t id; /* 0 = free row; else stable, never given twice: the commit store */
  uint32_t name_length;
  char name[DSMR_NAME_SIZE];
  uint64_t created_ns;
};

static_assert(sizeof(struct database_row) == 80, "database_row");

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
 * The table is open-addressed by the hash of the name, with linear probing. EMPTY ends a
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
};
#define ENTRY_STATE(word) ((word) & 7u)
#define ENTRY_NEXT(word, state) ((((word) & ~7u) + 8u) | (uint32_t)(state))

/* entry.flags */
#define ENTRY_LIFETIME_ATTACHED 1u /* goes when the last backend leaves or dies */

struct entry {
  _Atomic uint32_t word;
  uint32_t owner; /* backend id of the initialiser; who created it, once READY */
  uint64_t id;    /* names the file; unique in this instance for ever */
  uint64_t size;  /* the user's bytes */
  uint64_t created_ns; /* wall clock */
  uint32_t creator_pid; /* for people */
  uint32_t flags;
  uint32_t name_hash;
  uint32_t name_length;
  char name[DSMR_NAME_SIZE];
  /* Bit n: the backend in slot n is attached. Under the table lock. */
  uint64_t attached[DSMR_BACKENDS_MAX / 64];
  uint8_t reserved[48];
};

static_assert(sizeof(struct entry) == 192, "entry");
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

/*
 * Version, and the sizes that a careless change would move. Changes to any structure above
 * change a size or must raise FORMAT_VERSION.
 */
#define DSMR_FORMAT                                                                        \
  ((FORMAT_VERSION << 24) ^ ((uint32_t)sizeof(struct control_header) << 14) ^              \
   ((uint32_t)sizeof(struct backend_slot) << 7) ^ ((uint32_t)sizeof(struct entry) << 1) ^  \
   (uint32_t)sizeof(struct segment_header))

#endif

/*
 * backend.h - this process's backends, and the slots of everybody's.
 */
#ifndef DSMR_BACKEND_H
#define DSMR_BACKEND_H

#include "control.h"

/*
 * A segment that a backend has mapped. `word` is the entry's word while it is what it was
 * when we attached; ENTRY_STATE(word) tells whether it is still ours to initialise.
 */
struct attachment {
  struct attachment *next; /* of the same cell of the entry table */
  struct backend *backend;
  struct mapping *mapping;
  uint64_t id;
  uint64_t size;
  struct claim *claims; /* of the locks in it; see lwlock.h */
  struct claim **buckets; /* the same, by place; see claim.c */
  uint32_t bucket_count;
  uint32_t claim_count;
  uint32_t handle;
  uint32_t entry;
  uint32_t word;
};

struct backend {
  struct backend *next_of_thread;
  struct backend *next_of_process;
  struct attachment **attachments; /* lists, by entry; NULL before the first */
  uint32_t id;
  uint32_t slot;
  uint32_t handle;
  uint32_t database_id;
  /* A detach could not get the table lock, so the table says more than is true. */
  bool needs_sweep;
  void *bell; /* which the thread hung for this backend, or NULL */
  struct reservation *reservations; /* space for segments to come; see reserve.h */
  uint32_t watch_count; /* watches that this backend's thread has set on it; see watch.h */
  uint32_t journal_hand; /* see journal.h */
  struct control control; /* as far down as the large things begin */
  /* Whose the cells of our journal are; see journal.h. */
  struct claim *journal_owners[HELD_MAX];
  char database[DSMR_NAME_SIZE];
};

struct backend_options {
  const char *database;
  uint32_t database_length;
  uint32_t mode;
  struct control_limits limits;
  int32_t timeout_ms;
  char label[DSMR_LABEL_SIZE];
};

int32_t backend_open(const struct control_place *place, const struct backend_options *options,
                     struct backend **opened, dsmr_error *error);
void backend_close(struct backend *backend);

/* The backend behind a handle, if it is the calling thread's; else CLOSED or UNSUPPORTED. */
int32_t backend_find(uint32_t handle, struct backend **found, dsmr_error *error);
/* The same, and takes the table lock: CLOSED, too, if the registry was destroyed. */
int32_t backend_enter(uint32_t handle, struct backend **found, dsmr_error *error);
/* Likewise the attachment behind a segment's handle. */
int32_t attachment_find(uint32_t handle, struct attachment **found, dsmr_error *error);

/* Records a mapping. NULL when memory or handles are used up; the mapping is still the
 * caller's then. */
struct attachment *attachment_create(struct backend *backend, uint32_t entry, uint64_t id,
                                     uint64_t size, uint32_t word, struct mapping *mapping);
/* The backend's attachment of this segment, or NULL. */
struct attachment *attachment_of(const struct backend *backend, uint32_t entry, uint64_t id);
/*
 * Lets go of the attachment's locks, as the dead do. Before anything takes us out of the
 * entry: a journal record must never outlive the segment that it means.
 */
void attachment_abandon_locks(struct attachment *attachment);
/* Unmaps and frees; the table, and the locks, are the caller's business. */
void attachment_destroy(struct attachment *attachment);

/* ---- slots, under the table lock --------------------------------------------------- */

/* Does this backend live? False for an id that is none. */
bool backend_is_alive(struct control *control, uint32_t own_slot, uint32_t backend_id);

/* Is the slot LIVE in the table while its backend is dead? Needs no lock: a hint. */
bool backend_slot_is_dead(const struct control *control, uint32_t slot);
/* The futex word of the slot's death bell, or NULL. */
_Atomic uint32_t *backend_bell(const struct control *control, uint32_t slot);

/* Reaps every dead backend; `own_slot` is left out. Returns how many are alive, own included. */
uint32_t backend_reap_dead(struct control *control, uint32_t own_slot);
#define SLOT_NONE UINT32_MAX

/* Starts the library in this process; every public call that needs no handle begins so. */
int32_t backend_start_process(dsmr_error *error);

#endif

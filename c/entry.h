/*
 * entry.h - the entry table: names to segments. Everything here is called under the table
 * lock, and commits by one store of the entry's word.
 */
#ifndef DSMR_ENTRY_H
#define DSMR_ENTRY_H

#include "control.h"

#define ENTRY_NONE UINT32_MAX

/* The index of the database's entry with this name that is INITIALIZING or READY, or ENTRY_NONE. */
uint32_t entry_find(const struct control *control, uint32_t database_id, const char *name,
                    uint32_t name_length);

/* What a new entry is to be. */
struct entry_birth {
  const char *name;
  uint32_t name_length;
  uint64_t id;    /* see layout.h; not in the table yet */
  uint32_t owner; /* backend id */
  uint32_t flags;
  uint64_t size;
  uint64_t layout;
  uint32_t database_id;
};

/* Makes an INITIALIZING entry. ENTRY_NONE if there is no room. The name must not be there. */
uint32_t entry_insert(struct control *control, const struct entry_birth *birth);

/* INITIALIZING -> READY, and wakes the waiters. Returns the new word. */
uint32_t entry_publish(struct control *control, uint32_t index);

/* To DROPPING, unlinks the file, to TOMBSTONE or EMPTY; wakes the waiters. */
void entry_remove(struct control *control, uint32_t index);

/*
 * Takes the name away: removes the entry, or, while backends are attached, leaves it DROPPED
 * until the last of them is gone. So whoever reaps one finds the file with its locks.
 */
void entry_drop(struct control *control, uint32_t index);

/* Drops what is READY in a database that is not there any more. */
void entry_drop_homeless(struct control *control);

/* Is there a segment that backends may have attached? */
bool entry_is_attachable(const struct control *control, uint32_t index);

/* Marks the backend in `slot` as attached or not; the latter removes a segment of lifetime
 * "attached" that nobody is attached to any more. */
void entry_attach(struct control *control, uint32_t index, uint32_t slot);
void entry_detach(struct control *control, uint32_t index, uint32_t slot);
uint32_t entry_attached_count(const struct entry *entry);

/*
 * Takes a backend out of the whole table, dead or leaving: removes what it was initialising,
 * detaches it everywhere, finishes removals that a death cut short, and recounts.
 */
void entry_forget_backend(struct control *control, uint32_t backend_id);

/* A word read without the table lock. */
uint32_t entry_word(const struct control *control, uint32_t index);

/* The name's length, never more than the field holds, whatever is in memory. */
uint32_t entry_name_length(const struct entry *entry);

#endif

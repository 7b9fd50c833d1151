/*
 * control.h - the control file: made whole, checked before use, changed under one lock.
 */
#ifndef DSMR_CONTROL_H
#define DSMR_CONTROL_H

#include "layout.h"
#include "process.h"

#define DIRECTORY_SIZE 1024u
#define PATH_SIZE (DIRECTORY_SIZE + 128u)

/* Where a registry is: checked names, no file touched yet. */
struct control_place {
  char directory[DIRECTORY_SIZE];
  char name[DSMR_NAME_SIZE];
};

/*
 * One open description of a control file and the mapping of it. The numbers are copies that
 * were checked against the file's size once; the ones in shared memory are not read again.
 */
struct control {
  int fd;
  struct mapping *mapping;
  struct control_header *header;
  struct backend_slot *backends;
  struct database_row *databases;
  struct tranche_row *tranches;
  struct entry *entries;
  uint64_t instance;
  uint32_t backend_count_max;
  uint32_t segment_count_max;
  uint32_t entry_capacity;
  uint32_t database_count_max;
  uint32_t pid; /* ours, without asking the system: a forked child has no handle to get here by */
  uint32_t uid; /* ours, when it was opened: its file is that user's, its segments' must be */
  int32_t patience_ms; /* of control_enter; 0 = DSMR_TABLE_PATIENCE_MS */
  struct control_place place; /* last, as it is large: the rest is near */
};

/* How many of each a new registry has room for. */
struct control_limits {
  uint32_t backend_count_max;
  uint32_t segment_count_max;
};

/* Checks the names and settles the directory: the argument, else $DSMR_DIR, else the system's. */
int32_t control_place(struct control_place *place, const char *name, uint32_t name_length,
                      const char *directory, uint32_t directory_length, dsmr_error *error);

/*
 * Opens, and creates where `mode` says so. A registry whose destruction was cut short by a
 * death is finished off on the way. The caller must, under the table lock, make sure that
 * it is still the one to use (control_is_live), and start anew if not.
 */
int32_t control_open(struct control *control, const struct control_place *place, uint32_t mode,
                     struct control_limits limits, dsmr_error *error);
void control_close(struct control *control);

/*
 * The table lock. It dies with its holder. Gives up with TIMEOUT after patience_ms, which
 * happens only when the holder is stopped.
 */
int32_t control_lock(struct control *control, int32_t patience_ms, dsmr_error *error);
void control_unlock(struct control *control);

/* How long whoever leaves waits for it, before it goes as the dead do. */
#define LEAVE_PATIENCE_MS 1000

/* As control_lock, but CLOSED (and unlocked) if the registry was destroyed meanwhile. */
int32_t control_enter(struct control *control, dsmr_error *error);
int32_t control_enter_within(struct control *control, int32_t patience_ms, dsmr_error *error);

/* A segment or a backend has come or gone: tells who watches. Under the table lock. */
void control_announce(struct control *control);

/* READY, and still what its path means. Under the table lock. */
bool control_is_live(const struct control *control);
/* READY, as far as can be told without a lock. */
bool control_is_ready(const struct control *control);

/* The path of a segment's file. */
void control_segment_path(const struct control *control, uint64_t id, char path[PATH_SIZE]);

/* Returns 1, or 0 if there is none. */
int32_t control_destroy(const struct control_place *place, dsmr_error *error);

/* Calls visit for each registry file of the directory with its name. */
int32_t control_scan(const char *directory, int32_t (*visit)(const char *name, void *argument),
                     void *argument, dsmr_error *error);

#endif

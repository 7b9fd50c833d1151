/*
 * control.c - the control file.
 *
 * Bootstrap. A registry is built in a file without a name and then linked to its path, which
 * fails if the path is taken. So whoever loses the race throws its own file away and
 * attaches to the winner's; a creator that dies leaves nothing; and a file under the path is
 * always whole. (The design had proposed LMDB's protocol, an exclusive lock on the file
 * while it is being filled. There, a file that is cut to nothing looks like one whose
 * creator died, and would be filled again under its users; here it is refused.)
 *
 * Destruction. state = DESTROYED (the commit point), then the segments' files, then the
 * control file's own name, all under the table lock. The name goes last so that whoever
 * comes by after a death in the middle finds the rest and finishes. The hardest race: an
 * opener opens the file just before its name goes. It finds out when it has the table lock
 * (control_is_live) and starts anew.
 */
#include "control.h"

#include "os.h"
#include "status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REGISTRY_PREFIX "dsmr.r."
#define SEGMENT_PREFIX "dsmr.s."
#define TEMPORARY_PREFIX "dsmr.t."
#define SEGMENT_SUFFIX_LENGTH 34u /* .16 hex.16 hex */

/* ---- places ------------------------------------------------------------------------ */

int32_t control_place(struct control_place *place, const char *name, uint32_t name_length,
                      const char *directory, uint32_t directory_length, dsmr_error *error) {
  memset(place, 0, sizeof *place);
  if (name != NULL) {
    int32_t outcome = status_check_name(error, "registry", name, name_length);
    if (outcome != 0) return outcome;
    memcpy(place->name, name, name_length);
  }
  if (directory == NULL || directory_length == 0) {
    directory = getenv("DSMR_DIR");
    if (directory == NULL || directory[0] == '\0') directory = os_default_directory();
    size_t length = strlen(directory);
    directory_length = length > UINT32_MAX ? UINT32_MAX : (uint32_t)length;
  }
  if (directory_length >= DIRECTORY_SIZE) {
    return FAIL_NUMBERS(error, DSMR_E_NAME_TOO_LONG, directory_length, DIRECTORY_SIZE - 1,
                        "The directory's path has %u bytes, %u are allowed. Choose a shorter one.",
                        directory_length, DIRECTORY_SIZE - 1);
  }
  if (status_text_length(directory, directory_length) != directory_length) {
    return FAIL(error, DSMR_E_NAME_INVALID, "The directory's path has a NUL in it.");
  }
  if (directory[0] != '/') {
    return FAIL(error, DSMR_E_NAME_INVALID,
                "The directory \"%.*s\" is not an absolute path. Give one that starts with a "
                "slash, as option or in DSMR_DIR.",
                directory_length < 200 ? (int)directory_length : 200, directory);
  }
  memcpy(place->directory, directory, directory_length);
  return 0;
}

static void registry_path(const struct control_place *place, char path[PATH_SIZE]) {
  (void)snprintf(path, PATH_SIZE, "%s/" REGISTRY_PREFIX "%s", place->directory, place->name);
}

void control_segment_path(const struct control *control, uint64_t id, char path[PATH_SIZE]) {
  (void)snprintf(path, PATH_SIZE, "%s/" SEGMENT_PREFIX "%s.%016" PRIx64 ".%016" PRIx64,
           control->place.directory, control->place.name, control->instance, id);
}

/* ---- layout ------------------------------------------------------------------------ */

/* Everything about the file's layout follows from the two limits. */
static void lay_out(struct control_header *header, struct control_limits limits) {
  uint32_t capacity = 16;
  while (capacity < 2 * limits.segment_count_max) capacity *= 2;
  header->backend_count_max = limits.backend_count_max;
  header->segment_count_max = limits.segment_count_max;
  header->entry_capacity = capacity;
  header->database_count_max = DSMR_DATABASES_MAX;
  uint64_t offset = sizeof *header;
  header->backends_offset = (uint32_t)offset;
  offset += (uint64_t)limits.backend_count_max * sizeof(struct backend_slot);
  header->databases_offset = (uint32_t)offset;
  offset += (uint64_t)DSMR_DATABASES_MAX * sizeof(struct database_row);
  offset = (offset + 63) / 64 * 64;
  header->tranches_offset = (uint32_t)offset;
  offset += (uint64_t)TRANCHES_MAX * sizeof(struct tranche_row);
  header->entries_offset = (uint32_t)offset;
  offset += (uint64_t)capacity * sizeof(struct entry);
  header->size = offset;
}

static bool limits_are_valid(struct control_limits limits) {
  return limits.backend_count_max >= 1 && limits.backend_count_max <= DSMR_BACKENDS_MAX &&
         limits.segment_count_max >= 1 && limits.segment_count_max <= DSMR_SEGMENTS_MAX;
}

/* ---- create ------------------------------------------------------------------------ */

static int32_t fill(int fd, const struct control_place *place, struct control_limits limits,
                    uint64_t *instance, dsmr_error *error) {
  struct control_header header = {.magic = CONTROL_MAGIC, .format = DSMR_FORMAT};
  lay_out(&header, limits);
  header.created_ns = os_wall_ns();
  header.creator_pid = os_pid();
  header.name_length = (uint32_t)strlen(place->name);
  memcpy(header.name, place->name, header.name_length);
  atomic_init(&header.state, CONTROL_READY);
  int32_t outcome = os_random(&header.instance);
  if (outcome != 0) return status_fail_os(error, outcome, "Cannot get a random number");
  uint64_t room = 0;
  outcome = os_file_reserve(fd, header.size, &room);
  if (outcome == -EFBIG) {
    return FAIL_NUMBERS(error, DSMR_E_NO_SPACE, room, header.size,
                        "Cannot create registry \"%s\": this process may write files of %" PRIu64
                        " bytes at most (ulimit -f), %" PRIu64 " are needed. Raise that limit.",
                        place->name, room, header.size);
  }
  if (outcome == -ENOSPC) {
    return FAIL_NUMBERS(error, DSMR_E_NO_SPACE, room, header.size,
                        "Cannot create registry \"%s\": %s has %" PRIu64 " bytes free, %" PRIu64
                        " are needed. Free some, or ask for fewer backends and segments.",
                        place->name, place->directory, room, header.size);
  }
  void *address = NULL;
  if (outcome == 0) outcome = os_map(fd, header.size, &address);
  if (outcome != 0) {
    return status_fail_os(error, outcome, "Cannot create registry \"%s\" in %s", place->name,
                          place->directory);
  }
  *instance = header.instance;
  /* Nobody else can see the file before it has its name. */
  memcpy(address, &header, sizeof header);
  os_unmap(address, header.size);
  return 0;
}

/* Returns 0, or EXISTS (without a message) when the path is taken. */
static int32_t create(const struct control_place *place, struct control_limits limits,
                      uint64_t *instance, dsmr_error *error) {
  char path[PATH_SIZE];
  char temporary[PATH_SIZE];
  uint64_t random = 0;
  registry_path(place, path);
  int32_t outcome = os_random(&random);
  if (outcome != 0) return status_fail_os(error, outcome, "Cannot get a random number");
  (void)snprintf(temporary, sizeof temporary, "%s/" TEMPORARY_PREFIX "%016" PRIx64,
                 place->directory, random);
  bool is_named = false;
  int32_t fd = os_file_create_nameless(place->directory, temporary, &is_named);
  if (fd < 0) {
    return status_fail_os(error, fd, "Cannot create registry \"%s\" in %s", place->name,
                          place->directory);
  }
  outcome = fill(fd, place, limits, instance, error);
  if (outcome == 0) {
    outcome = os_file_publish(fd, temporary, is_named, path);
    if (outcome == 0) is_named = false; /* it has its real name now */
    if (outcome == -EEXIST) {
      outcome = DSMR_E_EXISTS;
    } else if (outcome != 0) {
      outcome = status_fail_os(error, outcome, "Cannot create %s", path);
    }
  }
  if (is_named) (void)os_file_unlink(temporary);
  os_file_close(fd);
  return outcome;
}

/* ---- check and attach -------------------------------------------------------------- */

static int32_t corrupt(dsmr_error *error, const char *path, const char *what, uint64_t actual,
                       uint64_t wanted) {
  return FAIL_NUMBERS(error, DSMR_E_CORRUPT, actual, wanted,
                      "Refused %s: %s (found %" PRIu64 ", expected %" PRIu64
                      "). It was damaged, or is no registry. Destroying the registry removes it.",
                      path, what, actual, wanted);
}

static int32_t not_regular(const char *path, dsmr_error *error) {
  return FAIL(error, DSMR_E_PERMISSION,
              "Refused %s: it is not a regular file. Remove it, or use another directory.", path);
}

/* Is it a file that we may trust at all? Says nothing about what is in it. */
static int32_t check_file(const char *path, const struct os_file_info *info, dsmr_error *error) {
  if (!info->is_regular) return not_regular(path, error);
  if (info->uid != os_uid()) {
    return FAIL_NUMBERS(error, DSMR_E_PERMISSION, info->uid, os_uid(),
                        "Refused %s: it belongs to uid %u, this process runs as uid %u. Use "
                        "another name, or another directory.",
                        path, info->uid, os_uid());
  }
  if (info->link_count > 1) {
    return FAIL_NUMBERS(error, DSMR_E_PERMISSION, info->link_count, 1,
                        "Refused %s: it has %u hard links, 1 was expected. Remove the others.",
                        path, info->link_count);
  }
  return 0;
}

static int32_t check_header(const struct control_place *place, const char *path,
                            const struct control_header *header, uint64_t bytes_read,
                            uint64_t file_size, dsmr_error *error) {
  if (bytes_read < sizeof *header) {
    return corrupt(error, path, "it is too short for a header", file_size, sizeof *header);
  }
  if (header->magic != CONTROL_MAGIC) {
    return corrupt(error, path, "it does not start as a registry does", header->magic,
                   CONTROL_MAGIC);
  }
  if (header->format != DSMR_FORMAT) {
    return FAIL_NUMBERS(error, DSMR_E_VERSION_MISMATCH, header->format, DSMR_FORMAT,
                        "Refused %s: its format is %08" PRIx32 ", this library's is %08" PRIx32
                        ". Stop what uses it and destroy it, or use the version that made it.",
                        path, header->format, (uint32_t)DSMR_FORMAT);
  }
  struct control_limits limits = {header->backend_count_max, header->segment_count_max};
  if (!limits_are_valid(limits)) {
    return corrupt(error, path, "its limits are out of range", limits.backend_count_max,
                   DSMR_BACKENDS_MAX);
  }
  struct control_header wanted = {0};
  lay_out(&wanted, limits);
  if (header->size != wanted.size || header->entry_capacity != wanted.entry_capacity ||
      header->database_count_max != wanted.database_count_max ||
      header->backends_offset != wanted.backends_offset ||
      header->databases_offset != wanted.databases_offset ||
      header->tranches_offset != wanted.tranches_offset ||
      header->entries_offset != wanted.entries_offset) {
    return corrupt(error, path, "its layout does not follow from its limits", header->size,
                   wanted.size);
  }
  if (file_size != header->size) {
    return corrupt(error, path, "its length is not the one in its header", file_size,
                   header->size);
  }
  if (header->name_length != strlen(place->name) ||
      memcmp(header->name, place->name, header->name_length) != 0) {
    return corrupt(error, path, "it was made for a registry of another name", header->name_length,
                   strlen(place->name));
  }
  uint32_t state = atomic_load_explicit(&header->state, memory_order_relaxed);
  if (state != CONTROL_READY && state != CONTROL_DESTROYED) {
    return corrupt(error, path, "its state is none", state, CONTROL_READY);
  }
  return 0;
}

/*
 * Opens and checks what is at the path. Fills fd and, if the header was whole, everything
 * else. NOT_FOUND (without a message) if nothing is there.
 */
static int32_t attach(struct control *control, const struct control_place *place,
                      dsmr_error *error) {
  char path[PATH_SIZE];
  registry_path(place, path);
  *control = (struct control){.place = *place, .fd = -1};
  int32_t fd = os_file_open(path);
  if (fd == -ENOENT) return DSMR_E_NOT_FOUND;
  if (fd == -ELOOP) {
    return FAIL(error, DSMR_E_PERMISSION,
                "Refused %s: it is a symbolic link. Remove it, or use another directory.", path);
  }
  if (fd == -EISDIR || fd == -ENXIO) return not_regular(path, error);
  struct os_file_info info;
  if (fd == -EACCES && os_path_info(path, &info) == 0 && info.uid != os_uid()) {
    return check_file(path, &info, error);
  }
  if (fd < 0) return status_fail_os(error, fd, "Cannot open %s", path);
  control->fd = fd;
  control->pid = os_pid();
  struct control_header header;
  int32_t outcome = os_file_info(fd, &info);
  if (outcome != 0) return status_fail_os(error, outcome, "Cannot look at %s", path);
  outcome = check_file(path, &info, error);
  if (outcome != 0) return outcome;
  /* Through read, not through a mapping: that cannot fault if the file is short. */
  int32_t bytes = os_file_read(fd, &header, sizeof header);
  if (bytes < 0) return status_fail_os(error, bytes, "Cannot read %s", path);
  outcome = check_header(place, path, &header, (uint64_t)bytes, info.size, error);
  if (outcome != 0) return outcome;
  outcome = mapping_acquire(fd, info.device, info.inode, info.size, &control->mapping);
  if (outcome != 0) return status_fail_os(error, outcome, "Cannot map %s", path);
  char *base = control->mapping->address;
  control->header = (struct control_header *)(void *)base;
  control->backends = (struct backend_slot *)(void *)(base + header.backends_offset);
  control->databases = (struct database_row *)(void *)(base + header.databases_offset);
  control->tranches = (struct tranche_row *)(void *)(base + header.tranches_offset);
  control->entries = (struct entry *)(void *)(base + header.entries_offset);
  control->instance = header.instance;
  control->uid = info.uid;
  control->backend_count_max = header.backend_count_max;
  control->segment_count_max = header.segment_count_max;
  control->entry_capacity = header.entry_capacity;
  control->database_count_max = header.database_count_max;
  return 0;
}

void control_close(struct control *control) {
  if (control->mapping != NULL) mapping_release(control->mapping);
  if (control->fd >= 0) os_file_close(control->fd);
  control->mapping = NULL;
  control->fd = -1;
}

/* ---- destroy ----------------------------------------------------------------------- */

/* Which of a registry's segment files are to go. */
enum segment_choice {
  SEGMENTS_OF_INSTANCE, /* those of control->instance */
  SEGMENTS_OF_ANY,
  SEGMENTS_OF_NONE, /* those of instances that are gone */
};

struct segment_search {
  const struct control *control;
  const struct control_place *place;
  enum segment_choice choice;
};

/*
 * Is the instance of this file, which we have just seen, gone? The registry's name is looked
 * up after the file was seen: so if it means another instance now, or nothing, the file's own
 * is of the past, for instances never come back.
 */
static bool is_orphan(const struct control_place *place, uint64_t instance) {
  struct control now;
  int32_t outcome = attach(&now, place, NULL);
  bool is_gone = outcome == DSMR_E_NOT_FOUND || (outcome == 0 && now.instance != instance);
  control_close(&now);
  return is_gone;
}

/* Unlinks `name` if it is a segment's file of this registry and among the chosen. */
static int32_t unlink_segment(const char *name, void *argument) {
  const struct segment_search *search = argument;
  size_t length = strlen(name);
  size_t registry_length = strlen(search->place->name);
  size_t prefix_length = strlen(SEGMENT_PREFIX);
  if (length != prefix_length + registry_length + SEGMENT_SUFFIX_LENGTH) return 0;
  if (memcmp(name, SEGMENT_PREFIX, prefix_length) != 0) return 0;
  if (memcmp(name + prefix_length, search->place->name, registry_length) != 0) return 0;
  const char *suffix = name + prefix_length + registry_length;
  if (suffix[0] != '.' || suffix[17] != '.') return 0;
  uint64_t instance = 0;
  for (uint32_t i = 1; i < 17; i++) {
    char c = suffix[i];
    int digit = c <= '9' ? c - '0' : c - 'a' + 10;
    if (digit < (c <= '9' ? 0 : 10) || digit > 15) return 0;
    instance = instance << 4 | (uint64_t)digit;
  }
  if (search->choice == SEGMENTS_OF_INSTANCE && instance != search->control->instance) return 0;
  char path[PATH_SIZE + 256];
  (void)snprintf(path, sizeof path, "%s/%s", search->place->directory, name);
  /* Anybody may put such a name into a shared directory. What is not a file of ours we did
   * not make, and it does not keep us from removing the registry. */
  struct os_file_info info;
  int32_t outcome = os_path_info(path, &info);
  if (outcome == -ENOENT) return 0;
  if (outcome == 0 && (!info.is_regular || info.uid != os_uid())) return 0;
  if (search->choice == SEGMENTS_OF_NONE && !is_orphan(search->place, instance)) return 0;
  if (outcome == 0) outcome = os_file_unlink(path);
  return outcome == -ENOENT ? 0 : outcome;
}

/* The control file's name goes last. Under the table lock, where there can be one. */
static int32_t unlink_all(const struct control *control, const struct control_place *place,
                          bool any_instance, dsmr_error *error) {
  char path[PATH_SIZE];
  registry_path(place, path);
  struct os_file_info ours;
  struct os_file_info there;
  int32_t outcome = os_file_info(control->fd, &ours);
  if (outcome == 0) outcome = os_path_info(path, &there);
  if (outcome == -ENOENT) return 0;
  if (outcome == 0 && (ours.inode != there.inode || ours.device != there.device)) return 0;
  struct segment_search search = {
      .control = control,
      .place = place,
      .choice = any_instance ? SEGMENTS_OF_ANY : SEGMENTS_OF_INSTANCE,
  };
  if (outcome == 0) outcome = os_directory_scan(place->directory, unlink_segment, &search);
  if (outcome == 0) outcome = os_file_unlink(path);
  if (outcome == 0 || outcome == -ENOENT) return 0;
  return status_fail_os(error, outcome, "Cannot remove registry \"%s\" from %s", place->name,
                        place->directory);
}

/* Marks it destroyed (again, if a death cut that short), wakes who waits, removes the files. */
static int32_t destroy_locked(struct control *control, dsmr_error *error) {
  /* Release: a backend that sees DESTROYED takes nothing for granted; it only stops. */
  atomic_store_explicit(&control->header->state, CONTROL_DESTROYED, memory_order_release);
  for (uint32_t i = 0; i < control->entry_capacity; i++) {
    struct entry *entry = &control->entries[i];
    uint32_t word = atomic_load_explicit(&entry->word, memory_order_relaxed);
    if (ENTRY_STATE(word) != ENTRY_INITIALIZING) continue;
    /* Its initialiser's commit will find DESTROYED. The waiters' word must change. */
    atomic_store_explicit(&entry->word, ENTRY_NEXT(word, ENTRY_DROPPING), memory_order_release);
    os_futex_wake(&entry->word, UINT32_MAX);
  }
  return unlink_all(control, &control->place, false, error);
}

int32_t control_destroy(const struct control_place *place, dsmr_error *error) {
  struct control control;
  int32_t outcome = attach(&control, place, error);
  if (outcome == DSMR_E_NOT_FOUND) {
    /* Segments that a registry of the past has left: its control file was removed by hand, or
     * was damaged and its backends have made them after it was destroyed. */
    struct segment_search search = {.place = place, .choice = SEGMENTS_OF_NONE};
    outcome = os_directory_scan(place->directory, unlink_segment, &search);
    if (outcome == 0 || outcome == -ENOENT) return 0;
    return status_fail_os(error, outcome, "Cannot list %s", place->directory);
  }
  if (outcome == 0) {
    outcome = control_lock(&control, DSMR_TABLE_PATIENCE_MS, error);
    if (outcome == 0) {
      outcome = destroy_locked(&control, error);
      control_unlock(&control);
    }
  } else if (outcome == DSMR_E_CORRUPT || outcome == DSMR_E_VERSION_MISMATCH) {
    /* Ours by owner and name, but not to be understood: only the names can go. Backends that
     * have it attached are told where every version looks. */
    uint32_t destroyed = CONTROL_DESTROYED;
    os_file_write_over(control.fd, offsetof(struct control_header, state), &destroyed,
                       sizeof destroyed);
    outcome = unlink_all(&control, place, true, error);
  }
  control_close(&control);
  return outcome == 0 ? 1 : outcome;
}

/* ---- open --------------------------------------------------------------------------- */

bool control_is_ready(const struct control *control) {
  /* Acquire; pairs with the release in destroy_locked. */
  return atomic_load_explicit(&control->header->state, memory_order_acquire) == CONTROL_READY;
}

bool control_is_live(const struct control *control) {
  struct os_file_info info;
  return control_is_ready(control) && os_file_info(control->fd, &info) == 0 && info.link_count > 0;
}

/* Somebody died while destroying it. Returns 0 when the path is free, or was freed. */
static int32_t finish_destroy(struct control *control, dsmr_error *error) {
  int32_t outcome = control_lock(control, DSMR_TABLE_PATIENCE_MS, error);
  if (outcome != 0) return outcome;
  outcome = destroy_locked(control, error);
  control_unlock(control);
  return outcome;
}

int32_t control_open(struct control *control, const struct control_place *place, uint32_t mode,
                     struct control_limits limits, dsmr_error *error) {
  if (!limits_are_valid(limits)) {
    return FAIL_NUMBERS(error, DSMR_E_SIZE_INVALID, limits.backend_count_max,
                        limits.segment_count_max,
                        "A registry has 1 to %u backends and 1 to %u segments; %u and %u were "
                        "requested.",
                        DSMR_BACKENDS_MAX, DSMR_SEGMENTS_MAX, limits.backend_count_max,
                        limits.segment_count_max);
  }
  uint64_t created = 0; /* the instance that we have created, if we have */
  for (;;) {
    int32_t outcome = attach(control, place, error);
    if (outcome == DSMR_E_NOT_FOUND && mode < DSMR_MODE_ATTACH) {
      outcome = create(place, limits, &created, error);
      if (outcome == 0 || outcome == DSMR_E_EXISTS) continue;
      return outcome;
    }
    if (outcome == DSMR_E_NOT_FOUND) {
      return FAIL(error, DSMR_E_NOT_FOUND,
                  "There is no registry \"%s\" in %s. Open it without mode \"attach\" to create "
                  "it, or check DSMR_DIR.",
                  place->name, place->directory);
    }
    if (outcome == 0 && !control_is_ready(control)) {
      outcome = finish_destroy(control, error);
      if (outcome == 0) {
        control_close(control);
        continue;
      }
    }
    if (outcome == 0 && mode == DSMR_MODE_CREATE && control->instance != created) {
      outcome = FAIL(error, DSMR_E_EXISTS,
                     "Cannot create registry \"%s\": it is there, in %s. Open it without mode "
                     "\"create\", or destroy it first.",
                     place->name, place->directory);
    }
    if (outcome != 0) control_close(control);
    return outcome;
  }
}

/* ---- scan --------------------------------------------------------------------------- */

struct scan {
  int32_t (*visit)(const char *name, void *argument);
  void *argument;
};

static int32_t visit_registry(const char *name, void *argument) {
  const struct scan *scan = argument;
  size_t prefix_length = strlen(REGISTRY_PREFIX);
  if (strlen(name) <= prefix_length || memcmp(name, REGISTRY_PREFIX, prefix_length) != 0) {
    return 0;
  }
  return scan->visit(name + prefix_length, scan->argument);
}

int32_t control_scan(const char *directory, int32_t (*visit)(const char *name, void *argument),
                     void *argument, dsmr_error *error) {
  struct scan scan = {visit, argument};
  int32_t outcome = os_directory_scan(directory, visit_registry, &scan);
  if (outcome != 0) return status_fail_os(error, outcome, "Cannot list %s", directory);
  return 0;
}

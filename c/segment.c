/*
 * segment.c - the file behind a segment.
 *
 * A segment's file is named after the registry's instance and the entry's id. Ids are never
 * given twice, so a file that is left over from a death can never be taken for another
 * segment's; it goes when the dead backend is reaped, or with the registry.
 *
 * What attaching and detaching costs beyond open, fstat, mmap, munmap and close is what they
 * promise: the table lock, taken once by each, two system calls; the header, which is read and
 * compared; and zeros mapped over the memory at the end, for whoever still has its address (see
 * process.c).
 *
 * The header is read by pread. A look at it where it is mapped would be a page fault, three times
 * as dear, and one that kills if the file was cut short after its size was checked. The fault is left
 * to the first use of the memory: who uses it at once pays for the pread besides, and who attaches
 * a thousand segments to use three of them pays for three. The header is written before the entry
 * says READY and never changed after that, and nothing of ours goes by what it says but this check.
 */
#include "segment.h"

#include "lwlock.h"
#include "os.h"
#include "status.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static uint64_t file_size(uint64_t size) { return size + SEGMENT_DATA_OFFSET; }

static int32_t fill_file(int fd, int32_t outcome, uint64_t room, const struct control *control,
                    const char *name, uint32_t index, uint64_t id, uint64_t size,
                    struct mapping **mapping, dsmr_error *error) {
  struct os_file_info info;
  if (outcome == -EFBIG) {
    return FAIL_NUMBERS(error, DSMR_E_NO_SPACE, room, size,
                        "Cannot create segment \"%s\" of %" PRIu64 " bytes: this process may write "
                        "files of %" PRIu64 " at most (ulimit -f). Raise that limit.",
                        name, size, room);
  }
  if (outcome == -ENOSPC) {
    return FAIL_NUMBERS(error, DSMR_E_NO_SPACE, room, size,
                        "Cannot create segment \"%s\": %" PRIu64 " bytes were requested, %s has "
                        "%" PRIu64 " free. Drop segments, enlarge it, or set DSMR_DIR.",
                        name, size, control->place.directory, room);
  }
  if (outcome == 0) outcome = os_file_info(fd, &info);
  if (outcome == 0) {
    outcome = mapping_acquire(fd, info.device, info.inode, file_size(size), mapping);
  }
  if (outcome != 0) {
    return status_fail_os(error, outcome, "Cannot create segment \"%s\" of %" PRIu64 " bytes", name,
                          size);
  }
  /* Nobody else attaches before the entry says READY. */
  struct segment_header *header = (*mapping)->address;
  *header = (struct segment_header){.magic = SEGMENT_MAGIC,
                                    .format = DSMR_FORMAT,
                                    .instance = control->instance,
                                    .id = id,
                                    .size = size};
  lwlock_initialize(segment_lock_at(*mapping, SEGMENT_LOCK_OFFSET), TRANCHE_OF_ENTRY(index));
  return 0;
}

int32_t segment_create(const struct control *control, const char *name, uint64_t id,
                       dsmr_error *error) {
  char path[PATH_SIZE];
  control_segment_path(control, id, path);
  int32_t fd = os_file_create(path);
  if (fd < 0) return status_fail_os(error, fd, "Cannot create segment \"%s\" as %s", name, path);
  return fd;
}

int32_t segment_fill(int fd, const struct control *control, const char *name, uint32_t index,
                     uint64_t id, uint64_t size, struct mapping **mapping, dsmr_error *error) {
  uint64_t room = 0;
  int32_t outcome = os_file_reserve(fd, file_size(size), &room);
  return segment_fill_reserved(fd, outcome, room, control, name, index, id, size, mapping, error);
}

int32_t segment_fill_reserved(int fd, int32_t reserving, uint64_t room,
                              const struct control *control, const char *name, uint32_t index,
                              uint64_t id, uint64_t size, struct mapping **mapping,
                              dsmr_error *error) {
  int32_t outcome =
      fill_file(fd, reserving, room, control, name, index, id, size, mapping, error);
  os_file_close(fd);
  if (outcome != 0) segment_unlink(control, id);
  return outcome;
}

int32_t segment_publish(int fd, const struct control *control, const char *name, uint64_t id,
                        dsmr_error *error) {
  char path[PATH_SIZE];
  control_segment_path(control, id, path);
  int32_t outcome = os_file_publish(fd, "", false, path);
  if (outcome == 0) return 0;
  return status_fail_os(error, outcome, "Cannot create segment \"%s\" as %s", name, path);
}

int32_t segment_open(const struct control *control, const char *name, uint64_t id,
                     dsmr_error *error) {
  char path[PATH_SIZE];
  control_segment_path(control, id, path);
  int32_t fd = os_file_open(path);
  if (fd == -ENOENT) {
    return FAIL(error, DSMR_E_CORRUPT,
                "Segment \"%s\" has lost its file %s: it was removed by hand. Drop the segment, "
                "and ask for it again.",
                name, path);
  }
  if (fd == -ELOOP) {
    return FAIL(error, DSMR_E_PERMISSION,
                "Refused the file of segment \"%s\", %s: it is a symbolic link. Drop the segment, "
                "and ask for it again.",
                name, path);
  }
  if (fd < 0) return status_fail_os(error, fd, "Cannot open segment \"%s\", %s", name, path);
  return fd;
}

int32_t segment_map(int fd, const struct control *control, const char *name, uint64_t id,
                    uint64_t size, struct mapping **mapping, dsmr_error *error) {
  struct os_file_info info;
  int32_t outcome = os_file_info(fd, &info);
  if (outcome != 0) return status_fail_os(error, outcome, "Cannot attach segment \"%s\"", name);
  if (!info.is_regular || info.uid != control->uid || info.link_count > 1) {
    return FAIL_NUMBERS(error, DSMR_E_PERMISSION, info.uid, control->uid,
                        "Refused the file of segment \"%s\": it is not a regular file of uid %u "
                        "with one link. Drop the segment, and ask for it again.",
                        name, control->uid);
  }
  if (size == 0 || size > SEGMENT_SIZE_MAX || info.size != file_size(size)) {
    return FAIL_NUMBERS(error, DSMR_E_CORRUPT, info.size, file_size(size),
                        "Refused the file of segment \"%s\": it has %" PRIu64 " bytes, %" PRIu64
                        " were expected. Drop the segment, and ask for it again.",
                        name, info.size, file_size(size));
  }
  /* What the file is too short for stays 0, which is no magic. */
  struct segment_header header = {0};
  outcome = os_file_read(fd, &header, sizeof header);
  if (outcome >= 0 &&
      (header.magic != SEGMENT_MAGIC || header.format != DSMR_FORMAT ||
       header.instance != control->instance || header.id != id || header.size != size)) {
    return FAIL_NUMBERS(error, DSMR_E_CORRUPT, 0, id,
                        "Refused the file of segment \"%s\": its header is not the one it was "
                        "made with. Drop the segment, and ask for it again.",
                        name);
  }
  if (outcome >= 0) outcome = mapping_acquire(fd, info.device, info.inode, info.size, mapping);
  if (outcome != 0) {
    return status_fail_os(error, outcome, "Cannot map the %" PRIu64 " bytes of segment \"%s\"",
                          size, name);
  }
  return 0;
}

void segment_unlink(const struct control *control, uint64_t id) {
  char path[PATH_SIZE];
  control_segment_path(control, id, path);
  /* ENOENT: whoever began this died after the unlink. Anything else leaves a file that goes
   * with the registry; the name in the table is free all the same. */
  (void)os_file_unlink(path);
}

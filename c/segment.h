/*
 * segment.h - the file behind a segment: created, attached, checked, unlinked.
 */
#ifndef DSMR_SEGMENT_H
#define DSMR_SEGMENT_H

#include "control.h"

/* The largest size that can be asked for; what the file system has is another matter. */
#define SEGMENT_SIZE_MAX (UINT64_C(1) << 44)

/* The lock at an offset of the file that is a multiple of 64 and inside it. */
static inline struct lwlock *segment_lock_at(const struct mapping *mapping, uint64_t offset) {
  return (struct lwlock *)(void *)((char *)mapping->address + offset);
}

/*
 * Creates the file of segment `id`, empty; then makes it `size` user bytes long, all zero and
 * reserved, maps it and closes it. The first belongs under the table lock: a file made after
 * a destroy has looked for files would stay for ever. The second does not. When either fails
 * no file is left behind.
 */
int32_t segment_create(const struct control *control, const char *name, uint64_t id,
                       dsmr_error *error);
int32_t segment_fill(int fd, const struct control *control, const char *name, uint32_t index,
                     uint64_t id, uint64_t size, struct mapping **mapping, dsmr_error *error);

/*
 * The same with a file whose space was reserved before, or not, which `reserving` tells as
 * os_file_reserve does, with `room`. The file has no name yet: segment_publish gives it one.
 */
int32_t segment_publish(int fd, const struct control *control, const char *name, uint64_t id,
                        dsmr_error *error);
int32_t segment_fill_reserved(int fd, int32_t reserving, uint64_t room,
                              const struct control *control, const char *name, uint32_t index,
                              uint64_t id, uint64_t size, struct mapping **mapping,
                              dsmr_error *error);

/* Opens the file of segment `id`, so that it cannot be lost; then checks and maps it. The
 * first belongs under the table lock, the second does not. */
int32_t segment_open(const struct control *control, const char *name, uint64_t id,
                     dsmr_error *error);
int32_t segment_map(int fd, const struct control *control, const char *name, uint64_t id,
                    uint64_t size, struct mapping **mapping, dsmr_error *error);

void segment_unlink(const struct control *control, uint64_t id);

#endif

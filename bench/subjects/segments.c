/*
 * segments.c - what mapping a file costs by itself, and the library's segments from C.
 *
 *   segments DIRECTORY
 *
 * Answers each line of input with a round (bench.h). segments_child.ts does the same from
 * JavaScript, with registries that this program has filled by the time it answers "ready".
 */
#include "../bench.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SEGMENTS 1000 /* attached */
#define OTHERS 300    /* to be attached; registry "large" has room for them, too */

static const char *directory;
static uint32_t small; /* a registry with one segment */
static uint32_t large; /* a registry with SEGMENTS */

static void *mapped[OTHERS];
static uint32_t attached[OTHERS];
static int made; /* of either */
static int lock_fd;

#define FILE_SIZE (4096 + 128) /* what a segment of 4,096 bytes has */

static void floor_path(int number, char path[4096]) {
  snprintf(path, 4096, "%s/floor-%d", directory, number);
}

/*
 * The floor of an attach: what any program does to map a file that is there. Another file each
 * time, as an attach has another segment.
 */
static void map_file_of(bool reads_header) {
  char file_path[4096];
  floor_path(made, file_path);
  int fd = open(file_path, O_RDWR | O_CLOEXEC);
  struct stat status;
  must(fd >= 0 && fstat(fd, &status) == 0, file_path);
  char header[64];
  must(!reads_header || pread(fd, header, sizeof header, 0) == sizeof header, "pread");
  void *address = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  must(address != MAP_FAILED, "mmap");
  close(fd);
  mapped[made++] = address;
}

static void map_once(void) { map_file_of(false); }

/* The same, and the first use of the memory: a page fault. */
static void map_and_touch(void) {
  map_once();
  *(volatile uint32_t *)((char *)mapped[made - 1] + 128) += 1;
}

static void set_lock(short type) {
  struct flock request = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
  must(fcntl(lock_fd, F_OFD_SETLK, &request) == 0, "F_OFD_SETLK");
}

/* What an attach asks of the kernel, and nothing else: a file is opened under a lock, and read. */
static void map_as_attach_does(void) {
  set_lock(F_WRLCK);
  set_lock(F_UNLCK);
  map_file_of(true);
}

/* What attach + detach does, by itself: the memory is unmapped at once. */
static void map_and_unmap(void) {
  map_once();
  munmap(mapped[--made], FILE_SIZE);
}

static void unmap_all(void) {
  while (made > 0) munmap(mapped[--made], FILE_SIZE);
}

static void attach_once(void) {
  char name[32];
  snprintf(name, sizeof name, "segment-%d", SEGMENTS + made);
  dsmr_segment_ticket ticket = {0};
  must(dsmr_segment_lookup(large, name, (uint32_t)strlen(name), 0, &ticket, NULL) == DSMR_FOUND,
       "lookup");
  attached[made++] = ticket.segment;
}

static void attach_and_touch(void) {
  attach_once();
  *(volatile uint32_t *)dsmr_segment_address(attached[made - 1]) += 1;
}

static void detach_all(void) {
  while (made > 0) (void)dsmr_segment_detach(attached[--made]);
}

static void attach_and_detach(void) {
  dsmr_segment_ticket ticket = {0};
  must(dsmr_segment_lookup(large, "segment-1007", 12, 0, &ticket, NULL) == DSMR_FOUND, "lookup");
  (void)dsmr_segment_detach(ticket.segment);
}

static void open_once(void) {
  uint32_t registry = open_registry(directory, "small");
  (void)get_segment(registry, "segment-0");
  (void)dsmr_registry_close(registry);
}

SUBJECT(map_file, map_once())
SUBJECT(map_file_touch, map_and_touch())
SUBJECT(map_unmap_file, map_and_unmap())
SUBJECT(attach_calls, map_as_attach_does())
SUBJECT(attach, attach_once())
SUBJECT(attach_touch, attach_and_touch())
SUBJECT(attach_detach, attach_and_detach())
SUBJECT(open_attach_close, open_once())
SUBJECT(known_of_one, (void)get_segment(small, "segment-0"))
SUBJECT(known_of_many, (void)get_segment(large, "segment-0"))

static const struct subject subjects[] = {
    {"map_file", map_file, OTHERS, unmap_all},
    {"map_file_touch", map_file_touch, OTHERS, unmap_all},
    {"map_unmap_file", map_unmap_file, 500, NULL},
    {"attach_calls", attach_calls, OTHERS, unmap_all},
    {"attach", attach, OTHERS, detach_all},
    {"attach_touch", attach_touch, OTHERS, detach_all},
    {"attach_detach", attach_detach, 500, NULL},
    {"open_attach_close", open_attach_close, 250, NULL},
    {"known_of_one", known_of_one, 2000, NULL},
    {"known_of_many", known_of_many, 2000, NULL},
};

int main(int count, char **words) {
  if (count != 2) return 2;
  directory = words[1];
  for (int i = 0; i < OTHERS; i++) {
    char path[4096];
    floor_path(i, path);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    /* With their memory, as segments have it. */
    must(fd >= 0 && posix_fallocate(fd, 0, FILE_SIZE) == 0, path);
    close(fd);
  }
  small = open_registry(directory, "small");
  large = open_registry(directory, "large");
  (void)get_segment(small, "segment-0");
  for (int i = 0; i < SEGMENTS + OTHERS; i++) {
    char name[32];
    snprintf(name, sizeof name, "segment-%d", i);
    uint32_t segment = get_segment(large, name);
    if (i >= SEGMENTS) (void)dsmr_segment_detach(segment);
  }
  char lock_path[4096];
  snprintf(lock_path, sizeof lock_path, "%s/lock", directory);
  lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  must(lock_fd >= 0, lock_path);
  printf("ready\n");
  fflush(stdout);
  answer_with_rounds(subjects, sizeof subjects / sizeof subjects[0]);
  return 0;
}

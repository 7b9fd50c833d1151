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
#include <sys/mman.h>
#include <sys/stat.h>

#define SEGMENTS 1000

static const char *directory;
static char file_path[4096];
static uint32_t small; /* a registry with one segment */
static uint32_t large; /* a registry with SEGMENTS */

/* The floor of an attach: what any program does to map a file that is there. */
static void map_once(void) {
  int fd = open(file_path, O_RDWR | O_CLOEXEC);
  struct stat status;
  must(fd >= 0 && fstat(fd, &status) == 0, file_path);
  void *address = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  must(address != MAP_FAILED, "mmap");
  close(fd);
  munmap(address, (size_t)status.st_size);
}

static void attach_once(void) {
  dsmr_segment_ticket ticket = {0};
  must(dsmr_segment_lookup(large, "segment-7", 9, 0, &ticket, NULL) == DSMR_FOUND, "lookup");
  (void)dsmr_segment_detach(ticket.segment);
}

static void open_once(void) {
  uint32_t registry = open_registry(directory, "small");
  (void)get_segment(registry, "segment-0");
  (void)dsmr_registry_close(registry);
}

SUBJECT(map_file, map_once())
SUBJECT(attach_detach, attach_once())
SUBJECT(open_attach_close, open_once())
SUBJECT(known_of_one, (void)get_segment(small, "segment-0"))
SUBJECT(known_of_many, (void)get_segment(large, "segment-0"))

static const struct subject subjects[] = {
    {"map_file", map_file, 1000},
    {"attach_detach", attach_detach, 1000},
    {"open_attach_close", open_attach_close, 250},
    {"known_of_one", known_of_one, 2000},
    {"known_of_many", known_of_many, 2000},
};

int main(int count, char **words) {
  if (count != 2) return 2;
  directory = words[1];
  snprintf(file_path, sizeof file_path, "%s/floor", directory);
  int fd = open(file_path, O_RDWR | O_CREAT | O_EXCL, 0600);
  must(fd >= 0 && ftruncate(fd, 4096 + 128) == 0, file_path);
  close(fd);
  small = open_registry(directory, "small");
  large = open_registry(directory, "large");
  (void)get_segment(small, "segment-0");
  for (int i = 0; i < SEGMENTS; i++) {
    char name[32];
    snprintf(name, sizeof name, "segment-%d", i);
    uint32_t segment = get_segment(large, name);
    if (i == 7) (void)dsmr_segment_detach(segment);
  }
  printf("ready\n");
  fflush(stdout);
  answer_with_rounds(subjects, sizeof subjects / sizeof subjects[0]);
  return 0;
}

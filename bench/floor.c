/*
 * floor.c - what the machine itself costs, and the library from C, in one run.
 *
 *   floor DIRECTORY
 *
 * Prints one line "name nanoseconds" per subject: the median of ROUNDS rounds. The subjects
 * take turns (A B C A B C ...), so that a slow moment of the machine meets all of them.
 */
#include "bench.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define ROUNDS 31
#define SEGMENTS 1000

static const char *directory;
static char file_path[4096];
static uint32_t small; /* a registry with one segment */
static uint32_t large; /* a registry with SEGMENTS */

/* ---- subjects ---------------------------------------------------------------------- */

/* The floor of an attach: what any program does to map a file that is there. */
static void map_file(void) {
  int fd = open(file_path, O_RDWR | O_CLOEXEC);
  struct stat status;
  must(fd >= 0 && fstat(fd, &status) == 0, file_path);
  void *address = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  must(address != MAP_FAILED, "mmap");
  close(fd);
  munmap(address, (size_t)status.st_size);
}

static void attach_detach(void) {
  dsmr_segment_ticket ticket = {0};
  must(dsmr_segment_lookup(large, "segment-7", 9, 0, &ticket, NULL) == DSMR_FOUND, "lookup");
  (void)dsmr_segment_detach(ticket.segment);
}

static void open_attach_close(void) {
  uint32_t registry = open_registry(directory, "small");
  (void)get_segment(registry, "segment-0");
  (void)dsmr_registry_close(registry);
}

static void known_of_one(void) { (void)get_segment(small, "segment-0"); }
static void known_of_many(void) { (void)get_segment(large, "segment-0"); }

static const struct {
  const char *name;
  void (*run)(void);
  int calls; /* in one round */
} subjects[] = {
    {"map_file", map_file, 2000},           {"attach_detach", attach_detach, 2000},
    {"open_attach_close", open_attach_close, 500}, {"known_of_one", known_of_one, 2000},
    {"known_of_many", known_of_many, 2000},
};
#define SUBJECTS (sizeof subjects / sizeof subjects[0])

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

  static double rounds[SUBJECTS][ROUNDS];
  for (int round = 0; round < ROUNDS; round++) {
    for (size_t i = 0; i < SUBJECTS; i++) {
      double started = now_ns();
      for (int call = 0; call < subjects[i].calls; call++) subjects[i].run();
      rounds[i][round] = (now_ns() - started) / subjects[i].calls;
    }
  }
  for (size_t i = 0; i < SUBJECTS; i++) {
    qsort(rounds[i], ROUNDS, sizeof rounds[i][0], ascending);
    printf("%s %.2f\n", subjects[i].name, rounds[i][ROUNDS / 2]);
  }
  return 0;
}

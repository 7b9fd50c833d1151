/*
 * whole.c - the programs of whole_process/programs/ in C, and what tidies up between them.
 *
 *   whole empty|import                  nothing; the library is loaded either way
 *   whole open|lock|pairs DIRECTORY
 *   whole segments DIRECTORY
 *   whole fill DIRECTORY SIZE
 *   whole destroy DIRECTORY             removes registry "many", for the next one to make
 */
#include "../bench.h"

#define PAIRS 10000000
#define SEGMENTS 1000

static uint32_t counters_lock(const char *directory) {
  return lock_of(get_segment(open_registry(directory, "whole"), "counters"));
}

static void take_and_give(uint32_t lock, long count) {
  for (long pair = 0; pair < count; pair++) {
    (void)acquire(lock, DSMR_EXCLUSIVE);
    (void)dsmr_lock_release(lock);
  }
}

static void make_segments(const char *directory) {
  uint32_t registry = open_registry(directory, "many");
  for (int i = 0; i < SEGMENTS; i++) {
    char name[32];
    snprintf(name, sizeof name, "segment-%d", i);
    (void)get_segment(registry, name);
  }
}

static void fill(const char *directory, uint64_t size) {
  dsmr_error error = {0};
  int32_t segment = dsmr_get_named_segment(open_registry(directory, "many"), "large", size, NULL,
                                           NULL, -1, NULL, &error);
  must(segment > 0, error.message);
  memset(dsmr_segment_address((uint32_t)segment), 1, size);
}

int main(int count, char **words) {
  if (count < 2) return 2;
  const char *what = words[1];
  if (strcmp(what, "empty") == 0 || strcmp(what, "import") == 0) return 0;
  if (count < 3) return 2;
  const char *directory = words[2];
  if (strcmp(what, "open") == 0) (void)open_registry(directory, "whole");
  else if (strcmp(what, "lock") == 0) take_and_give(counters_lock(directory), 1);
  else if (strcmp(what, "pairs") == 0) take_and_give(counters_lock(directory), PAIRS);
  else if (strcmp(what, "segments") == 0) make_segments(directory);
  else if (strcmp(what, "fill") == 0 && count == 4) fill(directory, strtoull(words[3], NULL, 10));
  else if (strcmp(what, "destroy") == 0) {
    (void)dsmr_registry_destroy("many", 4, directory, (uint32_t)strlen(directory), NULL);
  } else return 2;
  return 0;
}

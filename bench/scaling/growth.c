/*
 * growth.c - what grows with the number of names and of backends, from C.
 *
 *   growth DIRECTORY
 *
 * A line of input is a question:
 *
 *   names N       attaches to "name-0" ... "name-N" of registry "names" but the last, and makes
 *                 those that are not there; says "ready"
 *   backends N    holds so many backends of registry "backends", and says "ready"
 *   lookups       a round: "known ns attach ns absent ns"
 *   opens         a round: "open ns"
 *
 * growth_child.ts answers the same but for "backends".
 */
#include "../bench.h"

#define NAME_BYTES 64
#define LOOKUPS 2000
#define ATTACHES 200
#define OPENS 50
#define BACKENDS_MAX 256

static const char *directory;
static uint32_t registry;
static int name_count;
static uint32_t backends[BACKENDS_MAX];
static int backend_count;

static void name_of(int number, char name[32]) { snprintf(name, 32, "name-%d", number); }

static void lookup(int number, int32_t expected) {
  char name[32];
  name_of(number, name);
  dsmr_segment_ticket ticket = {0};
  int32_t outcome =
      dsmr_segment_lookup(registry, name, (uint32_t)strlen(name), 0, &ticket, NULL);
  must(outcome == expected, name);
  if (outcome == DSMR_FOUND) (void)dsmr_segment_detach(ticket.segment);
}

static void ask_known(void) {
  must(dsmr_get_named_segment(registry, "name-0", NAME_BYTES, NULL, NULL, -1, NULL, NULL) > 0,
       "name-0");
}

static void open_and_close(void) {
  (void)dsmr_registry_close(open_registry(directory, "backends"));
}

SUBJECT(known, ask_known())
SUBJECT(attach, lookup(name_count, DSMR_FOUND))
SUBJECT(absent, lookup(-1, DSMR_E_NOT_FOUND))
SUBJECT(open_close, open_and_close())

static void fill(int count) {
  if (registry == 0) registry = open_registry(directory, "names");
  for (int i = name_count; i <= count; i++) {
    char name[32];
    name_of(i, name);
    int32_t segment =
        dsmr_get_named_segment(registry, name, NAME_BYTES, NULL, NULL, -1, NULL, NULL);
    must(segment > 0, name);
    if (i == count) (void)dsmr_segment_detach((uint32_t)segment);
  }
  name_count = count;
}

static void round_of(const char *name, void (*run)(long), long count) {
  double started = now_ns();
  run(count);
  printf("%s %.3f ", name, (now_ns() - started) / (double)count);
}

int main(int count, char **words) {
  if (count != 2) return 2;
  directory = words[1];
  char line[64];
  int number;
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (sscanf(line, "names %d", &number) == 1) {
      fill(number);
      printf("ready");
    } else if (sscanf(line, "backends %d", &number) == 1 && number <= BACKENDS_MAX) {
      while (backend_count < number) {
        backends[backend_count++] = open_registry(directory, "backends");
      }
      printf("ready");
    } else if (strncmp(line, "lookups", 7) == 0) {
      round_of("known", known, LOOKUPS);
      round_of("attach", attach, ATTACHES);
      round_of("absent", absent, LOOKUPS);
    } else {
      round_of("open", open_close, OPENS);
    }
    printf("\n");
    fflush(stdout);
  }
  return 0;
}

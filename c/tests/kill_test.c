/*
 * kill_test.c - kill -9 at every instruction of every operation: the survivors go on.
 *
 * For each operation one child is traced. Then, for each instruction of the trace, a fresh
 * child in a fresh registry is killed in front of it, and what it has left is examined by a
 * survivor: what was there is there, what was half made is gone, no file is left over, and
 * the names can be used. Where an operation has a commit point, its effect must be there from
 * some instruction on and never before.
 *
 * By default every instruction of the library's own code is tried, those next to a system
 * call, and every 7th of libc's other ones. DSMR_KILL_ALL=1 tries all. (Of a string
 * instruction that is one point for each of the first 64 words it moves; by default, one.)
 */
#include "killing.h"

#include "layout.h"

#if TRACER_WORKS

#include <fcntl.h>

enum { KEPT = 1, VICTIM = 2, NEW = 4, TEMPORARY = 8, OTHER = 16 };
static const char *const names[] = {"kept", "victim", "new", "temporary"};
static const unsigned char fills[] = {11, 33, 22, 55};
#define WAITER_FILL 44
#define SIZE 192u

/* In the child: its backend and what it works on. */
static uint32_t registry;
static uint32_t segment;

struct operation {
  void (*prepare)(void); /* in the child, before; NULL = nothing to do */
  void (*act)(void);
  uint32_t may_go;   /* segments that may or may not be there afterwards */
  uint32_t effect;   /* the one whose coming or going is the effect; 0 = none */
  bool is_creating;  /* there is no registry before */
  bool has_dead;     /* a backend died before that was initialising and attached */
  bool has_waiter;   /* a survivor waits for "new" */
};

static uint32_t open_k(void) { return check_open("k", 3, 4); }

static void fill(const dsmr_segment_ticket *ticket, unsigned char byte) {
  memset(check_bytes(ticket), byte, SIZE);
}

/* ---- what the operations start from, and they themselves -------------------------------- */

static void prepare_backend(void) { registry = open_k(); }

static void prepare_initialising(void) {
  dsmr_segment_ticket ticket;
  registry = open_k();
  CHECK_INT(check_begin(registry, "new", SIZE, &ticket), DSMR_INITIALIZE);
  fill(&ticket, fills[2]);
  segment = ticket.segment;
}

static void prepare_temporary(void) {
  registry = open_k();
  segment = check_create(registry, "temporary", SIZE, DSMR_LIFETIME_ATTACHED, fills[3]);
}

static void prepare_everything(void) {
  dsmr_segment_ticket ticket;
  prepare_initialising();
  check_create(registry, "temporary", SIZE, DSMR_LIFETIME_ATTACHED, fills[3]);
  CHECK_INT(check_begin(registry, "kept", SIZE, &ticket), DSMR_FOUND);
}

/* A process that dies as a backend that was initialising one segment and attached to others. */
static void leave_dead_backend(void) {
  pid_t child = check_fork();
  if (child == 0) {
    prepare_everything();
    _exit(0);
  }
  CHECK_CHILD(child);
}

static void prepare_dead_neighbour(void) {
  registry = open_k();
  leave_dead_backend();
}

static void act_open(void) { CHECK((int32_t)open_k() > 0); }

static void act_begin_new(void) {
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "new", SIZE, &ticket), DSMR_INITIALIZE);
}

static void act_begin_kept(void) {
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "kept", SIZE, &ticket), DSMR_FOUND);
}

static void act_commit(void) { CHECK_OK(dsmr_segment_commit(segment, &check_error)); }
static void act_abort(void) { CHECK_OK(dsmr_segment_abort(segment, &check_error)); }
static void act_detach(void) { CHECK_OK(dsmr_segment_detach(segment)); }
static void act_drop(void) { CHECK_INT(dsmr_segment_drop(registry, "victim", 6, 0, &check_error), 1); }
static void act_close(void) { CHECK_OK(dsmr_registry_close(registry)); }
static void act_destroy(void) {
  CHECK_INT(dsmr_registry_destroy("k", 1, DIRECTORY, &check_error), 1);
}

/* ---- the world before, the world after ------------------------------------------------------ */

static void make_world(const struct operation *operation) {
  CHECK_INT(check_count(check_directory, ""), 0);
  if (operation->is_creating) return;
  uint32_t own = open_k();
  check_create(own, "kept", SIZE, DSMR_LIFETIME_REGISTRY, fills[0]);
  check_create(own, "victim", SIZE, DSMR_LIFETIME_REGISTRY, fills[1]);
  CHECK_OK(dsmr_registry_close(own));
  if (operation->has_dead) leave_dead_backend();
}

/* In the table itself: nothing is half done. Returns how many entries are READY. */
static int count_ready(void) {
  char path[512];
  static struct entry entries[16];
  struct control_header header;
  check_path("dsmr.r.", path);
  int fd = open(path, O_RDONLY);
  CHECK(fd >= 0 && pread(fd, &header, sizeof header, 0) == (ssize_t)sizeof header);
  CHECK_INT(header.entry_capacity, 16);
  CHECK(pread(fd, entries, sizeof entries, header.entries_offset) == (ssize_t)sizeof entries);
  close(fd);
  int count = 0;
  for (int i = 0; i < 16; i++) {
    uint32_t state = ENTRY_STATE(atomic_load_explicit(&entries[i].word, memory_order_relaxed));
    CHECK(state == ENTRY_EMPTY || state == ENTRY_TOMBSTONE || state == ENTRY_READY);
    if (state == ENTRY_READY) count++;
  }
  return count;
}

/* Which segments there are; each must be ready, of its size, and attached by nobody. */
static uint32_t list(uint32_t own) {
  dsmr_segment_info infos[16];
  dsmr_registry_info info;
  uint32_t there = 0;
  int32_t count = CHECK_OK(dsmr_segments(own, infos, 16, &check_error));
  for (int32_t i = 0; i < count; i++) {
    uint32_t bit = OTHER;
    for (uint32_t n = 0; n < 4; n++) {
      if (strcmp(infos[i].name, names[n]) == 0) bit = 1u << n;
    }
    CHECK(bit != OTHER && (there & bit) == 0);
    CHECK_INT(infos[i].is_ready, 1);
    CHECK_INT(infos[i].size, SIZE);
    CHECK_INT(infos[i].backend_count, 0);
    there |= bit;
  }
  CHECK_OK(dsmr_registry_describe(own, &info, &check_error));
  CHECK_INT(info.segment_count, count);
  CHECK_INT(info.backend_count, 1);
  CHECK_INT(check_count(check_directory, "dsmr.s."), count);
  CHECK_INT(check_count(check_directory, ""), count + 1);
  CHECK_INT(count_ready(), count);
  return there;
}

/* Every segment that is there has its bytes, and every name can be used. */
static void check_names(uint32_t own, uint32_t there, unsigned char new_fill) {
  for (uint32_t n = 0; n < 4; n++) {
    dsmr_segment_ticket ticket;
    bool is_there = (there & 1u << n) != 0;
    CHECK_INT(check_begin(own, names[n], SIZE, &ticket), is_there ? DSMR_FOUND : DSMR_INITIALIZE);
    unsigned char byte = 1u << n == NEW ? new_fill : fills[n];
    CHECK(check_is_filled(&ticket, is_there ? byte : 0));
    if (!is_there) CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
  }
  CHECK_INT(dsmr_segments(own, NULL, 0, &check_error), 4);
}

/* Examines what is left and removes it. Returns whether the effect was there. */
static bool survive(const struct operation *operation, bool waiter_initialised) {
  bool was_there = check_count(check_directory, "dsmr.r.") == 1;
  if (operation->is_creating) CHECK_INT(check_count(check_directory, ""), was_there);
  int descriptors = check_descriptors();
  uint32_t own = open_k();
  uint32_t there = list(own);
  uint32_t must = operation->is_creating ? 0 : KEPT | VICTIM;
  if (operation->has_waiter) must |= NEW;
  uint32_t may = must | operation->may_go;
  /* A destroyed registry has nothing, one that is not destroyed has all. */
  if (operation->act == act_destroy) CHECK(there == 0 || there == (KEPT | VICTIM));
  CHECK_INT(there & ~may, 0);
  CHECK_INT((must & ~operation->may_go) & ~there, 0);
  check_names(own, there, waiter_initialised ? WAITER_FILL : fills[2]);
  CHECK_OK(dsmr_registry_close(own));
  CHECK_INT(dsmr_registry_destroy("k", 1, DIRECTORY, &check_error), 1);
  CHECK_INT(check_count(check_directory, ""), 0);
  CHECK_INT(check_descriptors(), descriptors);
  if (operation->is_creating) return was_there;
  if (operation->act == act_commit) return !waiter_initialised;
  return operation->effect != 0 && (there & operation->effect) == 0;
}

/* ---- children ---------------------------------------------------------------------------------- */

static struct gate waits;

/* Waits for "new" until it has it, in whatever way. Exits with 2 if it had to initialise. */
static pid_t start_waiter(void) {
  pid_t child = check_fork();
  if (child != 0) return child;
  uint32_t own = open_k();
  dsmr_segment_request request = {.size = SIZE, .timeout_ms = -1};
  dsmr_segment_ticket ticket = {0};
  int32_t outcome = dsmr_segment_begin(own, "new", 3, &request, &ticket, &check_error);
  CHECK_INT(outcome, DSMR_WAIT);
  gate_open(&waits);
  while (outcome == DSMR_WAIT) {
    CHECK_OK(dsmr_segment_wait(own, "new", 3, &request, &ticket, &check_error));
    outcome = dsmr_segment_begin(own, "new", 3, &request, &ticket, &check_error);
  }
  if (outcome == DSMR_FOUND) {
    CHECK(check_is_filled(&ticket, fills[2]));
    _exit(0);
  }
  CHECK_INT(outcome, DSMR_INITIALIZE);
  CHECK(check_is_filled(&ticket, 0));
  fill(&ticket, WAITER_FILL);
  CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
  _exit(2);
}

static uint32_t live_once(const void *which, struct killing *killing) {
  const struct operation *operation = which;
  make_world(operation);
  pid_t child = killing_start(operation->prepare, operation->act);
  pid_t waiter = 0;
  if (operation->has_waiter) {
    waiter = start_waiter();
    gate_pass(&waits);
  }
  killing_end(killing, child);
  int status = 0;
  if (waiter != 0) {
    CHECK(waitpid(waiter, &status, 0) == waiter);
    CHECK(status == 0 || status == 2 << 8);
  }
  return survive(operation, status != 0);
}

/* Runs everything once here, so that no child resolves symbols or makes its first malloc. */
static void warm_up(void) {
  struct operation world = {.act = act_open};
  make_world(&world);
  prepare_everything();
  act_abort();
  CHECK_OK(dsmr_segment_drop(registry, "victim", 6, 0, &check_error));
  act_close();
  survive(&(struct operation){.act = act_open, .may_go = VICTIM}, false);
}

static void kill_at_every_point(const struct operation *operation) {
  if (CHECK_TSAN) check_skip("single-steps children: ThreadSanitizer watches threads");
  if (killing_tries_all()) alarm(0);
  waits = gate_make();
  warm_up();
  killing_run(live_once, operation, operation->effect != 0 || operation->is_creating, 7,
              false);
}

/* ---- the operations ---------------------------------------------------------------------------- */

#define OPERATION(name, ...)                                \
  static void name(void) {                                  \
    static const struct operation operation = {__VA_ARGS__}; \
    kill_at_every_point(&operation);                        \
  }

OPERATION(killed_in_open_that_creates, .act = act_open, .is_creating = true)
OPERATION(killed_in_open_that_attaches, .act = act_open)
OPERATION(killed_in_open_that_reaps, .act = act_open, .has_dead = true)
OPERATION(killed_in_begin_that_creates, .prepare = prepare_backend, .act = act_begin_new)
OPERATION(killed_in_begin_that_replaces_the_dead, .prepare = prepare_dead_neighbour,
          .act = act_begin_new)
OPERATION(killed_in_begin_that_attaches, .prepare = prepare_backend, .act = act_begin_kept)
OPERATION(killed_in_commit, .prepare = prepare_initialising, .act = act_commit, .effect = NEW,
          .has_waiter = true)
OPERATION(killed_in_abort, .prepare = prepare_initialising, .act = act_abort, .has_waiter = true)
OPERATION(killed_in_last_detach, .prepare = prepare_temporary, .act = act_detach)
OPERATION(killed_in_drop, .prepare = prepare_backend, .act = act_drop, .may_go = VICTIM,
          .effect = VICTIM)
OPERATION(killed_in_close, .prepare = prepare_everything, .act = act_close)
OPERATION(killed_in_destroy, .prepare = prepare_backend, .act = act_destroy,
          .may_go = KEPT | VICTIM, .effect = KEPT)

static const struct check_test tests[] = {
    TEST(killed_in_open_that_creates),
    TEST(killed_in_open_that_attaches),
    TEST(killed_in_open_that_reaps),
    TEST(killed_in_begin_that_creates),
    TEST(killed_in_begin_that_replaces_the_dead),
    TEST(killed_in_begin_that_attaches),
    TEST(killed_in_commit),
    TEST(killed_in_abort),
    TEST(killed_in_last_detach),
    TEST(killed_in_drop),
    TEST(killed_in_close),
    TEST(killed_in_destroy),
};

int main(int argc, char **argv) {
  const char *which = "killing at every instruction of the library, at system calls, and at "
                      "every 7th of libc's; DSMR_KILL_ALL=1 for all";
  if (KILLING_SAMPLES) which = "killing at system calls and at a sample of the instructions";
  if (killing_tries_all()) which = "killing at every instruction";
  printf("%s\n", which);
  return check_run(tests, sizeof tests / sizeof tests[0], argc, argv);
}

#else

static void killed_at_every_instruction(void) {
  check_skip("single-stepping is written for Linux on x86-64");
}
static const struct check_test tests[] = {TEST(killed_at_every_instruction)};
CHECK_MAIN(tests)

#endif

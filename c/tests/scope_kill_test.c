/*
 * scope_kill_test.c - kill -9 at every instruction of what databases do: a database is there with
 * all that is in it, or gone with all of it.
 *
 * As kill_test.c, which explains how. The world before: databases "north" and "south", each with
 * segments "a" and "b"; "a" in the registry; and a survivor that is attached to "a" of "north"
 * throughout, where the operation says so. After each death somebody reaps; then what is left is
 * looked at through the library, and in the registry's own bytes.
 */
#include "killing.h"

#include "layout.h"

#if TRACER_WORKS

#include <fcntl.h>

enum { A_GLOBAL = 1, A_NORTH = 2, B_NORTH = 4, A_SOUTH = 8, B_SOUTH = 16, NEW = 32 };
#define NORTH_ALL (A_NORTH | B_NORTH)
#define SOUTH_ALL (A_SOUTH | B_SOUTH)
#define SIZE 192u

static uint32_t registry; /* in the child */
static uint32_t segment;

struct operation {
  void (*prepare)(void); /* in the child, before; NULL = nothing to do */
  void (*act)(void);
  uint32_t may_go;     /* of "north", besides what goes with it */
  uint32_t effect;     /* the segment whose coming or going is the effect; 0 = none */
  bool may_drop;       /* "north" may go */
  bool may_make;       /* database "new" may come */
  bool is_half_dropped; /* a dropper of "north" has died after its commit */
  bool has_user;       /* a survivor is attached to "a" of "north" */
};

static uint32_t open_in(const char *database) {
  dsmr_registry_options options = {
      .backend_count_max = 5, .segment_count_max = 8, .timeout_ms = -1};
  return (uint32_t)CHECK_OK(
      dsmr_registry_open("k", 1, DIRECTORY, NAME(database), &options, &check_error));
}

static int32_t begin(uint32_t own, const char *name, uint32_t scope,
                     dsmr_segment_ticket *ticket) {
  dsmr_segment_request request = {.size = SIZE, .timeout_ms = -1, .scope = scope};
  *ticket = (dsmr_segment_ticket){0};
  return dsmr_segment_begin(own, NAME(name), &request, ticket, &check_error);
}

/* Each segment is filled with its bit. */
static void make(uint32_t own, const char *name, uint32_t scope, unsigned char bit) {
  dsmr_segment_ticket ticket;
  CHECK_INT(begin(own, name, scope, &ticket), DSMR_INITIALIZE);
  memset(check_bytes(&ticket), bit, SIZE);
  CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
}

/* ---- the operations ---------------------------------------------------------------------- */

static void prepare_north(void) { registry = open_in("north"); }
static void prepare_south(void) { registry = open_in("south"); }

static void prepare_initialising(void) {
  dsmr_segment_ticket ticket;
  registry = open_in("north");
  CHECK_INT(begin(registry, "new", DSMR_SCOPE_DATABASE, &ticket), DSMR_INITIALIZE);
  memset(check_bytes(&ticket), NEW, SIZE);
  segment = ticket.segment;
}

static void prepare_attached(void) {
  dsmr_segment_ticket ticket;
  registry = open_in("north");
  CHECK_INT(begin(registry, "a", DSMR_SCOPE_DATABASE, &ticket), DSMR_FOUND);
  CHECK_INT(begin(registry, "new", DSMR_SCOPE_DATABASE, &ticket), DSMR_INITIALIZE);
}

static void act_open_new(void) { registry = open_in("new"); }
static void act_open_south(void) { registry = open_in("south"); }

static void act_begin_new(void) {
  dsmr_segment_ticket ticket;
  CHECK_INT(begin(registry, "new", DSMR_SCOPE_DATABASE, &ticket), DSMR_INITIALIZE);
}

static void act_begin_found(void) {
  dsmr_segment_ticket ticket;
  CHECK_INT(begin(registry, "a", DSMR_SCOPE_DATABASE, &ticket), DSMR_FOUND);
}

static void act_commit(void) { CHECK_OK(dsmr_segment_commit(segment, &check_error)); }

static void act_drop_segment(void) {
  CHECK_INT(dsmr_segment_drop(registry, "b", 1, DSMR_SCOPE_DATABASE, &check_error), 1);
}

static void act_drop_database(void) {
  CHECK_INT(dsmr_database_drop(registry, "north", 5, &check_error), 1);
}

/* ---- the world before ---------------------------------------------------------------------- */

static struct control_header header;
static struct entry entries[16];
static struct database_row rows[DSMR_DATABASES_MAX];

static int open_control(void) {
  char path[512];
  check_path("dsmr.r.", path);
  int fd = open(path, O_RDWR);
  CHECK(fd >= 0 && pread(fd, &header, sizeof header, 0) == (ssize_t)sizeof header);
  CHECK_INT(header.entry_capacity, 16);
  CHECK(pread(fd, entries, sizeof entries, header.entries_offset) == (ssize_t)sizeof entries);
  CHECK(pread(fd, rows, sizeof rows, header.databases_offset) == (ssize_t)sizeof rows);
  return fd;
}

static uint32_t row_id(const char *name) {
  for (uint32_t i = 0; i < DSMR_DATABASES_MAX; i++) {
    if (atomic_load(&rows[i].id) != 0 && strcmp(rows[i].name, name) == 0) {
      return atomic_load(&rows[i].id);
    }
  }
  return 0;
}

/* What a dropper leaves that dies behind its commit store; and its slot, LIVE and dead. */
static void leave_half_dropped(void) {
  pid_t child = check_fork();
  if (child == 0) {
    prepare_attached();
    int fd = open_control();
    for (uint32_t i = 0; i < DSMR_DATABASES_MAX; i++) {
      if (strcmp(rows[i].name, "north") != 0) continue;
      uint32_t none = 0;
      CHECK(pwrite(fd, &none, sizeof none,
                   (off_t)(header.databases_offset + i * sizeof rows[0])) == sizeof none);
    }
    _exit(0);
  }
  CHECK_CHILD(child);
}

static void make_world(const struct operation *operation) {
  CHECK_INT(check_count(check_directory, ""), 0);
  uint32_t north = open_in("north");
  uint32_t south = open_in("south");
  make(north, "a", DSMR_SCOPE_GLOBAL, A_GLOBAL);
  make(north, "a", DSMR_SCOPE_DATABASE, A_NORTH);
  make(north, "b", DSMR_SCOPE_DATABASE, B_NORTH);
  make(south, "a", DSMR_SCOPE_DATABASE, A_SOUTH);
  make(south, "b", DSMR_SCOPE_DATABASE, B_SOUTH);
  CHECK_OK(dsmr_registry_close(north));
  CHECK_OK(dsmr_registry_close(south));
  if (operation->is_half_dropped) leave_half_dropped();
}

/* ---- the world after ------------------------------------------------------------------------- */

/* In the tables themselves: no entry is half done, none belongs to a database that is gone. */
static int count_ready(void) {
  close(open_control());
  int count = 0;
  for (int i = 0; i < 16; i++) {
    uint32_t state = ENTRY_STATE(atomic_load(&entries[i].word));
    CHECK(state == ENTRY_EMPTY || state == ENTRY_TOMBSTONE || state == ENTRY_READY ||
          state == ENTRY_DROPPED);
    if (state == ENTRY_DROPPED) CHECK(row_id("north") == 0);
    if (state != ENTRY_READY) continue;
    count++;
    uint32_t id = entries[i].database_id;
    bool has_home = id == 0;
    for (uint32_t n = 0; n < DSMR_DATABASES_MAX; n++) has_home |= atomic_load(&rows[n].id) == id;
    CHECK(has_home);
  }
  return count;
}

/* Which segments there are, by name and database; each ready, of its size. */
static uint32_t list(uint32_t own) {
  dsmr_segment_info infos[16];
  uint32_t there = 0;
  int32_t count = CHECK_OK(dsmr_segments(own, infos, 16, &check_error));
  CHECK_INT(count_ready(), count);
  for (int32_t i = 0; i < count; i++) {
    uint32_t id = infos[i].database_id;
    uint32_t a = id == 0                 ? A_GLOBAL
                 : id == row_id("north") ? A_NORTH
                 : id == row_id("south") ? A_SOUTH
                                         : 0;
    uint32_t bit = strcmp(infos[i].name, "a") == 0   ? a
                   : strcmp(infos[i].name, "b") == 0 ? a * 2
                                                     : (uint32_t)NEW;
    CHECK(a != 0 && (there & bit) == 0);
    CHECK_INT(infos[i].is_ready, 1);
    CHECK_INT(infos[i].size, SIZE);
    there |= bit;
  }
  dsmr_registry_info info;
  CHECK_OK(dsmr_registry_describe(own, &info, &check_error));
  CHECK_INT(info.segment_count, count);
  return there;
}

/* Every name of the database can be used, and what is there has its bytes. */
static void check_names(uint32_t own, uint32_t there, uint32_t a) {
  static const char *const names[] = {"a", "b", "new"};
  for (uint32_t n = 0; n < 3; n++) {
    dsmr_segment_ticket ticket;
    uint32_t bit = n == 2 ? (uint32_t)NEW : a << n;
    bool is_there = (there & bit) != 0;
    CHECK_INT(begin(own, names[n], DSMR_SCOPE_DATABASE, &ticket),
              is_there ? DSMR_FOUND : DSMR_INITIALIZE);
    CHECK(check_is_filled(&ticket, is_there ? (unsigned char)bit : 0));
    CHECK_OK(is_there ? dsmr_segment_detach(ticket.segment)
                      : dsmr_segment_abort(ticket.segment, &check_error));
  }
}

/* The survivor that is attached: its bytes are its own, whatever became of the name. */
static void check_user(uint32_t user, const dsmr_segment_ticket *used, bool is_dropped) {
  if (user == 0) return;
  CHECK(check_is_filled(used, A_NORTH));
  CHECK_INT(dsmr_segment_is_current(used->segment), !is_dropped);
  CHECK_INT(check_count(check_directory, "dsmr.s."),
            CHECK_OK(dsmr_segments(user, NULL, 0, &check_error)) + is_dropped);
  dsmr_segment_ticket ticket;
  CHECK_INT(begin(user, "b", DSMR_SCOPE_DATABASE, &ticket),
            is_dropped ? (int32_t)DSMR_E_CLOSED : (int32_t)DSMR_FOUND);
  CHECK_INT(begin(user, "a", DSMR_SCOPE_GLOBAL, &ticket), DSMR_FOUND);
  CHECK_OK(dsmr_registry_close(user));
}

/* Examines what is left and removes it. Returns whether the effect was there. */
static bool survive(const struct operation *operation, uint32_t user,
                    const dsmr_segment_ticket *used) {
  uint32_t own = open_in("south");
  uint32_t there = list(own);
  uint32_t north_id = row_id("north");
  uint32_t new_id = row_id("new");
  CHECK(north_id != 0 || operation->may_drop);
  CHECK(new_id == 0 || (operation->may_make && new_id == 3));
  CHECK_INT(CHECK_OK(dsmr_databases(own, NULL, 0, &check_error)),
            1 + (north_id != 0) + (new_id != 0));
  uint32_t must = A_GLOBAL | SOUTH_ALL | (north_id != 0 ? NORTH_ALL : 0);
  CHECK_INT((must & ~operation->may_go) & ~there, 0);
  CHECK_INT(there & ~(must | (operation->effect & NEW)), 0);
  check_user(user, used, north_id == 0);
  CHECK_INT(check_count(check_directory, "dsmr.s."), count_ready());
  check_names(own, there & ~(uint32_t)NEW, A_SOUTH);
  /* Made anew, it is another one, and empty. */
  uint32_t north = open_in("north");
  dsmr_registry_info info;
  CHECK_OK(dsmr_registry_describe(north, &info, &check_error));
  CHECK(north_id == 0 ? info.database_id > new_id && info.database_id > 2
                      : info.database_id == north_id);
  check_names(north, there, A_NORTH);
  CHECK_OK(dsmr_registry_close(north));
  CHECK_OK(dsmr_registry_close(own));
  CHECK_INT(dsmr_registry_destroy("k", 1, DIRECTORY, &check_error), 1);
  CHECK_INT(check_count(check_directory, ""), 0);
  if (operation->may_make) return new_id != 0;
  if (operation->may_drop && !operation->is_half_dropped) return north_id == 0;
  if (operation->effect == NEW) return (there & NEW) != 0;
  return operation->effect != 0 && (there & operation->effect) == 0;
}

static uint32_t live_once(const void *which, struct killing *killing) {
  const struct operation *operation = which;
  dsmr_segment_ticket used = {0};
  uint32_t user = 0;
  make_world(operation);
  int descriptors = check_descriptors();
  if (operation->has_user) {
    user = open_in("north");
    CHECK_INT(begin(user, "a", DSMR_SCOPE_DATABASE, &used), DSMR_FOUND);
  }
  killing_end(killing, killing_start(operation->prepare, operation->act));
  bool has_effect = survive(operation, user, &used);
  CHECK_INT(check_descriptors(), descriptors);
  return has_effect;
}

static void kill_at_every_point(const struct operation *operation) {
  if (CHECK_TSAN) check_skip("single-steps children: ThreadSanitizer watches threads");
  if (killing_tries_all()) alarm(0);
  /* Once here, so that no child resolves symbols or makes its first malloc. */
  make_world(&(struct operation){.act = act_open_new});
  prepare_initialising();
  act_commit();
  act_drop_segment();
  act_drop_database();
  CHECK_OK(dsmr_registry_close(registry));
  CHECK_INT(dsmr_registry_destroy("k", 1, DIRECTORY, &check_error), 1);
  bool has_effect = operation->effect != 0 || operation->may_make ||
                    (operation->may_drop && !operation->is_half_dropped);
  killing_run(live_once, operation, has_effect, 7, false);
}

#define OPERATION(name, ...)                                \
  static void name(void) {                                  \
    static const struct operation operation = {__VA_ARGS__}; \
    kill_at_every_point(&operation);                        \
  }

OPERATION(killed_in_open_that_makes_a_database, .act = act_open_new, .may_make = true)
OPERATION(killed_in_begin_that_creates, .prepare = prepare_north, .act = act_begin_new)
OPERATION(killed_in_begin_that_attaches, .prepare = prepare_north, .act = act_begin_found)
OPERATION(killed_in_commit, .prepare = prepare_initialising, .act = act_commit, .effect = NEW)
OPERATION(killed_in_drop_of_a_segment, .prepare = prepare_north, .act = act_drop_segment,
          .may_go = B_NORTH, .effect = B_NORTH)
OPERATION(killed_in_drop_of_a_database, .prepare = prepare_south, .act = act_drop_database,
          .may_drop = true)
OPERATION(killed_in_drop_of_a_database_in_use, .prepare = prepare_south,
          .act = act_drop_database, .may_drop = true, .has_user = true)
OPERATION(killed_in_drop_of_its_own_database, .prepare = prepare_attached,
          .act = act_drop_database, .may_drop = true)
OPERATION(killed_in_open_that_finishes_a_drop, .act = act_open_south, .may_drop = true,
          .is_half_dropped = true)

static const struct check_test tests[] = {
    TEST(killed_in_open_that_makes_a_database),
    TEST(killed_in_begin_that_creates),
    TEST(killed_in_begin_that_attaches),
    TEST(killed_in_commit),
    TEST(killed_in_drop_of_a_segment),
    TEST(killed_in_drop_of_a_database),
    TEST(killed_in_drop_of_a_database_in_use),
    TEST(killed_in_drop_of_its_own_database),
    TEST(killed_in_open_that_finishes_a_drop),
};
CHECK_MAIN(tests)

#else

static void killed_at_every_instruction(void) {
  check_skip("single-stepping is written for Linux on x86-64");
}
static const struct check_test tests[] = {TEST(killed_at_every_instruction)};
CHECK_MAIN(tests)

#endif

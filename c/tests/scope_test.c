/*
 * scope_test.c - databases, the names in them, and layouts.
 */
#include "check.h"

#include "layout.h"

#include <fcntl.h>
#include <sys/mman.h>

#define SIZE 64u
#define GLOBAL DSMR_SCOPE_GLOBAL
#define DATABASE DSMR_SCOPE_DATABASE

static uint32_t open_in(const char *database) {
  dsmr_registry_options options = {
      .backend_count_max = 8, .segment_count_max = 8, .timeout_ms = -1};
  return (uint32_t)CHECK_OK(
      dsmr_registry_open("r", 1, DIRECTORY, NAME(database), &options, &check_error));
}

static int32_t begin(uint32_t registry, const char *name, uint32_t scope, uint64_t layout,
                     dsmr_segment_ticket *ticket) {
  dsmr_segment_request request = {
      .size = SIZE, .timeout_ms = -1, .scope = scope, .layout = layout};
  *ticket = (dsmr_segment_ticket){0};
  return dsmr_segment_begin(registry, NAME(name), &request, ticket, &check_error);
}

static uint32_t make(uint32_t registry, const char *name, uint32_t scope, unsigned char byte) {
  dsmr_segment_ticket ticket;
  CHECK_INT(begin(registry, name, scope, 0, &ticket), DSMR_INITIALIZE);
  CHECK(check_is_filled(&ticket, 0));
  memset(check_bytes(&ticket), byte, SIZE);
  CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
  return ticket.segment;
}

/* What the name means there: its first byte, or -1 for nothing. */
static int meaning(uint32_t registry, const char *name, uint32_t scope) {
  dsmr_segment_ticket ticket = {0};
  int32_t outcome = dsmr_segment_lookup(registry, NAME(name), scope, &ticket, &check_error);
  if (outcome == DSMR_E_NOT_FOUND) return -1;
  CHECK_INT(outcome, DSMR_FOUND);
  return check_bytes(&ticket)[0];
}

/* The database's id, or 0 if it is not listed. */
static uint32_t id_of(uint32_t registry, const char *name) {
  dsmr_database_info infos[DSMR_DATABASES_MAX];
  int32_t count = CHECK_OK(dsmr_databases(registry, infos, DSMR_DATABASES_MAX, &check_error));
  uint32_t id = 0;
  for (int32_t i = 0; i < count; i++) {
    CHECK_INT(infos[i].name_length, strlen(infos[i].name));
    CHECK(infos[i].id != 0 && infos[i].created_ns != 0);
    if (strcmp(infos[i].name, name) != 0) continue;
    CHECK_INT(id, 0);
    id = infos[i].id;
  }
  return id;
}

static int count_segments(uint32_t registry) {
  int32_t count = CHECK_OK(dsmr_segments(registry, NULL, 0, &check_error));
  CHECK_INT(check_count(check_directory, "dsmr.s."), count);
  return count;
}

/* The registry's file, mapped to be damaged. */
static struct control_header *map_control(void) {
  char path[512];
  check_path("dsmr.r.", path);
  int fd = open(path, O_RDWR);
  struct stat status;
  CHECK(fd >= 0 && fstat(fd, &status) == 0);
  void *address =
      mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(address != MAP_FAILED);
  close(fd);
  return address;
}

static struct entry *entry_named(struct control_header *header, const char *name) {
  struct entry *entries = (void *)((char *)header + header->entries_offset);
  for (uint32_t i = 0; i < header->entry_capacity; i++) {
    uint32_t state = ENTRY_STATE(atomic_load(&entries[i].word));
    if (state == ENTRY_READY && strcmp(entries[i].name, name) == 0) return &entries[i];
  }
  return NULL;
}

/* ---- scopes ------------------------------------------------------------------------------- */

static void a_name_means_something_else_in_each_scope_and_database(void) {
  uint32_t north = open_in("north");
  uint32_t south = open_in("south");
  make(north, "s", GLOBAL, 1);
  make(north, "s", DATABASE, 2);
  make(south, "s", DATABASE, 3);
  for (int i = 0; i < 2; i++) {
    CHECK_INT(meaning(north, "s", GLOBAL), 1);
    CHECK_INT(meaning(south, "s", GLOBAL), 1);
    CHECK_INT(meaning(north, "s", DATABASE), 2);
    CHECK_INT(meaning(south, "s", DATABASE), 3);
    /* The same for who was not there when they were made. */
    CHECK_OK(dsmr_registry_close(north));
    north = open_in("north");
  }
  CHECK_INT(count_segments(north), 3);
  CHECK_INT(dsmr_segment_drop(north, "s", 1, DATABASE, &check_error), 1);
  CHECK_INT(dsmr_segment_drop(north, "s", 1, DATABASE, &check_error), 0);
  CHECK_INT(meaning(north, "s", DATABASE), -1);
  CHECK_INT(meaning(south, "s", DATABASE), 3);
  CHECK_INT(meaning(south, "s", GLOBAL), 1);
}

static void listings_tell_database_and_layout(void) {
  uint32_t north = open_in("north");
  uint32_t south = open_in("south");
  dsmr_segment_ticket ticket;
  CHECK_INT(begin(south, "s", DATABASE, 0x1234567890abcdef, &ticket), DSMR_INITIALIZE);
  CHECK(ticket.layout == 0x1234567890abcdef);
  CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
  make(south, "g", GLOBAL, 1);
  dsmr_registry_info own;
  CHECK_OK(dsmr_registry_describe(south, &own, &check_error));
  CHECK_INT(own.database_id, id_of(north, "south"));
  CHECK(id_of(north, "north") != own.database_id);
  CHECK_INT(id_of(north, "default"), 0);
  dsmr_segment_info infos[2];
  CHECK_INT(dsmr_segments(north, infos, 2, &check_error), 2);
  for (int i = 0; i < 2; i++) {
    bool is_global = infos[i].name[0] == 'g';
    CHECK_INT(infos[i].database_id, is_global ? 0 : own.database_id);
    CHECK(infos[i].layout == (is_global ? 0 : 0x1234567890abcdef));
  }
  /* No more than there is room for. */
  dsmr_database_info one;
  CHECK_INT(dsmr_databases(north, &one, 1, &check_error), 2);
  CHECK_INT(dsmr_databases(north, NULL, 0, &check_error), 2);
}

static void a_scope_that_is_none_is_refused(void) {
  uint32_t registry = open_in("d");
  dsmr_segment_ticket ticket;
  CHECK_FAILS(begin(registry, "s", 2, 0, &ticket), DSMR_E_SIZE_INVALID);
  CHECK_FAILS(dsmr_segment_lookup(registry, "s", 1, UINT32_MAX, &ticket, &check_error),
              DSMR_E_SIZE_INVALID);
  CHECK_FAILS(dsmr_segment_drop(registry, "s", 1, 7, &check_error), DSMR_E_SIZE_INVALID);
  CHECK_INT(check_error.requested, 7);
  /* None of them has kept the table lock. */
  uint32_t other = open_in("d");
  CHECK_INT(count_segments(other), 0);
}

/* ---- layouts ------------------------------------------------------------------------------ */

static void layout_is_checked_when_both_know_one(void) {
  uint32_t registry = open_in("d");
  uint32_t other = open_in("d");
  dsmr_segment_ticket ticket;
  dsmr_segment_request sized = {.size = 2 * SIZE, .timeout_ms = -1, .layout = 7};
  for (uint32_t scope = GLOBAL; scope <= DATABASE; scope++) {
    CHECK_INT(begin(registry, "s", scope, 9, &ticket), DSMR_INITIALIZE);
    CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
    CHECK_INT(begin(other, "s", scope, 9, &ticket), DSMR_FOUND);
    CHECK_OK(dsmr_segment_detach(ticket.segment));
    dsmr_segment_info infos[2];
    CHECK_FAILS(begin(other, "s", scope, 7, &ticket), DSMR_E_LAYOUT_MISMATCH);
    CHECK_INT(check_error.actual, 9);
    CHECK_INT(check_error.requested, 7);
    CHECK(strstr(check_error.message, "\"s\"") != NULL);
    CHECK(strstr(check_error.message, "0000000000000009, 0000000000000007") != NULL);
    CHECK_INT(dsmr_segments(other, infos, 2, &check_error), scope + 1);
    for (uint32_t i = 0; i <= scope; i++) CHECK_INT(infos[i].backend_count, 1);
    /* Of two things that are wrong, the layout is told: it explains the size. */
    sized.scope = scope;
    CHECK_FAILS(dsmr_segment_begin(other, "s", 1, &sized, &ticket, &check_error),
                DSMR_E_LAYOUT_MISMATCH);
    /* Without one it is taken as it is, and says what it is. */
    CHECK_INT(begin(other, "s", scope, 0, &ticket), DSMR_FOUND);
    CHECK_INT(ticket.layout, 9);
    CHECK_OK(dsmr_segment_detach(ticket.segment));
    CHECK_INT(dsmr_segment_lookup(other, "s", 1, scope, &ticket, &check_error), DSMR_FOUND);
    CHECK_INT(ticket.layout, 9);
    /* That one is attached does not help. */
    uint32_t attached = ticket.segment;
    CHECK_FAILS(begin(other, "s", scope, 7, &ticket), DSMR_E_LAYOUT_MISMATCH);
    CHECK_OK(dsmr_segment_detach(attached));
  }
}

static void made_without_a_layout_is_no_layout_asked_for(void) {
  uint32_t registry = open_in("d");
  dsmr_segment_ticket ticket;
  make(registry, "s", GLOBAL, 1);
  CHECK_FAILS(begin(registry, "s", GLOBAL, 5, &ticket), DSMR_E_LAYOUT_MISMATCH);
  CHECK_INT(check_error.actual, 0);
  CHECK(strstr(check_error.message, "(none)") != NULL);
  /* Whoever comes after an initialiser that gave up says anew what it is. */
  CHECK_INT(begin(registry, "t", GLOBAL, 5, &ticket), DSMR_INITIALIZE);
  CHECK_OK(dsmr_segment_abort(ticket.segment, &check_error));
  CHECK_INT(begin(registry, "t", GLOBAL, 6, &ticket), DSMR_INITIALIZE);
  CHECK_INT(ticket.layout, 6);
}

/* ---- dropping a database -------------------------------------------------------------------- */

/* Whatever it asks for in its database. */
static void check_closed(uint32_t registry, const char *database) {
  dsmr_segment_ticket ticket;
  char text[DSMR_NAME_SIZE + 32];
  snprintf(text, sizeof text, "Database \"%s\"", database);
  CHECK_FAILS(begin(registry, "s", DATABASE, 0, &ticket), DSMR_E_CLOSED);
  CHECK(strstr(check_error.message, text) != NULL);
  CHECK_FAILS(dsmr_segment_lookup(registry, "s", 1, DATABASE, &ticket, &check_error),
              DSMR_E_CLOSED);
  CHECK(strstr(check_error.message, "dropped") != NULL);
  CHECK_FAILS(dsmr_segment_drop(registry, "s", 1, DATABASE, &check_error), DSMR_E_CLOSED);
}

static void dropping_a_database_takes_its_segments_and_nothing_else(void) {
  uint32_t north = open_in("north");
  uint32_t south = open_in("south");
  make(north, "g", GLOBAL, 1);
  uint32_t attached = make(north, "s", DATABASE, 2);
  CHECK_OK(dsmr_segment_detach(make(north, "t", DATABASE, 3)));
  make(south, "s", DATABASE, 4);
  uint32_t id = id_of(south, "north");
  CHECK_INT(dsmr_database_drop(south, "north", 5, &check_error), 1);
  CHECK_INT(id_of(south, "north"), 0);
  CHECK(id_of(south, "south") != 0);
  CHECK_INT(dsmr_database_drop(south, "north", 5, &check_error), 0);
  /* The attached one keeps its memory, and its file, which has its locks, until it detaches. */
  CHECK_INT(dsmr_segments(south, NULL, 0, &check_error), 2);
  CHECK_INT(check_count(check_directory, "dsmr.s."), 3);
  CHECK_INT(((unsigned char *)dsmr_segment_address(attached))[0], 2);
  CHECK_INT(dsmr_segment_is_current(attached), 0);
  check_closed(north, "north");
  CHECK_INT(meaning(north, "g", GLOBAL), 1);
  CHECK_INT(meaning(south, "g", GLOBAL), 1);
  CHECK_INT(meaning(south, "s", DATABASE), 4);
  make(north, "new", GLOBAL, 5);
  /* Made anew it is another, and empty; who was in the old one is not in it. */
  uint32_t again = open_in("north");
  CHECK(id_of(south, "north") > id);
  CHECK_INT(meaning(again, "s", DATABASE), -1);
  make(again, "s", DATABASE, 6);
  check_closed(north, "north");
  CHECK_INT(((unsigned char *)dsmr_segment_address(attached))[0], 2);
  CHECK_OK(dsmr_segment_detach(attached));
  CHECK_INT(count_segments(south), 4);
  dsmr_registry_info own;
  CHECK_OK(dsmr_registry_describe(north, &own, &check_error));
  CHECK_INT(own.database_id, id);
}

static void own_database_and_default_can_be_dropped(void) {
  uint32_t registry = check_open("r", 8, 8);
  make(registry, "s", DATABASE, 1);
  CHECK_INT(dsmr_database_drop(registry, "default", 7, &check_error), 1);
  CHECK_INT(dsmr_databases(registry, NULL, 0, &check_error), 0);
  check_closed(registry, "default");
  make(registry, "s", GLOBAL, 2);
  uint32_t other = check_open("r", 8, 8);
  CHECK_INT(meaning(other, "s", DATABASE), -1);
  CHECK_FAILS(dsmr_database_drop(other, "", 0, &check_error), DSMR_E_NAME_INVALID);
  CHECK_FAILS(dsmr_database_drop(other, "a/b", 3, &check_error), DSMR_E_NAME_INVALID);
  CHECK_FAILS(dsmr_database_drop(other + 1, "a", 1, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_databases(other + 1, NULL, 0, &check_error), DSMR_E_CLOSED);
}

/* The initialiser goes on writing undisturbed; its commit is refused, and leaves nothing. */
static void what_is_being_initialised_ends_with_its_commit(void) {
  uint32_t north = open_in("north");
  uint32_t south = open_in("south");
  uint32_t waiter = open_in("north");
  dsmr_segment_ticket ticket;
  dsmr_segment_ticket waiting;
  CHECK_INT(begin(north, "s", DATABASE, 0, &ticket), DSMR_INITIALIZE);
  pid_t child = check_fork();
  if (child == 0) {
    waiter = open_in("north");
    CHECK_INT(begin(waiter, "s", DATABASE, 0, &waiting), DSMR_WAIT);
    _exit(0);
  }
  CHECK_CHILD(child);
  CHECK_INT(dsmr_database_drop(south, "north", 5, &check_error), 1);
  CHECK_FAILS(begin(waiter, "s", DATABASE, 0, &waiting), DSMR_E_CLOSED);
  memset(check_bytes(&ticket), 1, SIZE);
  CHECK_FAILS(dsmr_segment_commit(ticket.segment, &check_error), DSMR_E_CLOSED);
  CHECK(strstr(check_error.message, "Database \"north\"") != NULL);
  CHECK_OK(dsmr_segment_abort(ticket.segment, &check_error));
  CHECK_INT(count_segments(south), 0);
  /* The same in the database made anew: it is not there, and can be made. */
  uint32_t again = open_in("north");
  CHECK_INT(begin(again, "s", DATABASE, 0, &ticket), DSMR_INITIALIZE);
}

static void databases_run_out_and_dropping_makes_room(void) {
  uint32_t registry = open_in("d");
  char name[16];
  for (uint32_t i = 1; i < DSMR_DATABASES_MAX; i++) {
    snprintf(name, sizeof name, "d%u", i);
    CHECK_OK(dsmr_registry_close(open_in(name)));
  }
  dsmr_registry_options options = {.timeout_ms = -1};
  CHECK_FAILS(dsmr_registry_open("r", 1, DIRECTORY, "more", 4, &options, &check_error),
              DSMR_E_REGISTRY_FULL);
  uint32_t id = id_of(registry, "d63");
  CHECK_INT(dsmr_database_drop(registry, "d7", 2, &check_error), 1);
  uint32_t more = open_in("more");
  CHECK_INT(id_of(registry, "more"), id + 1);
  CHECK_INT(dsmr_databases(more, NULL, 0, &check_error), DSMR_DATABASES_MAX);
}

/* Whoever listens for changes hears of it, also when the database was empty. */
static void dropping_a_database_is_a_change(void) {
  uint32_t registry = open_in("d");
  uint32_t seen = 0;
  (void)CHECK_OK(dsmr_registry_watch(registry, &seen, &check_error));
  uint32_t before = seen;
  CHECK_OK(dsmr_registry_close(open_in("e")));
  seen = before;
  CHECK_INT(dsmr_registry_watch(registry, &seen, &check_error), 0);
  before = seen;
  CHECK_INT(dsmr_database_drop(registry, "e", 1, &check_error), 1);
  CHECK_INT(dsmr_registry_watch(registry, &seen, &check_error), 0);
  CHECK(seen != before);
}

/* ---- damage --------------------------------------------------------------------------------- */

static void overwritten_database_ids_and_layouts_harm_nobody_else(void) {
  uint32_t registry = open_in("d");
  struct control_header *header = map_control();
  struct database_row *rows = (void *)((char *)header + header->databases_offset);
  static const uint32_t values[] = {1, 2, 77, UINT32_MAX, 0};
  for (uint32_t i = 0; i < sizeof values / sizeof values[0]; i++) {
    make(registry, "g", GLOBAL, 1);
    make(registry, "s", DATABASE, 2);
    entry_named(header, "s")->database_id = values[i];
    entry_named(header, "g")->layout = UINT64_MAX;
    dsmr_segment_ticket ticket;
    CHECK_FAILS(begin(registry, "g", GLOBAL, 1, &ticket), DSMR_E_LAYOUT_MISMATCH);
    CHECK_INT(begin(registry, "g", GLOBAL, 0, &ticket), DSMR_FOUND);
    bool is_own = values[i] == rows[0].id;
    CHECK_INT(begin(registry, "s", DATABASE, 0, &ticket), is_own ? DSMR_FOUND : DSMR_INITIALIZE);
    if (!is_own) CHECK_OK(dsmr_segment_commit(ticket.segment, &check_error));
    CHECK_OK(dsmr_segments(registry, NULL, 0, &check_error));
    CHECK_INT(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error), 1);
    CHECK_OK(dsmr_registry_close(registry));
    CHECK_INT(check_count(check_directory, ""), 0);
    registry = open_in("d");
    header = map_control();
    rows = (void *)((char *)header + header->databases_offset);
  }
  /* A name without its end, and a counter at its end: no id is 0, or given twice. */
  rows[0].name_length = UINT32_MAX;
  memset(rows[0].name, 'x', sizeof rows[0].name);
  dsmr_database_info info;
  CHECK_INT(dsmr_databases(registry, &info, 1, &check_error), 1);
  CHECK_INT(info.name_length, DSMR_NAME_SIZE - 1);
  uint32_t first = rows[0].id;
  header->last_database_id = UINT32_MAX;
  uint32_t other = open_in("other");
  CHECK(id_of(other, "other") != 0 && rows[1].id != first);
  /* A row that is gone: as if the database had been dropped; the next reaper clears up. */
  make(other, "s", DATABASE, 1);
  atomic_store(&rows[1].id, 0);
  check_closed(other, "other");
  pid_t child = check_fork();
  if (child == 0) {
    (void)open_in("other");
    _exit(0);
  }
  CHECK_CHILD(child);
  CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 0);
}

static void who_only_looks_makes_no_database(void) {
  dsmr_registry_options options = {.mode = DSMR_MODE_LOOK, .timeout_ms = -1};
  CHECK_FAILS(dsmr_registry_open("r", 1, DIRECTORY, NULL, 0, &options, &check_error),
              DSMR_E_NOT_FOUND);
  uint32_t north = open_in("north");
  make(north, "s", DATABASE, 1);
  uint32_t onlooker = (uint32_t)CHECK_OK(
      dsmr_registry_open("r", 1, DIRECTORY, NULL, 0, &options, &check_error));
  CHECK_INT(dsmr_databases(onlooker, NULL, 0, &check_error), 1);
  CHECK_INT(id_of(onlooker, "default"), 0);
  check_closed(onlooker, "default");
  make(onlooker, "s", GLOBAL, 2);
  CHECK_INT(meaning(north, "s", GLOBAL), 2);
  /* Made by somebody else: the onlooker stays outside. */
  uint32_t other = open_in("default");
  make(other, "s", DATABASE, 3);
  check_closed(onlooker, "default");
  CHECK_INT(meaning(other, "s", DATABASE), 3);
  /* One that is there is opened as ever. */
  uint32_t reader = (uint32_t)CHECK_OK(
      dsmr_registry_open("r", 1, DIRECTORY, NAME("north"), &options, &check_error));
  CHECK_INT(meaning(reader, "s", DATABASE), 1);
}

static const struct check_test tests[] = {
    TEST(a_name_means_something_else_in_each_scope_and_database),
    TEST(listings_tell_database_and_layout),
    TEST(a_scope_that_is_none_is_refused),
    TEST(layout_is_checked_when_both_know_one),
    TEST(made_without_a_layout_is_no_layout_asked_for),
    TEST(dropping_a_database_takes_its_segments_and_nothing_else),
    TEST(own_database_and_default_can_be_dropped),
    TEST(what_is_being_initialised_ends_with_its_commit),
    TEST(databases_run_out_and_dropping_makes_room),
    TEST(dropping_a_database_is_a_change),
    TEST(who_only_looks_makes_no_database),
    TEST(overwritten_database_ids_and_layouts_harm_nobody_else),
};
CHECK_MAIN(tests)

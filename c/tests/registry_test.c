/*
 * registry_test.c - registries: names, modes, databases, listings, destruction, handles.
 */
#include "check.h"

#include "layout.h"

#include <fcntl.h>
#include <pthread.h>

static int32_t open_mode(const char *name, uint32_t mode) {
  dsmr_registry_options options = {.mode = mode, .timeout_ms = -1};
  return dsmr_registry_open(NAME(name), DIRECTORY, NULL, 0, &options, &check_error);
}

/* ---- names ------------------------------------------------------------------------------ */

struct name_case {
  const char *name;
  uint32_t length;
  int32_t status; /* 0 = a good one */
};

#define TEN "0123456789"
#define SIXTY TEN TEN TEN TEN TEN TEN
static const struct name_case name_cases[] = {
    {"", 0, DSMR_E_NAME_INVALID},
    {NULL, 0, DSMR_E_NAME_INVALID},
    {NULL, 5, DSMR_E_NAME_INVALID},
    {"a", 1, 0},
    {SIXTY "123", 63, 0},
    {SIXTY "1234", 64, DSMR_E_NAME_TOO_LONG},
    {"a\0b", 3, DSMR_E_NAME_INVALID},
    {"\0", 1, DSMR_E_NAME_INVALID},
    {"a/b", 3, DSMR_E_NAME_INVALID},
    {"..", 2, 0}, /* the file's name has a prefix */
    {"\xc3\xa9", 2, 0},
    {"\xe2\x82\xac", 3, 0},
    {"\xf0\x9f\x98\x80", 4, 0},
    {"\xf4\x8f\xbf\xbf", 4, 0},                     /* U+10FFFF */
    {"\xf4\x90\x80\x80", 4, DSMR_E_NAME_INVALID},   /* one more */
    {"\xc0\xaf", 2, DSMR_E_NAME_INVALID},           /* overlong slash */
    {"\xc1\xbf", 2, DSMR_E_NAME_INVALID},           /* overlong */
    {"\xe0\x9f\xbf", 3, DSMR_E_NAME_INVALID},       /* overlong */
    {"\xf0\x8f\xbf\xbf", 4, DSMR_E_NAME_INVALID},   /* overlong */
    {"\xed\x9f\xbf", 3, 0},                         /* before the surrogates */
    {"\xed\xa0\x80", 3, DSMR_E_NAME_INVALID},       /* the first */
    {"\xed\xbf\xbf", 3, DSMR_E_NAME_INVALID},       /* the last */
    {"\xee\x80\x80", 3, 0},                         /* behind them */
    {"\x80", 1, DSMR_E_NAME_INVALID},               /* no first byte */
    {"a\xe2\x82", 3, DSMR_E_NAME_INVALID},          /* cut */
    {"\xe2\x82\x41", 3, DSMR_E_NAME_INVALID},
    {"\xf5\x80\x80\x80", 4, DSMR_E_NAME_INVALID},
    {"\xff", 1, DSMR_E_NAME_INVALID},
};

static void names_are_checked_alike_wherever_one_is_given(void) {
  uint32_t registry = check_open("names", 0, 0);
  for (size_t i = 0; i < sizeof name_cases / sizeof name_cases[0]; i++) {
    const struct name_case *c = &name_cases[i];
    dsmr_segment_request request = {.size = 8, .timeout_ms = -1};
    dsmr_segment_ticket ticket = {0};
    int32_t opened =
        dsmr_registry_open(c->name, c->length, DIRECTORY, NULL, 0, NULL, &check_error);
    CHECK_INT(opened < 0 ? opened : 0, c->status);
    int32_t begun =
        dsmr_segment_begin(registry, c->name, c->length, &request, &ticket, &check_error);
    CHECK_INT(begun, c->status == 0 ? DSMR_INITIALIZE : c->status);
    int32_t destroyed = dsmr_registry_destroy(c->name, c->length, DIRECTORY, &check_error);
    CHECK_INT(destroyed, c->status == 0 ? 1 : c->status);
    if (c->status == 0) {
      CHECK_OK(dsmr_segment_abort(ticket.segment, &check_error));
      CHECK_OK(dsmr_registry_close((uint32_t)opened));
    } else {
      CHECK_FAILS(dsmr_segment_drop(registry, c->name, c->length, 0, &check_error), c->status);
      CHECK_FAILS(dsmr_segment_lookup(registry, c->name, c->length, 0, &ticket, &check_error),
                  c->status);
      CHECK_INT(check_error.message_length, strlen(check_error.message));
    }
    if (c->length == 0) continue; /* no database name means "default" */
    int32_t based = c->name == NULL ? c->status
                                    : dsmr_registry_open("names", 5, DIRECTORY, c->name, c->length,
                                                         NULL, &check_error);
    CHECK_INT(based < 0 ? based : 0, c->status);
    if (based > 0) CHECK_OK(dsmr_registry_close((uint32_t)based));
  }
  CHECK_INT(check_count(check_directory, ""), 1);
}

/* ---- modes, options, directories ------------------------------------------------------------ */

static void modes_say_what_may_be_there(void) {
  CHECK_FAILS(open_mode("r", DSMR_MODE_ATTACH), DSMR_E_NOT_FOUND);
  CHECK_FAILS(open_mode("r", DSMR_MODE_LOOK), DSMR_E_NOT_FOUND);
  CHECK_INT(check_count(check_directory, ""), 0);
  CHECK_OK(open_mode("r", DSMR_MODE_CREATE));
  CHECK_FAILS(open_mode("r", DSMR_MODE_CREATE), DSMR_E_EXISTS);
  CHECK_OK(open_mode("r", DSMR_MODE_ATTACH));
  CHECK_OK(open_mode("r", DSMR_MODE_OPEN));
  CHECK_OK(open_mode("r", DSMR_MODE_LOOK));
  CHECK_FAILS(open_mode("r", DSMR_MODE_LOOK + 1), DSMR_E_SIZE_INVALID);
  CHECK_INT(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error), 1);
  CHECK_INT(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error), 0);
  CHECK_FAILS(open_mode("r", DSMR_MODE_ATTACH), DSMR_E_NOT_FOUND);
}

static void limits_out_of_range_are_refused_and_good_ones_kept(void) {
  dsmr_registry_options options = {.backend_count_max = 257, .timeout_ms = -1};
  CHECK_FAILS(dsmr_registry_open("r", 1, DIRECTORY, NULL, 0, &options, &check_error),
              DSMR_E_SIZE_INVALID);
  options = (dsmr_registry_options){.segment_count_max = 65537, .timeout_ms = -1};
  CHECK_FAILS(dsmr_registry_open("r", 1, DIRECTORY, NULL, 0, &options, &check_error),
              DSMR_E_SIZE_INVALID);
  CHECK_INT(check_count(check_directory, ""), 0);
  dsmr_registry_info info;
  CHECK_OK(dsmr_registry_describe(check_open("big", 256, 65536), &info, &check_error));
  CHECK_INT(info.backend_count_max, 256);
  CHECK_INT(info.segment_count_max, 65536);
  check_open("r", 7, 9);
  /* The limits of who comes later do not count. */
  uint32_t registry = check_open("r", 1, 1);
  CHECK_OK(dsmr_registry_describe(registry, &info, &check_error));
  CHECK_INT(info.backend_count_max, 7);
  CHECK_INT(info.segment_count_max, 9);
  CHECK_INT(info.backend_count, 2);
  CHECK_INT(info.creator_pid, getpid());
  CHECK_TEXT(info.name, "r");
  CHECK_TEXT(info.database, "default");
}

static void directory_must_be_an_absolute_path_that_is_there(void) {
  CHECK_FAILS(dsmr_registry_open("r", 1, "shm", 3, NULL, 0, NULL, &check_error),
              DSMR_E_NAME_INVALID);
  CHECK_FAILS(dsmr_registry_open("r", 1, NAME("/nowhere"), NULL, 0, NULL, &check_error),
              DSMR_E_NOT_FOUND);
  CHECK_FAILS(dsmr_registry_list(NAME("/nowhere"), NULL, 0, &check_error), DSMR_E_NOT_FOUND);
  char longest[2000];
  memset(longest, '/', sizeof longest);
  CHECK_FAILS(dsmr_registry_open("r", 1, longest, sizeof longest, NULL, 0, NULL, &check_error),
              DSMR_E_NAME_TOO_LONG);
  CHECK(setenv("DSMR_DIR", check_directory, 1) == 0);
  CHECK_OK(dsmr_registry_open("r", 1, NULL, 0, NULL, 0, NULL, &check_error));
  CHECK_INT(check_count(check_directory, "dsmr.r.r"), 1);
}

static void databases_have_stable_ids_and_end_at_64(void) {
  dsmr_registry_info info;
  uint32_t ids[64];
  for (uint32_t i = 0; i < 65; i++) {
    char name[16];
    snprintf(name, sizeof name, "database %u", i);
    int32_t registry = dsmr_registry_open("r", 1, DIRECTORY, NAME(name), NULL, &check_error);
    if (i == 64) {
      CHECK_FAILS(registry, DSMR_E_REGISTRY_FULL);
      break;
    }
    CHECK_OK(registry);
    CHECK_OK(dsmr_registry_describe((uint32_t)registry, &info, &check_error));
    CHECK_TEXT(info.database, name);
    ids[i] = info.database_id;
    for (uint32_t k = 0; k < i; k++) CHECK(ids[k] != ids[i]);
    CHECK_OK(dsmr_registry_close((uint32_t)registry));
  }
  /* The refused open has left no backend. */
  uint32_t again = (uint32_t)CHECK_OK(
      dsmr_registry_open("r", 1, DIRECTORY, NAME("database 40"), NULL, &check_error));
  CHECK_OK(dsmr_registry_describe(again, &info, &check_error));
  CHECK_INT(info.database_id, ids[40]);
  CHECK_INT(info.backend_count, 1);
}

/* ---- listing ----------------------------------------------------------------------------------- */

static void listing_names_every_registry_and_what_is_wrong_with_it(void) {
  check_open("good", 0, 0);
  check_create(check_open("good", 0, 0), "s", 8, DSMR_LIFETIME_REGISTRY, 1);
  char path[128];
  snprintf(path, sizeof path, "%s/dsmr.r.bad", check_directory);
  FILE *file = fopen(path, "w");
  CHECK(file != NULL && fputs("not a registry", file) >= 0 && fclose(file) == 0);
  snprintf(path, sizeof path, "%s/unrelated", check_directory);
  file = fopen(path, "w");
  CHECK(file != NULL && fclose(file) == 0);
  CHECK_INT(dsmr_registry_list(DIRECTORY, NULL, 0, &check_error), 2);
  dsmr_registry_info infos[3];
  CHECK_INT(dsmr_registry_list(DIRECTORY, infos, 3, &check_error), 2);
  const dsmr_registry_info *good = infos[0].status == 0 ? &infos[0] : &infos[1];
  const dsmr_registry_info *bad = infos[0].status == 0 ? &infos[1] : &infos[0];
  CHECK_TEXT(good->name, "good");
  CHECK_INT(good->status, 0);
  CHECK_INT(good->backend_count, 2);
  CHECK_INT(good->segment_count, 1);
  CHECK_TEXT(bad->name, "bad");
  CHECK_INT(bad->status, DSMR_E_CORRUPT);
  CHECK_INT(dsmr_registry_destroy("bad", 3, DIRECTORY, &check_error), 1);
  CHECK_INT(dsmr_registry_list(DIRECTORY, infos, 3, &check_error), 1);
}

/* ---- destruction --------------------------------------------------------------------------------- */

static void destroyed_registry_is_closed_to_all_but_their_memory_stays(void) {
  uint32_t registry = check_open("r", 0, 0);
  uint32_t segment = check_create(registry, "s", 64, DSMR_LIFETIME_REGISTRY, 5);
  dsmr_segment_ticket half;
  CHECK_INT(check_begin(registry, "half", 64, &half), DSMR_INITIALIZE);
  CHECK_INT(dsmr_registry_is_usable(registry), 1);
  CHECK_INT(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error), 1);
  CHECK_INT(check_count(check_directory, ""), 0);
  CHECK_INT(dsmr_registry_is_usable(registry), 0);
  CHECK_INT(dsmr_segment_is_current(segment), 0);
  CHECK_INT(*(unsigned char *)dsmr_segment_address(segment), 5);
  dsmr_segment_ticket ticket;
  dsmr_registry_info info;
  CHECK_FAILS(check_begin(registry, "s", 64, &ticket), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_segment_lookup(registry, "s", 1, 0, &ticket, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_segment_drop(registry, "s", 1, 0, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_segments(registry, NULL, 0, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_backends(registry, NULL, 0, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_registry_describe(registry, &info, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_segment_commit(half.segment, &check_error), DSMR_E_CLOSED);
  CHECK_INT(dsmr_segment_abort(half.segment, &check_error), 0);
  CHECK_OK(dsmr_segment_detach(segment));
  /* A new one of the name is another one, also while the old one's backends leave. */
  uint32_t fresh = check_open("r", 0, 0);
  check_create(fresh, "s", 32, DSMR_LIFETIME_REGISTRY, 6);
  CHECK_OK(dsmr_registry_close(registry));
  CHECK_INT(check_begin(fresh, "s", 32, &ticket), DSMR_FOUND);
  CHECK_INT(dsmr_backends(fresh, NULL, 0, &check_error), 1);
}

static void waiter_wakes_to_closed_when_the_registry_is_destroyed(void) {
  uint32_t registry = check_open("r", 0, 0);
  struct gate waits = gate_make();
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(registry, "s", 64, &ticket), DSMR_INITIALIZE);
  pid_t child = check_fork();
  if (child == 0) {
    uint32_t own = check_open("r", 0, 0);
    dsmr_segment_ticket other;
    CHECK_INT(check_begin(own, "s", 64, &other), DSMR_WAIT);
    gate_open(&waits);
    CHECK_FAILS(dsmr_get_named_segment(own, "s", 64, NULL, NULL, -1, NULL, &check_error),
                DSMR_E_CLOSED);
    _exit(0);
  }
  gate_pass(&waits);
  CHECK_INT(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error), 1);
  CHECK_CHILD(child);
}

/* What a process killed right behind destroy's commit point leaves. */
static void leave_half_destroyed(void) {
  uint32_t registry = check_open("r", 0, 0);
  check_create(registry, "s", 64, DSMR_LIFETIME_REGISTRY, 5);
  CHECK_OK(dsmr_registry_close(registry));
  char path[512];
  check_path("dsmr.r.", path);
  int fd = open(path, O_RDWR);
  uint32_t state = CONTROL_DESTROYED;
  CHECK(pwrite(fd, &state, sizeof state, offsetof(struct control_header, state)) == 4);
  close(fd);
  CHECK_INT(check_count(check_directory, ""), 2);
}

static void destroy_cut_short_is_finished_by_open_list_and_destroy(void) {
  leave_half_destroyed();
  CHECK_FAILS(open_mode("r", DSMR_MODE_ATTACH), DSMR_E_NOT_FOUND);
  CHECK_FAILS(open_mode("r", DSMR_MODE_LOOK), DSMR_E_NOT_FOUND);
  CHECK_INT(check_count(check_directory, ""), 0);
  leave_half_destroyed();
  uint32_t registry = (uint32_t)CHECK_OK(open_mode("r", DSMR_MODE_CREATE));
  CHECK_INT(dsmr_segments(registry, NULL, 0, &check_error), 0);
  CHECK_INT(check_count(check_directory, ""), 1);
  CHECK_INT(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error), 1);
  leave_half_destroyed();
  CHECK_INT(dsmr_registry_list(DIRECTORY, NULL, 0, &check_error), 0);
  CHECK_INT(check_count(check_directory, ""), 0);
  leave_half_destroyed();
  CHECK_INT(dsmr_registry_destroy("r", 1, DIRECTORY, &check_error), 1);
  CHECK_INT(check_count(check_directory, ""), 0);
}

/* Names that begin alike, one even like another's segment files. */
static void destroy_leaves_other_registries_files_alone(void) {
  const char *names[] = {"r", "r2", "r.0123456789abcdef", "r.0123456789abcdef.0123456789abcdef"};
  for (size_t i = 0; i < 4; i++) {
    check_create(check_open(names[i], 0, 0), "s", 8, DSMR_LIFETIME_REGISTRY, 1);
  }
  for (int i = 0; i < 4; i++) {
    CHECK_INT(check_count(check_directory, ""), 8 - 2 * i);
    CHECK_INT(dsmr_registry_destroy(NAME(names[i]), DIRECTORY, &check_error), 1);
  }
  CHECK_INT(check_count(check_directory, ""), 0);
}

/* ---- handles --------------------------------------------------------------------------------------- */

static void check_all_closed(uint32_t registry, uint32_t segment) {
  dsmr_segment_ticket ticket;
  CHECK_FAILS(dsmr_registry_is_usable(registry), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_registry_close(registry), DSMR_E_CLOSED);
  CHECK_FAILS(check_begin(registry, "s", 8, &ticket), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_backends(registry, NULL, 0, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_segment_is_current(segment), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_segment_commit(segment, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_segment_abort(segment, &check_error), DSMR_E_CLOSED);
  CHECK_FAILS(dsmr_segment_detach(segment), DSMR_E_CLOSED);
  CHECK(dsmr_segment_address(segment) == NULL);
}

static void stale_and_made_up_handles_are_closed(void) {
  check_all_closed(0, 0);
  check_all_closed(UINT32_MAX, 1u << 16);
  uint32_t registry = check_open("r", 0, 0);
  uint32_t segment = check_create(registry, "s", 8, DSMR_LIFETIME_REGISTRY, 1);
  /* Each kind of handle is good for its own calls only. */
  check_all_closed(segment, registry);
  check_all_closed(registry + 1, segment + (1u << 16));
  CHECK_OK(dsmr_segment_detach(segment));
  check_all_closed(segment, segment);
  segment = check_create(registry, "t", 8, DSMR_LIFETIME_REGISTRY, 1);
  CHECK_OK(dsmr_registry_close(registry));
  check_all_closed(registry, segment);
  for (int i = 0; i < 70000; i++) {
    uint32_t next = check_open("r", 1, 1);
    CHECK(next != registry);
    CHECK_OK(dsmr_registry_close(next));
    if (CHECK_TSAN && i == 1000) break;
  }
}

struct handles {
  uint32_t registry;
  uint32_t segment;
};

static void *use_as_stranger(void *argument) {
  const struct handles *handles = argument;
  dsmr_segment_ticket ticket;
  CHECK_FAILS(dsmr_registry_is_usable(handles->registry), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_registry_close(handles->registry), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(check_begin(handles->registry, "s", 8, &ticket), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_segment_is_current(handles->segment), DSMR_E_UNSUPPORTED);
  CHECK_FAILS(dsmr_segment_detach(handles->segment), DSMR_E_UNSUPPORTED);
  CHECK(dsmr_segment_address(handles->segment) == NULL);
  return NULL;
}

static void handles_of_another_thread_are_unsupported(void) {
  struct handles handles;
  handles.registry = check_open("r", 0, 0);
  handles.segment = check_create(handles.registry, "s", 8, DSMR_LIFETIME_REGISTRY, 1);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, use_as_stranger, &handles) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK_INT(dsmr_registry_is_usable(handles.registry), 1);
  CHECK_INT(dsmr_segment_is_current(handles.segment), 1);
}

/* Linux since 4.14; qemu-user before 8 says yes and does not. */
static bool memory_is_wiped_by_fork(void) {
  void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  if (madvise(memory, 4096, MADV_WIPEONFORK) != 0) return false;
  *(volatile char *)memory = 1;
  pid_t child = check_fork();
  if (child == 0) _exit(*(volatile char *)memory);
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  munmap(memory, 4096);
  return status == 0;
}

static void forked_child_inherits_no_handles_and_disturbs_nobody(void) {
  if (!memory_is_wiped_by_fork()) check_skip("this system does not wipe memory in forked children");
  uint32_t registry = check_open("r", 0, 0);
  uint32_t segment = check_create(registry, "s", 8, DSMR_LIFETIME_ATTACHED, 1);
  int descriptors = check_descriptors();
  pid_t child = check_fork();
  if (child == 0) {
    check_all_closed(registry, segment);
    uint32_t own = check_open("r", 0, 0);
    /* The parent's description is closed, ours is there instead. */
    CHECK_INT(check_descriptors(), descriptors);
    dsmr_segment_ticket ticket;
    CHECK_INT(check_begin(own, "s", 0, &ticket), DSMR_FOUND);
    CHECK_INT(dsmr_backends(own, NULL, 0, &check_error), 2);
    CHECK_OK(dsmr_registry_close(own));
    _exit(0);
  }
  CHECK_CHILD(child);
  CHECK_INT(dsmr_registry_is_usable(registry), 1);
  CHECK_INT(dsmr_segment_is_current(segment), 1);
  CHECK_INT(dsmr_backends(registry, NULL, 0, &check_error), 1);
}

/* The child's bell must not be linked to the parent's: musl keeps the parent's list in it. */
static void forked_child_that_dies_leaves_its_parent_whole(void) {
  uint32_t registry = check_open("r", 0, 0);
  struct gate opened = gate_make();
  pid_t child = check_fork();
  if (child == 0) {
    (void)check_open("r", 0, 0);
    gate_open(&opened);
    for (;;) pause();
  }
  gate_pass(&opened);
  CHECK_KILL(child);
  CHECK_INT(dsmr_backends(registry, NULL, 0, &check_error), 1);
  CHECK_OK(dsmr_registry_close(registry));
}

static void *open_and_close(void *argument) {
  (void)argument;
  CHECK_OK(dsmr_registry_close(check_open("r", 0, 0)));
  return NULL;
}

static void *end_after_main(void *argument) {
  CHECK(pthread_join(*(pthread_t *)argument, NULL) == 0);
  CHECK_INT(dsmr_backends(check_open("r", 0, 0), NULL, 0, &check_error), 2);
  _exit(0);
}

/* The thread that forked has the parent's list of backends: it must not close them when it ends. */
static void forked_child_whose_other_threads_come_first_leaves_its_parent_whole(void) {
  if (CHECK_TSAN) check_skip("ThreadSanitizer does not know the threads of a forked child");
  uint32_t registry = check_open("r", 0, 0);
  pid_t child = check_fork();
  if (child == 0) {
    static pthread_t self;
    pthread_t thread;
    self = pthread_self();
    CHECK(pthread_create(&thread, NULL, open_and_close, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    (void)check_open("r", 0, 0);
    CHECK(pthread_create(&thread, NULL, end_after_main, &self) == 0);
    pthread_exit(NULL);
  }
  CHECK_CHILD(child);
  CHECK_INT(dsmr_registry_is_usable(registry), 1);
  CHECK_INT(dsmr_backends(registry, NULL, 0, &check_error), 1);
  CHECK_OK(dsmr_registry_close(registry));
}

static void exported_numbers_are_whole_at_any_capacity(void) {
  static char text[65536];
  static char part[65536];
  int32_t length = dsmr_abi(text, sizeof text);
  CHECK(length > 500 && length < (int32_t)sizeof text);
  CHECK_INT(strlen(text), length);
  CHECK(strstr(text, "DSMR_E_CLOSED -5025\n") != NULL);
  CHECK(strstr(text, "dsmr_error 0 520\n") == NULL || sizeof(dsmr_error) == 520);
  CHECK_INT(dsmr_abi(NULL, 0), length);
  for (uint32_t capacity = 0; capacity <= (uint32_t)length; capacity += 97) {
    memset(part, 0x55, sizeof part);
    CHECK_INT(dsmr_abi(part, capacity), length);
    CHECK(memcmp(part, text, capacity) == 0);
    CHECK_INT(part[capacity], 0x55);
  }
  CHECK_TEXT(dsmr_status_name(DSMR_E_TIMEOUT), "TIMEOUT");
  CHECK_TEXT(dsmr_status_name(1), "");
}

static const struct check_test tests[] = {
    TEST(names_are_checked_alike_wherever_one_is_given),
    TEST(modes_say_what_may_be_there),
    TEST(limits_out_of_range_are_refused_and_good_ones_kept),
    TEST(directory_must_be_an_absolute_path_that_is_there),
    TEST(databases_have_stable_ids_and_end_at_64),
    TEST(listing_names_every_registry_and_what_is_wrong_with_it),
    TEST(destroyed_registry_is_closed_to_all_but_their_memory_stays),
    TEST(waiter_wakes_to_closed_when_the_registry_is_destroyed),
    TEST(destroy_cut_short_is_finished_by_open_list_and_destroy),
    TEST(destroy_leaves_other_registries_files_alone),
    TEST(stale_and_made_up_handles_are_closed),
    TEST(handles_of_another_thread_are_unsupported),
    TEST(forked_child_inherits_no_handles_and_disturbs_nobody),
    TEST(forked_child_that_dies_leaves_its_parent_whole),
    TEST(forked_child_whose_other_threads_come_first_leaves_its_parent_whole),
    TEST(exported_numbers_are_whole_at_any_capacity),
};
CHECK_MAIN(tests)

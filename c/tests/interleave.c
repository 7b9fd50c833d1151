/*
 * interleave.c - a C program that takes part in the TypeScript tests.
 *
 * It reads commands, one a line, and answers each with one line of JSON:
 *
 *   open DIRECTORY NAME      attaches to a registry
 *   get SEGMENT SIZE BYTE    gets a segment; if it is to be initialised, fills it with BYTE
 *   hold SEGMENT SIZE BYTE   the same, but its init callback reports, and reads a line first
 *   fail SEGMENT SIZE        the same, but its init callback fails
 *   add INDEX VALUE          adds to a word of the last segment, atomically
 *   acquire MODE             takes the last segment's lock: exclusive or shared
 *   release                  lets it go
 *   fork                     forks a child that only keeps what it inherits; answers its pid
 *   drop SEGMENT             removes the segment's name
 *   detach                   detaches the last segment
 *   close                    leaves the registry
 *   freeze DIRECTORY NAME    takes a registry's table lock, as if stopped inside a change
 *   thaw                     lets it go
 *
 * It ends when its input ends. The first line that it prints is its pid.
 */
#include "dsmr.h"
#include "layout.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_SIZE 4352

static uint32_t registry;
static uint32_t segment;

enum init_kind { INIT_FILL, INIT_HOLD, INIT_FAIL };

struct init {
  enum init_kind kind;
  int byte;
  bool has_run;
  bool was_zero;
};

static void fail(int32_t status, const dsmr_error *error) {
  printf("{\"ok\":false,\"code\":\"%s\",\"message\":\"", dsmr_status_name(status));
  for (const char *c = error->message; *c != '\0'; c++) {
    if (*c == '"' || *c == '\\') putchar('\\');
    putchar(*c);
  }
  printf("\"}\n");
}

static bool is_zero(const unsigned char *bytes, uint64_t size) {
  for (uint64_t i = 0; i < size; i++) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

static int32_t initialise(void *address, uint64_t size, void *argument) {
  struct init *init = argument;
  init->has_run = true;
  init->was_zero = is_zero(address, size);
  if (init->kind == INIT_FAIL) return -7;
  if (init->kind == INIT_HOLD) {
    char line[LINE_SIZE];
    printf("{\"holding\":true}\n");
    if (fgets(line, sizeof line, stdin) == NULL) exit(1);
  }
  memset(address, init->byte, (size_t)size);
  return 0;
}

static void get(const char *name, uint64_t size, struct init init) {
  dsmr_error error = {0};
  bool found = false;
  int32_t got = dsmr_get_named_segment(registry, name, size, initialise, &init, -1, &found, &error);
  if (got < 0) {
    fail(got, &error);
    return;
  }
  segment = (uint32_t)got;
  const _Atomic int32_t *words = dsmr_segment_address(segment);
  printf("{\"ok\":true,\"found\":%s,\"size\":%" PRIu64 ",\"initialised\":%s,\"wasZero\":%s,"
         "\"value\":%" PRId32 "}\n",
         found ? "true" : "false", dsmr_segment_size(segment), init.has_run ? "true" : "false",
         init.was_zero ? "true" : "false", atomic_load(words));
}

static void add(uint64_t index, int32_t value) {
  _Atomic int32_t *words = dsmr_segment_address(segment);
  if (words == NULL || (index + 1) * sizeof *words > dsmr_segment_size(segment)) {
    printf("{\"ok\":false,\"message\":\"no such word\"}\n");
    return;
  }
  printf("{\"ok\":true,\"value\":%" PRId32 "}\n", atomic_fetch_add(&words[index], value) + value);
}

static void answer(int32_t status, const dsmr_error *error) {
  if (status < 0) {
    fail(status, error);
  } else {
    printf("{\"ok\":true,\"value\":%" PRId32 "}\n", status);
  }
}

static void acquire(const char *mode_name) {
  dsmr_error error = {0};
  uint32_t mode = strcmp(mode_name, "shared") == 0 ? DSMR_SHARED : DSMR_EXCLUSIVE;
  int32_t lock = dsmr_lock_of_segment(segment, &error);
  int32_t outcome = lock;
  while (lock >= 0) {
    outcome = dsmr_lock_acquire((uint32_t)lock, mode, -1);
    if (outcome != DSMR_LOCK_BUSY) break;
  }
  if (outcome < 0) {
    fail(outcome, &error);
    return;
  }
  bool is_abandoned = outcome == DSMR_LOCK_ABANDONED;
  if (is_abandoned) (void)dsmr_lock_mark_consistent((uint32_t)lock);
  printf("{\"ok\":true,\"abandoned\":%s}\n", is_abandoned ? "true" : "false");
}

static void release(void) {
  dsmr_error error = {0};
  int32_t lock = dsmr_lock_of_segment(segment, &error);
  answer(lock < 0 ? lock : dsmr_lock_release((uint32_t)lock), &error);
}

/* The test kills the child; a minute is for the case that it cannot. */
static void fork_keeper(void) {
  pid_t child = fork();
  if (child == 0) {
    for (int fd = 0; fd < 3; fd++) close(fd);
    sleep(60);
    _exit(0);
  }
  printf("{\"ok\":%s,\"value\":%ld}\n", child < 0 ? "false" : "true", (long)child);
}

static void open_registry(const char *directory, const char *name) {
  dsmr_error error = {0};
  dsmr_registry_options options = {.timeout_ms = -1, .label = "interleave"};
  int32_t opened =
      dsmr_registry_open(name, (uint32_t)strlen(name), directory, (uint32_t)strlen(directory), NULL,
                         0, &options, &error);
  if (opened < 0) {
    fail(opened, &error);
    return;
  }
  registry = (uint32_t)opened;
  printf("{\"ok\":true}\n");
}

/* The kernel holds the table lock by the open file, whatever its owner does. */
static int frozen = -1;

static void freeze(const char *directory, const char *name) {
  char path[LINE_SIZE];
  (void)snprintf(path, sizeof path, "%s/dsmr.r.%s", directory, name);
#ifdef F_OFD_SETLK
  frozen = open(path, O_RDWR | O_CLOEXEC);
  struct flock lock = {
      .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BYTE_TABLE, .l_len = 1};
  int outcome = -1;
  while (frozen >= 0 && (outcome = fcntl(frozen, F_OFD_SETLK, &lock)) != 0) usleep(1000);
  printf("{\"ok\":%s}\n", outcome == 0 ? "true" : "false");
#else
  printf("{\"ok\":false}\n");
#endif
}

static void thaw(void) {
  close(frozen);
  frozen = -1;
  printf("{\"ok\":true}\n");
}

static void run(char *line) {
  char *words[4] = {"", "", "", ""};
  char *rest = NULL;
  char *word = strtok_r(line, " \n", &rest);
  for (int i = 0; i < 4 && word != NULL; i++, word = strtok_r(NULL, " \n", &rest)) words[i] = word;
  dsmr_error error = {0};
  struct init init = {.kind = INIT_FILL, .byte = atoi(words[3])};
  uint64_t size = strtoull(words[2], NULL, 10);
  if (strcmp(words[0], "open") == 0) {
    open_registry(words[1], words[2]);
  } else if (strcmp(words[0], "get") == 0) {
    get(words[1], size, init);
  } else if (strcmp(words[0], "hold") == 0) {
    init.kind = INIT_HOLD;
    get(words[1], size, init);
  } else if (strcmp(words[0], "fail") == 0) {
    init.kind = INIT_FAIL;
    get(words[1], size, init);
  } else if (strcmp(words[0], "add") == 0) {
    add(strtoull(words[1], NULL, 10), atoi(words[2]));
  } else if (strcmp(words[0], "acquire") == 0) {
    acquire(words[1]);
  } else if (strcmp(words[0], "release") == 0) {
    release();
  } else if (strcmp(words[0], "fork") == 0) {
    fork_keeper();
  } else if (strcmp(words[0], "drop") == 0) {
    answer(dsmr_segment_drop(registry, words[1], (uint32_t)strlen(words[1]), 0, &error), &error);
  } else if (strcmp(words[0], "detach") == 0) {
    answer(dsmr_segment_detach(segment), &error);
  } else if (strcmp(words[0], "freeze") == 0) {
    freeze(words[1], words[2]);
  } else if (strcmp(words[0], "thaw") == 0) {
    thaw();
  } else if (strcmp(words[0], "close") == 0) {
    answer(dsmr_registry_close(registry), &error);
  } else {
    printf("{\"ok\":false,\"message\":\"no such command\"}\n");
  }
}

int main(void) {
  /* A line at a time, also into a pipe. */
  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("{\"pid\":%ld}\n", (long)getpid());
  char line[LINE_SIZE];
  while (fgets(line, sizeof line, stdin) != NULL) run(line);
  return 0;
}

/*
 * tracer.h - stops a child at any one instruction of a stretch of code, and kills it there.
 *
 * The child brackets the stretch by two int3 instructions. One child is single-stepped from
 * the first to the second, which gives the list of the addresses it executes. To kill another
 * child at the n-th of them, that one runs at full speed to a breakpoint: the k-th execution
 * of the address, if the address stands k times among the first n; where k is large, to one
 * a little before, and in steps from there. Stepping each child all the way would take time
 * in the square of n. All children are forks of one process, so an address is the same in
 * each.
 *
 * x86-64 only. On aarch64 a step ends a load-exclusive's reservation, so code stepped through
 * such a loop never leaves it.
 */
#ifndef TRACER_H
#define TRACER_H

#include "check.h"

#if defined(__x86_64__) && defined(__linux__)
#define TRACER_WORKS 1

#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#define TRACER_STOP() __asm__ volatile("int3" ::: "memory")

struct trace_point {
  uint64_t address;
  uint32_t occurrence; /* how many of the points up to this one have this address */
  bool is_last;        /* ... and no further one has */
  uint32_t iteration;  /* of a string instruction, which stands there once for each word */
  bool is_own;         /* the library's code, not libc's */
  bool is_boundary;    /* next to a system call */
};

struct trace {
  struct trace_point *points;
  size_t count;
};

/* Where the program's own code lies: the library's and the test's. */
struct tracer_text {
  uint64_t start;
  uint64_t end;
};

static inline struct tracer_text tracer_own_text(void) {
  struct tracer_text text = {0, 0};
  uint64_t inside = (uint64_t)(uintptr_t)&dsmr_registry_open;
  char line[512];
  FILE *maps = fopen("/proc/self/maps", "r");
  CHECK(maps != NULL);
  while (text.end == 0 && fgets(line, sizeof line, maps) != NULL) {
    char *rest = NULL;
    uint64_t start = strtoull(line, &rest, 16);
    uint64_t end = strtoull(rest + 1, NULL, 16);
    if (start <= inside && inside < end) text = (struct tracer_text){start, end};
  }
  fclose(maps);
  CHECK(text.end != 0);
  return text;
}

static inline uint64_t tracer_address(pid_t child) {
  errno = 0;
  long value = ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, regs.rip), NULL);
  CHECK(errno == 0);
  return (uint64_t)value;
}

static inline bool tracer_peek(pid_t child, uint64_t address, uint64_t *word) {
  errno = 0;
  long value = ptrace(PTRACE_PEEKTEXT, child, address, NULL);
  *word = (uint64_t)value;
  return errno == 0;
}

/* Lets the child go on (PTRACE_CONT) or do one instruction; it must come to a SIGTRAP. */
static inline void tracer_go(pid_t child, int how) {
  int status = 0;
  if (how == PTRACE_CONT) CHECK(ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
  else CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
  CHECK(waitpid(child, &status, 0) == child);
  if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP) return;
  CHECK_INT(status, SIGTRAP << 8 | 0x7f);
}

/* A forked child stands at its first TRACER_STOP. */
static inline void tracer_meet(pid_t child) {
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK_INT(status, SIGTRAP << 8 | 0x7f);
  CHECK(ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_EXITKILL) == 0);
}

/* Steps the child from its first stop to the second. It is left there. */
static inline struct trace tracer_record(pid_t child, struct tracer_text own) {
  size_t room = 1u << 16;
  struct trace trace = {malloc(room * sizeof *trace.points), 0};
  bool was_call = false;
  for (;;) {
    uint64_t address = tracer_address(child);
    uint64_t code = 0;
    CHECK(tracer_peek(child, address, &code));
    if ((code & 0xff) == 0xcc) break;
    bool is_call = (code & 0xffff) == 0x050f; /* syscall */
    if (trace.count == room) {
      room *= 2;
      trace.points = realloc(trace.points, room * sizeof *trace.points);
    }
    CHECK(trace.points != NULL);
    trace.points[trace.count++] =
        (struct trace_point){.address = address,
                             .is_own = address >= own.start && address < own.end,
                             .is_boundary = is_call || was_call};
    was_call = is_call;
    tracer_go(child, PTRACE_SINGLESTEP);
  }
  /* Occurrences, by a hash table of counts that is thrown away. */
  size_t size = 4 * room;
  struct trace_point *counts = calloc(size, sizeof *counts);
  CHECK(counts != NULL);
  for (size_t n = 0; n < trace.count; n++) {
    size_t at = trace.points[n].address * UINT64_C(11400714819323198485) % size;
    while (counts[at].occurrence != 0 && counts[at].address != trace.points[n].address) {
      at = (at + 1) % size;
    }
    counts[at].address = trace.points[n].address;
    trace.points[n].occurrence = ++counts[at].occurrence;
    if (n > 0 && trace.points[n].address == trace.points[n - 1].address) {
      trace.points[n].iteration = trace.points[n - 1].iteration + 1;
    }
  }
  for (size_t n = trace.count; n-- > 0;) {
    size_t at = trace.points[n].address * UINT64_C(11400714819323198485) % size;
    while (counts[at].address != trace.points[n].address) at = (at + 1) % size;
    trace.points[n].is_last = trace.points[n].occurrence == counts[at].occurrence;
  }
  free(counts);
  return trace;
}

/*
 * The point to break at on the way to `n`: where few executions of its address come before
 * and few steps after. In a loop that is a point before it.
 */
static inline size_t tracer_anchor(const struct trace *trace, size_t n) {
  const size_t stop_cost = 3; /* of running to a breakpoint, in steps */
  size_t best = n;
  size_t best_cost = stop_cost * trace->points[n].occurrence;
  for (size_t m = n; m-- > 0 && n - m < best_cost;) {
    size_t cost = stop_cost * trace->points[m].occurrence + (n - m);
    if (cost >= best_cost) continue;
    best = m;
    best_cost = cost;
  }
  return best;
}

/* Runs the child to the point's execution. False if it came to its second stop before. */
static inline bool tracer_run_to(pid_t child, const struct trace_point *point) {
  uint64_t code = 0;
  CHECK(tracer_peek(child, point->address, &code));
  uint64_t trap = (code & ~UINT64_C(0xff)) | 0xcc;
  for (uint32_t hits = 0;;) {
    CHECK(ptrace(PTRACE_POKETEXT, child, point->address, trap) == 0);
    tracer_go(child, PTRACE_CONT);
    if (tracer_address(child) != point->address + 1) return false;
    CHECK(ptrace(PTRACE_POKETEXT, child, point->address, code) == 0);
    CHECK(ptrace(PTRACE_POKEUSER, child, offsetof(struct user, regs.rip), point->address) == 0);
    if (++hits == point->occurrence) return true;
    tracer_go(child, PTRACE_SINGLESTEP);
  }
}

/*
 * Runs the child, which stands at its first stop, to point `n` and kills it there. False if
 * this run took another path, on which there is no such point: then it is killed where the
 * paths part, or at its second stop.
 */
static inline bool tracer_kill_at(pid_t child, const struct trace *trace, size_t n) {
  size_t at = tracer_anchor(trace, n);
  bool is_exact = at == 0 || tracer_run_to(child, &trace->points[at]);
  while (is_exact && at < n) {
    tracer_go(child, PTRACE_SINGLESTEP);
    is_exact = tracer_address(child) == trace->points[++at].address;
  }
  CHECK_KILL(child);
  return is_exact;
}

#else
#define TRACER_WORKS 0
#endif

#endif

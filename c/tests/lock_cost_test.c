/*
 * lock_cost_test.c - what an uncontended lock costs: one atomic read-modify-write to take, one
 * to release, and no system call. Counted, not timed: a child is stepped through the pair, and
 * the instructions that it executes are looked at.
 */
#include "tracer.h"

#if TRACER_WORKS

#define LOCKS 4u
#include "party.h"

static struct place here;
static uint32_t lock;
static uint32_t mode;

struct cost {
  int instructions;
  int atomics; /* locked, or an exchange with memory, which is locked without saying so */
  int calls;   /* of the system */
};

static void add_cost(struct cost *cost, const unsigned char *code) {
  bool is_locked = false;
  cost->instructions++;
  /* Legacy prefixes, then REX. */
  for (;; code++) {
    static const unsigned char prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
                                             0x66, 0x67, 0xf0, 0xf2, 0xf3};
    if (memchr(prefixes, *code, sizeof prefixes) == NULL) break;
    if (*code == 0xf0) is_locked = true;
  }
  if ((*code & 0xf0) == 0x40) code++;
  bool is_exchange = (code[0] == 0x86 || code[0] == 0x87) && code[1] >> 6 != 3;
  if (is_locked || is_exchange) cost->atomics++;
  bool is_syscall = code[0] == 0x0f && (code[1] == 0x05 || code[1] == 0x34);
  if (is_syscall || (code[0] == 0xcd && code[1] == 0x80)) cost->calls++;
}

static struct cost cost_of(void (*act)(void)) {
  pid_t child = check_fork();
  if (child == 0) {
    place_enter(&here);
    /* The first time is for what is done once: relocations, the cell of the journal. */
    act();
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    TRACER_STOP();
    act();
    TRACER_STOP();
    _exit(1);
  }
  tracer_meet(child);
  struct trace trace = tracer_record(child, tracer_own_text());
  struct cost cost = {0};
  for (size_t i = 0; i < trace.count; i++) {
    /* A longest instruction has 15 bytes. */
    union {
      uint64_t words[2];
      unsigned char bytes[16];
    } code = {{0, 0}};
    CHECK(tracer_peek(child, trace.points[i].address, &code.words[0]));
    CHECK(tracer_peek(child, trace.points[i].address + 8, &code.words[1]));
    add_cost(&cost, code.bytes);
  }
  CHECK_KILL(child);
  free(trace.points);
  return cost;
}

static void pair(void) {
  (void)dsmr_lock_acquire(here.locks[lock], mode, -1);
  (void)dsmr_lock_release(here.locks[lock]);
}

static void try_pair(void) {
  (void)dsmr_lock_try(here.locks[lock], mode);
  (void)dsmr_lock_release(here.locks[lock]);
}

/* The counting itself: what is known to have some is seen to have them. */
static void several_and_a_call(void) {
  static _Atomic uint32_t word;
  (void)atomic_exchange(&word, 1);
  (void)atomic_fetch_add(&word, 1);
  uint32_t expected = 2;
  (void)atomic_compare_exchange_strong(&word, &expected, 3);
  (void)os_futex_wake(&word, 1);
}

static void uncontended_pair_is_two_atomic_operations_and_no_system_call(void) {
  if (CHECK_TSAN) check_skip("single-steps children: ThreadSanitizer watches threads");
  place_enter(&here);
  struct cost known = cost_of(several_and_a_call);
  CHECK_INT(known.atomics, 3);
  CHECK_INT(known.calls, 1);
  for (lock = 0; lock < 2; lock++) {
    for (mode = DSMR_SHARED; mode <= DSMR_EXCLUSIVE; mode++) {
      for (int is_try = 0; is_try < 2; is_try++) {
        struct cost cost = cost_of(is_try == 1 ? try_pair : pair);
        CHECK(cost.instructions > 20);
        CHECK_INT(cost.calls, 0);
        CHECK_INT(cost.atomics, 2);
        if (lock == 0) {
          printf("      %s, %s: %d instructions, %d of them atomic, %d system calls\n",
                 mode == DSMR_SHARED ? "shared" : "exclusive", is_try == 1 ? "try" : "acquire",
                 cost.instructions, cost.atomics, cost.calls);
        }
      }
    }
  }
}

#else

static void uncontended_pair_is_two_atomic_operations_and_no_system_call(void) {
  check_skip("single-stepping is written for Linux on x86-64");
}

#endif

static const struct check_test tests[] = {
    TEST(uncontended_pair_is_two_atomic_operations_and_no_system_call),
};
CHECK_MAIN(tests)

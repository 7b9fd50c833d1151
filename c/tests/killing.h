/*
 * killing.h - one child killed at each instruction of an operation, one after the other.
 *
 * A life makes the world, has a child run the operation in it, and examines what is left. The
 * first life's child is only recorded, and killed at the end; each further one's is killed in
 * front of one instruction of that record. What a life returns grows with the operation: where
 * one killed at a later instruction has less than one killed at an earlier, it is torn.
 */
#ifndef KILLING_H
#define KILLING_H

#include "tracer.h"

#if TRACER_WORKS

/*
 * UBSan's checks treble the library's code, and touch nothing shared; and a libc that is linked
 * in is taken for ours. The plain build tries every instruction, these a sample.
 */
#if defined(__has_feature)
#if __has_feature(undefined_behavior_sanitizer)
#define KILLING_SAMPLES 1
#endif
#endif
#ifndef KILLING_SAMPLES
#define KILLING_SAMPLES CHECK_LIBC_INSIDE
#endif
/* How much sparser where libc is linked in. */
#define KILLING_STEP_FACTOR (CHECK_LIBC_INSIDE ? 4 : 1)

struct killing {
  struct trace trace;
  size_t point;
  bool is_recording;
  bool is_exact; /* the child was killed at just that point */
  /* What is tried by default: every so-many-th instruction, and the library's own ones: each
   * time that they are executed, or the first and the last time. */
  uint32_t step;
  bool skips_repeated;
};

/* Returns how far the operation has come, as far as can be seen; 0 = no effect yet. */
typedef uint32_t (*killing_life)(const void *operation, struct killing *killing);

static inline bool killing_tries_all(void) {
  const char *all = getenv("DSMR_KILL_ALL");
  return all != NULL && all[0] == '1';
}

/* A child that has prepared itself and stands in front of `act`. */
static inline pid_t killing_start(void (*prepare)(void), void (*act)(void)) {
  pid_t child = check_fork();
  if (child == 0) {
    if (prepare != NULL) prepare();
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    TRACER_STOP();
    act();
    TRACER_STOP();
    _exit(1);
  }
  tracer_meet(child);
  return child;
}

/* Has the child run to where it is to die, and kills it there. */
static inline void killing_end(struct killing *killing, pid_t child) {
  if (killing->is_recording) {
    killing->trace = tracer_record(child, tracer_own_text());
    CHECK_KILL(child);
  } else {
    killing->is_exact = tracer_kill_at(child, &killing->trace, killing->point);
  }
}

static inline bool killing_is_due(const struct killing *killing) {
  const struct trace_point *point = &killing->trace.points[killing->point];
  /* libc clears kilobytes by one instruction; nothing of ours that is shared is as large. */
  if (point->iteration >= 64) return false;
  if (killing_tries_all() || point->is_boundary || killing->point % killing->step == 0) return true;
  if (KILLING_SAMPLES || !point->is_own || point->iteration != 0) return false;
  return !killing->skips_repeated || point->occurrence == 1 || point->is_last;
}

/* Lives once for each point. With `has_effect` it must be there in the end. */
static inline void killing_run(killing_life life, const void *operation, bool has_effect,
                               uint32_t step, bool skips_repeated) {
  struct killing killing = {
      .is_recording = true, .step = step * KILLING_STEP_FACTOR, .skips_repeated = skips_repeated};
  uint32_t effect = life(operation, &killing);
  CHECK(effect != 0 || !has_effect);
  CHECK(killing.trace.count > 20);
  killing.is_recording = false;
  size_t tried = 0;
  size_t missed = 0;
  size_t own = 0;
  size_t first_effect = 0;
  uint32_t reached = 0;
  for (killing.point = 0; killing.point < killing.trace.count; killing.point++) {
    const struct trace_point *point = &killing.trace.points[killing.point];
    if (!killing_is_due(&killing)) continue;
    effect = life(operation, &killing);
    tried++;
    if (point->is_own) own++;
    if (!killing.is_exact) missed++;
    /* libc loops over digits that are random, so there the same count of executions need not
     * be the same place. */
    if (!killing.is_exact || !point->is_own) continue;
    if (has_effect && killing.point == 0) CHECK_INT(effect, 0);
    if (effect > reached) {
      reached = effect;
      first_effect = killing.point;
    } else if (effect < reached) {
      printf("point %zu lacks the effect that point %zu had\n", killing.point, first_effect);
      CHECK(effect >= reached);
    }
  }
  printf("      %zu instructions, killed at %zu (%zu of them own code), %zu took another path",
         killing.trace.count, tried, own, missed);
  if (first_effect != 0) printf("; effect from %zu on", first_effect);
  printf("\n");
  /* Paths differ a little from run to run, by what is random and by who else is faster. Where
   * most differ, the record was of an odd one. */
  CHECK(missed * 2 < tried + 10);
  free(killing.trace.points);
}

#endif

#endif

/*
 * watch_end_test.c - how watches end, and the thread that watches: many of them, detach, close,
 * the end of a thread, fork, failing system calls. And storms.
 */
#include "watching.h"

#include "layout.h"

#include <sys/resource.h>
#include <sys/syscall.h>

static struct place here;
static struct place other;

static void enter_both(void) {
  place_enter(&here);
  place_enter(&other);
  hang_doorbell();
}

static _Atomic uint32_t *word_of(uint32_t i) {
  return (_Atomic uint32_t *)dsmr_segment_address(other.segment) + i;
}

static int32_t watch_word(uint32_t i) {
  int32_t watch = CHECK_OK(dsmr_word_watch(here.segment, 4 * i, 0, 0));
  CHECK(watch > 0xffff);
  return watch;
}

static void wake_word(uint32_t i) {
  atomic_store(word_of(i), 1);
  CHECK_OK(dsmr_word_wake(other.segment, 4 * i, 0, UINT32_MAX));
}

static int thread_count(void) { return check_count("/proc/self/task", ""); }

/* Whether the kernel sleeps on many words: tried now, for the threads may not have come to it. */
static bool can_wait_any(void) {
  static _Atomic uint32_t word;
  struct os_futex_wait_on twice[2] = {{&word, 0}, {&word, 0}};
  (void)os_futex_wait_any(twice, 2, 1);
  return os_futex_can_wait_any();
}

/* ---- ids ----------------------------------------------------------------------------------- */

/*
 * Another thread's watch fires, and then one more of its own. The thread that watches goes through
 * all watches again and again; the first is found at the earliest in a round that had begun before
 * this, the second in a later one. So what had changed before this has fired when it ends.
 */
static void *look_twice(void *argument) {
  struct place *mine = malloc(sizeof *mine);
  (void)argument;
  CHECK(mine != NULL);
  place_enter(mine);
  hang_doorbell();
  for (uint32_t i = 10; i < 12; i++) {
    int32_t watch = CHECK_OK(dsmr_word_watch(mine->segment, 4 * i, 0, 0));
    atomic_store((_Atomic uint32_t *)dsmr_segment_address(mine->segment) + i, 1);
    CHECK_OK(dsmr_word_wake(mine->segment, 4 * i, 0, UINT32_MAX));
    check_fires(watch);
  }
  CHECK_OK(dsmr_registry_close(mine->registry));
  free(mine);
  return NULL;
}

static void one_ring_is_for_all_that_has_fired(void) {
  enter_both();
  int32_t watches[5];
  uint32_t ids[5];
  for (uint32_t i = 0; i < 5; i++) watches[i] = watch_word(i);
  for (uint32_t i = 0; i < 5; i++) wake_word(i);
  /* Without listening: ring once, and fire all. */
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, look_twice, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  char bytes[64];
  CHECK_INT(read(doorbell, bytes, sizeof bytes), 1);
  CHECK_INT(dsmr_doorbell_answer(ids, 3), 3);
  /* In the middle of the queue, at its end, and its only one. */
  for (int i = 3; i < 5; i++) {
    CHECK_INT(dsmr_watch_end((uint32_t)watches[i]) + dsmr_watch_end((uint32_t)watches[i]), 1);
  }
  CHECK_INT(dsmr_doorbell_answer(ids, 5), 0);
  check_is_silent();
  /* What fires from here on rings again. */
  int32_t watch = watch_word(9);
  wake_word(9);
  check_fires(watch);
}

static void closed_doorbell_is_hung_again(void) {
  enter_both();
  int descriptors = check_descriptors();
  for (uint32_t i = 0; i < 4; i++) {
    int32_t watch = watch_word(i);
    int closed = doorbell;
    int stranger = -1;
    CHECK(close(closed) == 0);
    /* Its number may mean another file by now. */
    if (i % 2 != 0) stranger = dup2(1, closed);
    if (i / 2 != 0) wake_word(i);
    (void)poll(NULL, 0, 50);
    hang_doorbell();
    if (i % 2 != 0) CHECK(stranger == closed && doorbell != closed && close(stranger) == 0);
    if (i / 2 == 0) wake_word(i);
    check_fires(watch);
    CHECK_INT(check_descriptors(), descriptors);
  }
}

static void fired_ones_that_are_ended_leave_the_queue_whole(void) {
  enter_both();
  uint64_t seed = 99;
  for (int round = 0; round < 20; round++) {
    enum { COUNT = 12 };
    int32_t watches[COUNT];
    uint32_t left = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
      atomic_store(word_of(i), 0);
      watches[i] = watch_word(i);
    }
    for (uint32_t i = 0; i < COUNT; i++) wake_word(i);
    (void)poll(NULL, 0, 20);
    for (uint32_t i = 0; i < COUNT; i++) {
      if ((check_random(&seed) & 1) == 0) left++;
      else CHECK_INT(dsmr_watch_end((uint32_t)watches[i]), 1);
    }
    uint32_t ids[COUNT];
    for (uint32_t got = 0; got < left;) {
      struct pollfd bell = {doorbell, POLLIN, 0};
      (void)poll(&bell, 1, 20);
      got += (uint32_t)dsmr_doorbell_answer(ids, 2);
    }
    CHECK_INT(dsmr_doorbell_answer(ids, COUNT), 0);
  }
}

static void ids_are_not_given_again_soon(void) {
  enter_both();
  enum { COUNT = 2000 };
  static int32_t watches[COUNT];
  for (int i = 0; i < COUNT; i++) {
    watches[i] = watch_word(0);
    CHECK_INT(dsmr_watch_end((uint32_t)watches[i]), 1);
    for (int k = i % 100; k < i; k += 100) CHECK(watches[k] != watches[i]);
    if (i > 0) CHECK_INT(dsmr_watch_end((uint32_t)watches[i - 1]), 0);
  }
}

static void ten_thousand_watches_all_fire(void) {
  enter_both();
  enum { COUNT = CHECK_EMULATED ? 1000 : 10000, WORDS = 16 };
  static bool has_fired[1 << 16];
  for (uint32_t i = 0; i < COUNT; i++) (void)watch_word(i % WORDS);
  check_is_silent();
  for (uint32_t i = 0; i < WORDS; i++) wake_word(i);
  for (int fired = 0; fired < COUNT;) {
    uint32_t ids[64];
    int32_t count = answer_within(PATIENCE_MS, ids, 64);
    /* Rung for those that the last look has found already: then there is none. */
    CHECK(count >= 0);
    for (; count > 0; count = dsmr_doorbell_answer(ids, 64)) {
      fired += count;
      for (int32_t i = 0; i < count; i++) {
        CHECK(!has_fired[ids[i] & 0xffff]);
        has_fired[ids[i] & 0xffff] = true;
      }
    }
  }
  check_is_silent();
}

/* ---- more words than the kernel's list has room for -------------------------------------------- */

#define MANY 1000u

/* Watches the first words of segment "many", which are 0. */
static void watch_many(uint32_t segment, int32_t *watches, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    watches[i] = CHECK_OK(dsmr_word_watch(segment, 4 * i, 0, 0));
    CHECK(watches[i] > 0xffff);
  }
}

static uint32_t make_many(void) {
  return check_create(here.registry, "many", 4 * MANY, DSMR_LIFETIME_REGISTRY, 0);
}

static void all_of_many_words_are_slept_on(void) {
  enter_both();
  static int32_t watches[MANY];
  uint32_t many = make_many();
  /* ThreadSanitizer's own, which starts with the first one. */
  int before = thread_count() + CHECK_TSAN;
  watch_many(many, watches, MANY);
  if (!can_wait_any()) check_skip("this kernel has no futex_waitv");
  CHECK(thread_count() > before + 1);
  CHECK(thread_count() <= before + 10);
  check_is_silent();
  for (uint32_t i = 0; i < MANY; i++) {
    /* Nothing has changed, so that looking finds nothing. One may be about to sleep. */
    while (CHECK_OK(dsmr_word_wake(many, 4 * i, 0, 1)) == 0) (void)sched_yield();
    check_fires(watches[i]);
  }
  while (thread_count() > before) (void)poll(NULL, 0, 50);
  /* Those of the later threads end, too, when their watches do. */
  watch_many(many, watches, 300);
  CHECK(thread_count() > before + 1);
  CHECK_OK(dsmr_segment_detach(many));
  while (thread_count() > before) (void)poll(NULL, 0, 50);
  check_is_silent();
}

static void equal_words_of_many_watches_take_one_thread(void) {
  enter_both();
  enum { COUNT = 100 };
  int before = thread_count() + CHECK_TSAN;
  for (uint32_t i = 0; i < COUNT; i++) (void)watch_word(0);
  CHECK(thread_count() <= before + 1);
  check_is_silent();
  /* As one sleeper, who tells them all. */
  int32_t told = can_wait_any() ? 0 : 1;
  while (told == 0) told = dsmr_word_wake(other.segment, 0, 0, UINT32_MAX);
  CHECK_INT(told, 1);
  wake_word(0);
  uint32_t ids[COUNT];
  for (int32_t fired = 0; fired < COUNT;) fired += answer_within(PATIENCE_MS, ids, COUNT);
}

static void words_whose_thread_cannot_start_are_looked_at(void) {
#ifdef DSMR_FAULTS
  enter_both();
  static int32_t watches[MANY];
  uint32_t many = make_many();
  uint32_t count = 0;
  /* Until it has to start the second one. */
  for (os_fault = (struct os_fault){0}; count < MANY; count++) {
    if (count != 0) os_fault = (struct os_fault){.countdown = 1, .os_errno = EAGAIN};
    watches[count] = CHECK_OK(dsmr_word_watch(many, 4 * count, 0, 0));
    CHECK(watches[count] > 0xffff);
    if (count != 0 && os_fault.countdown == 0) break;
  }
  os_fault = (struct os_fault){0};
  if (!can_wait_any()) check_skip("this kernel has no futex_waitv");
  CHECK(count > 100 && count < MANY);
  check_is_silent();
  dsmr_segment_ticket ticket;
  CHECK_INT(check_begin(other.registry, "many", 4 * MANY, &ticket), DSMR_FOUND);
  atomic_store((_Atomic uint32_t *)(uintptr_t)ticket.address + count, 1);
  check_fires(watches[count]);
  /* The next one is tried again. */
  int before = thread_count();
  (void)CHECK_OK(dsmr_word_watch(many, 4 * (count + 1), 0, 0));
  CHECK_INT(thread_count(), before + 1);
  while (CHECK_OK(dsmr_word_wake(many, 4 * (count + 1), 0, 1)) == 0) (void)sched_yield();
#else
  check_skip("built without -DDSMR_FAULTS");
#endif
}

/* ---- ends ------------------------------------------------------------------------------------- */

static void detach_and_close_end_watches(void) {
  enter_both();
  for (int closes = 0; closes < 2; closes++) {
    CHECK_INT(dsmr_lock_try(other.locks[1], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    CHECK_INT(dsmr_lock_try(other.locks[2], DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    int32_t watch = CHECK_OK(dsmr_lock_watch(here.locks[1], DSMR_EXCLUSIVE));
    (void)CHECK_OK(dsmr_lock_watch(here.locks[2], DSMR_EXCLUSIVE));
    atomic_store(word_of(0), 0);
    (void)watch_word(0);
    /* One fires before, unanswered. */
    atomic_store(word_of(1), 0);
    (void)watch_word(1);
    wake_word(1);
    (void)poll(NULL, 0, 50);
    if (closes != 0) CHECK_OK(dsmr_registry_close(here.registry));
    else CHECK_OK(dsmr_segment_detach(here.segment));
    wake_word(0);
    CHECK_OK(dsmr_lock_release(other.locks[1]));
    check_is_silent();
    CHECK_INT(dsmr_watch_end((uint32_t)watch), 0);
    /* The claim that drained is gone. */
    CHECK_INT(dsmr_lock_release(other.locks[2]), 0);
    for (int i = 1; i < 3; i++) {
      CHECK_INT(dsmr_lock_try(other.locks[i], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
      CHECK_OK(dsmr_lock_release(other.locks[i]));
    }
    place_enter(&here);
  }
}

/* The last thread that has run this, while it is listed. */
static _Atomic pid_t ending;

static void *watch_and_end(void *closes) {
  struct place *mine = malloc(sizeof *mine);
  atomic_store(&ending, (pid_t)syscall(SYS_gettid));
  CHECK(mine != NULL);
  place_enter(mine);
  hang_doorbell();
  (void)CHECK_OK(dsmr_lock_watch(mine->locks[1], DSMR_EXCLUSIVE));
  (void)CHECK_OK(dsmr_lock_watch(mine->locks[2], DSMR_EXCLUSIVE));
  CHECK(dsmr_word_watch(mine->segment, 0, 0, 0) > 0xffff);
  /* As a runtime may, or not. */
  if (closes != NULL) close(doorbell);
  free(mine);
  return NULL;
}

static void end_of_a_thread_ends_watches(void) {
  enter_both();
  CHECK_INT(dsmr_lock_try(other.locks[1], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  CHECK_INT(dsmr_lock_try(other.locks[2], DSMR_SHARED), DSMR_LOCK_ACQUIRED);
  int descriptors = check_descriptors();
  for (int i = 0; i < 20; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, watch_and_end, i % 2 == 0 ? NULL : &here) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_INT(check_descriptors(), descriptors);
    CHECK_INT(dsmr_backends(here.registry, NULL, 0, &check_error), 2);
    CHECK_INT(dsmr_lock_try(here.locks[2], DSMR_SHARED), DSMR_LOCK_ACQUIRED);
    CHECK_OK(dsmr_lock_release(here.locks[2]));
  }
  wake_word(0);
  check_is_silent();
  CHECK_OK(dsmr_lock_release(other.locks[1]));
  CHECK_INT(dsmr_lock_try(here.locks[1], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
}

static void thread_that_watches_ends_when_idle(void) {
  enter_both();
  /* The first thread makes ThreadSanitizer start one of its own. */
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, watch_and_end, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  /* It is listed a little longer. */
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d", (int)atomic_load(&ending));
  while (access(path, F_OK) == 0) (void)sched_yield();
  int before = 1000;
  for (uint32_t i = 0; i < 2; i++) {
    int32_t watch = watch_word(i);
    if (i == 0) before = thread_count() - 1;
    CHECK_INT(thread_count(), before + 1);
    wake_word(i);
    check_fires(watch);
    while (thread_count() > before) (void)poll(NULL, 0, 50);
  }
}

/* ---- fork -------------------------------------------------------------------------------------- */

static void forked_child_watches_for_itself(void) {
  if (CHECK_TSAN) check_skip("ThreadSanitizer starts no threads in a child of threads");
  if (CHECK_EMULATED) check_skip("the emulator cannot fork where there are threads");
  enter_both();
  int32_t watch = watch_word(0);
  pid_t child = check_fork();
  if (child == 0) {
    int descriptors = check_descriptors();
    struct stat parents;
    struct stat own;
    CHECK(fstat(doorbell, &parents) == 0);
    hang_doorbell();
    CHECK(fstat(doorbell, &own) == 0 && own.st_ino != parents.st_ino);
    CHECK_INT(dsmr_watch_end((uint32_t)watch), 0);
    place_enter(&here);
    place_enter(&other);
    CHECK(check_descriptors() <= descriptors);
    watch = watch_word(1);
    wake_word(1);
    check_fires(watch);
    _exit(0);
  }
  CHECK_CHILD(child);
  check_is_silent();
  wake_word(0);
  check_fires(watch);
}

/* It forks; in the child, which does not use the library, the thread ends. */
static void *fork_and_end(void *argument) {
  (void)argument;
  enter_both();
  CHECK_INT(dsmr_lock_try(here.locks[1], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
  (void)watch_word(0);
  pid_t child = check_fork();
  if (child == 0) pthread_exit(NULL);
  CHECK_CHILD(child);
  CHECK_INT(dsmr_lock_state(here.locks[1]), 2 + 8);
  CHECK_INT(dsmr_backends(here.registry, NULL, 0, &check_error), 2);
  wake_word(0);
  uint32_t id;
  CHECK_INT(answer_within(PATIENCE_MS, &id, 1), 1);
  return NULL;
}

static void thread_that_ends_in_a_forked_child_takes_nothing_with_it(void) {
  if (CHECK_TSAN) check_skip("ThreadSanitizer does not follow a fork in a thread");
  if (CHECK_EMULATED) check_skip("the emulator cannot fork where there are threads");
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, fork_and_end, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
}

/* ---- failures ------------------------------------------------------------------------------------ */

static void failing_calls_leave_nothing(void) {
#ifdef DSMR_FAULTS
  place_enter(&here);
  place_enter(&other);
  int descriptors = check_descriptors();
  /* What comes before the start of the thread: is alive who is in the way? */
  uint32_t calls[DSMR_EXCLUSIVE + 1];
  for (uint32_t mode = DSMR_SHARED; mode <= DSMR_EXCLUSIVE; mode++) {
    CHECK_INT(dsmr_lock_try(other.locks[mode], mode), DSMR_LOCK_ACQUIRED);
    os_fault = (struct os_fault){0};
    CHECK_FAILS(dsmr_lock_watch(here.locks[mode], DSMR_EXCLUSIVE), DSMR_E_UNSUPPORTED);
    calls[mode] = os_fault.calls;
    CHECK_OK(dsmr_lock_release(other.locks[mode]));
  }
  uint32_t n = 1;
  for (bool has_failed = true; has_failed; n++) {
    os_fault = (struct os_fault){.countdown = n, .os_errno = EMFILE};
    dsmr_error error = {0};
    int32_t outcome = dsmr_doorbell(&error);
    has_failed = os_fault.countdown == 0;
    os_fault = (struct os_fault){0};
    if (!has_failed) break;
    CHECK_INT(outcome, DSMR_E_NO_SPACE);
    CHECK_INT(error.status, DSMR_E_NO_SPACE);
    CHECK(error.message_length > 0);
    CHECK_INT(check_descriptors(), descriptors);
  }
  CHECK_INT(n, 3); /* the pair, and what tells it from other files */
  hang_doorbell();
  CHECK_INT(check_descriptors(), descriptors + 2);
  /* The thread that watches cannot be started. */
  for (uint32_t mode = DSMR_SHARED; mode <= DSMR_EXCLUSIVE; mode++) {
    CHECK_INT(dsmr_lock_try(other.locks[mode], mode), DSMR_LOCK_ACQUIRED);
    os_fault = (struct os_fault){.countdown = calls[mode] + 1, .os_errno = EAGAIN};
    CHECK_FAILS(dsmr_lock_watch(here.locks[mode], DSMR_EXCLUSIVE), DSMR_E_NO_SPACE);
    CHECK_INT(os_fault.countdown, 0);
    os_fault = (struct os_fault){0};
    CHECK_OK(dsmr_lock_release(other.locks[mode]));
    CHECK_INT(dsmr_lock_try(other.locks[mode], DSMR_EXCLUSIVE), DSMR_LOCK_ACQUIRED);
    int32_t watch = CHECK_OK(dsmr_lock_watch(here.locks[mode], DSMR_SHARED));
    /* With the one that watches. */
    int before = thread_count();
    CHECK_OK(dsmr_lock_release(other.locks[mode]));
    check_fires(watch);
    /* The next one needs a thread anew. */
    while (mode == DSMR_SHARED && thread_count() >= before) (void)poll(NULL, 0, 50);
  }
#else
  check_skip("built without -DDSMR_FAULTS");
#endif
}

static void process_without_descriptors_has_no_doorbell(void) {
  place_enter(&here);
  struct rlimit limit;
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  struct rlimit less = {3, limit.rlim_max};
  CHECK(setrlimit(RLIMIT_NOFILE, &less) == 0);
  dsmr_error error = {0};
  CHECK_FAILS(dsmr_doorbell(&error), DSMR_E_NO_SPACE);
  CHECK_INT(error.os_errno, EMFILE);
  CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  hang_doorbell();
}

static const struct check_test tests[] = {
    TEST(one_ring_is_for_all_that_has_fired),
    TEST(closed_doorbell_is_hung_again),
    TEST(fired_ones_that_are_ended_leave_the_queue_whole),
    TEST(ids_are_not_given_again_soon),
    TEST(ten_thousand_watches_all_fire),
    TEST(all_of_many_words_are_slept_on),
    TEST(equal_words_of_many_watches_take_one_thread),
    TEST(words_whose_thread_cannot_start_are_looked_at),
    TEST(detach_and_close_end_watches),
    TEST(end_of_a_thread_ends_watches),
    TEST(thread_that_watches_ends_when_idle),
    TEST(forked_child_watches_for_itself),
    TEST(thread_that_ends_in_a_forked_child_takes_nothing_with_it),
    TEST(failing_calls_leave_nothing),
    TEST(process_without_descriptors_has_no_doorbell),
};
CHECK_MAIN(tests)

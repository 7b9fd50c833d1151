/*
 * watch.c - the watching thread, and the doorbells by which it tells the others.
 *
 * The hardest race is a watch that is ended, and its memory unmapped, while the thread sleeps on
 * its words or looks at them. The answer: everything about watches is under one latch. The
 * thread looks at words and calls `look` under it only; it sleeps without it, on addresses that
 * the kernel checks by itself, and what it learns from the sleep, the address that was woken,
 * is compared with those of the watches that there are then, and never looked at. Whoever ends a watch has the latch, so from then on nobody looks.
 *
 * No wake-up is lost: a word is compared with what it was when the watch was set, before each
 * sleep, under the latch, and once more by the kernel. What the kernel cannot tell (a death
 * without a bell, words for which its list has no room) is looked at between bounded sleeps.
 *
 * A doorbell is a pair of sockets. We write to one end; the runtime's event loop reads the other,
 * as it reads any socket, which is the one way to wake it that a Worker's end or the program's
 * cannot turn into a crash: a callback into a runtime that is going is one. Rejected for that:
 * Deno.UnsafeCallback and Bun's JSCallback.
 */
#include "watch.h"

#include "dsmr.h"
#include "lwlock.h"
#include "process.h"
#include "status.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Between two looks at what the kernel does not tell. */
#define LOOK_NS 100000000u
#define LOOK_OFTEN_NS 10000000u
/* Every so-many-th look asks the kernel also where a bell would have told: a thousand waits that
 * each asked every time took 1 % of a core. */
#define LOOKS_UNTIL_ALL 10u
/* The thread ends when there was nothing to watch for so long. */
#define IDLE_NS 1000000000u
#define WATCHES_MAX 65536u

enum watch_state { WATCH_FREE = 0, WATCH_SET, WATCH_FIRED, WATCH_TOLD };

struct doorbell {
  struct doorbell *next;
  uintptr_t thread;
  struct os_pair pair;
  uint32_t first_fired; /* index + 1 */
  uint32_t last_fired;
  bool is_rung;
};

struct watch {
  struct watch_request request;
  struct doorbell *doorbell;
  uint64_t fired_ns;
  uint32_t next; /* index + 1: of the free ones, or of the doorbell's fired ones */
  uint16_t generation;
  uint8_t state; /* enum watch_state */
};

/* All of it under the latch. */
static _Atomic uint32_t latch;
static struct watch *watches;
static uint32_t watch_room;  /* slots that there are */
static uint32_t watch_used;  /* of which have been used */
static uint32_t watch_count; /* of which are SET, or FIRED and not yet told */
static uint32_t first_free;  /* index + 1 */
static struct doorbell *doorbells;
static bool is_running;
/* The thread sleeps on this, too: grows when it must look anew. */
static _Atomic uint32_t kick;

#define WATCH_ID(watch, index) ((uint32_t)(watch)->generation << 16 | (index))

static struct doorbell *doorbell_of_thread(void) {
  struct doorbell *d = doorbells;
  while (d != NULL && d->thread != os_thread()) d = d->next;
  return d;
}

/* ---- firing -------------------------------------------------------------------------- */

static void ring(struct doorbell *doorbell) {
  if (!doorbell->is_rung) doorbell->is_rung = os_pair_ring(&doorbell->pair);
}

static void fire(uint32_t index, uint64_t now_ns) {
  struct watch *watch = &watches[index];
  struct doorbell *doorbell = watch->doorbell;
  watch->state = WATCH_FIRED;
  watch->fired_ns = now_ns;
  watch->next = 0;
  if (doorbell->last_fired != 0) watches[doorbell->last_fired - 1].next = index + 1;
  else doorbell->first_fired = index + 1;
  doorbell->last_fired = index + 1;
}

static void free_slot(uint32_t index) {
  struct watch *watch = &watches[index];
  watch->state = WATCH_FREE;
  watch->doorbell = NULL;
  watch->next = first_free;
  first_free = index + 1;
  watch_count--;
}

static void unqueue(uint32_t index) {
  struct doorbell *doorbell = watches[index].doorbell;
  uint32_t before = 0;
  for (uint32_t i = doorbell->first_fired; i != index + 1; i = watches[i - 1].next) before = i;
  uint32_t after = watches[index].next;
  if (before == 0) doorbell->first_fired = after;
  else watches[before - 1].next = after;
  if (doorbell->last_fired == index + 1) doorbell->last_fired = before;
}

static void end_watch(uint32_t index) {
  if (watches[index].state == WATCH_FIRED) unqueue(index);
  free_slot(index);
}

/* ---- the thread ---------------------------------------------------------------------- */

/* The word may be a bell's, and what is seen is a hint: the watch's thread looks for itself. */
OS_UNWATCHED static bool has_changed(const struct watch_request *request) {
  for (uint32_t i = 0; i < request->word_count; i++) {
    const struct os_futex_wait_on *on = &request->words[i];
    if (atomic_load(on->word) != on->expected) return true;
  }
  return false;
}

static bool is_on(const struct watch_request *request, const _Atomic uint32_t *word) {
  for (uint32_t i = 0; i < request->word_count; i++) {
    if (request->words[i].word == word) return true;
  }
  return false;
}

/* What is due: nothing, a look, or a look also for those that look rarely. */
enum due { NO_LOOK, LOOK, LOOK_AT_ALL };

/* Is there a reason that no word tells? */
static bool has_reason(const struct watch_request *request, enum due due) {
  if (due == NO_LOOK) return false;
  if (!control_is_ready(&request->backend->control)) return true;
  if (request->look == NULL || (request->looks_rarely && due != LOOK_AT_ALL)) return false;
  return request->look(request);
}

/* What the thread sleeps on. */
struct sleep {
  struct os_futex_wait_on words[OS_FUTEX_WAIT_MAX];
  uint32_t count;
  uint64_t until_ns;
};

static uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }

/*
 * Fires what is due and lists what to sleep on. `woken`: on which word the thread was woken, or
 * NULL; the kernel tells one place of it in the list, whichever watch that was of. If all of them
 * have ended meanwhile, the wake-up was for somebody else: a release wakes one sleeper. The word's
 * memory may be gone; the kernel finds nobody there then, or somebody who looks for nothing.
 */
static void look_at_all(struct sleep *sleep, _Atomic uint32_t *woken, uint64_t now,
                        enum due due) {
  bool has_taken = woken == NULL;
  sleep->words[0] = (struct os_futex_wait_on){&kick, atomic_load(&kick)};
  sleep->count = 1;
  sleep->until_ns = now + (os_futex_can_wait_any() ? LOOK_NS : LOOK_OFTEN_NS / 4);
  for (uint32_t i = 0; i < watch_used; i++) {
    struct watch *watch = &watches[i];
    const struct watch_request *request = &watch->request;
    if (watch->state == WATCH_SET) {
      bool is_woken = woken != NULL && is_on(request, woken);
      has_taken |= is_woken;
      if (is_woken || has_changed(request) || has_reason(request, due)) fire(i, now);
    }
    if (watch->state == WATCH_FIRED) ring(watch->doorbell);
    if (watch->state == WATCH_FIRED && request->answer_ns != 0) {
      if (now - watch->fired_ns < request->answer_ns) {
        sleep->until_ns = earlier(sleep->until_ns, watch->fired_ns + request->answer_ns);
      } else {
        watch->request.answer_ns = 0;
        os_futex_wake(&request->claim->lock->owner, 1);
      }
    }
    if (watch->state != WATCH_SET) continue;
    if (sleep->count + request->word_count > OS_FUTEX_WAIT_MAX) {
      sleep->until_ns = earlier(sleep->until_ns, now + LOOK_OFTEN_NS);
      continue;
    }
    for (uint32_t k = 0; k < request->word_count; k++) {
      sleep->words[sleep->count++] = request->words[k];
    }
  }
  if (!has_taken) os_futex_wake(woken, 1);
}

static void run(void *argument) {
  (void)argument;
  /* Zeroed: the first round was woken by nobody. */
  struct sleep sleep = {0};
  _Atomic uint32_t *woken_on = NULL;
  uint64_t look_ns = 0;
  uint32_t looks = 0;
  uint64_t idle_since_ns = 0;
  latch_lock(&latch);
  for (;;) {
    uint64_t now = os_monotonic_ns();
    enum due due = NO_LOOK;
    if (now >= look_ns) {
      look_ns = now + LOOK_NS;
      due = ++looks % LOOKS_UNTIL_ALL == 0 ? LOOK_AT_ALL : LOOK;
    }
    look_at_all(&sleep, woken_on, now, due);
    sleep.until_ns = earlier(sleep.until_ns, look_ns);
    if (watch_count != 0) idle_since_ns = 0;
    else if (idle_since_ns == 0) idle_since_ns = now;
    else if (now - idle_since_ns > IDLE_NS) break;
    if (watch_count == 0) sleep.until_ns = now + IDLE_NS + LOOK_NS;
    latch_unlock(&latch);
    now = os_monotonic_ns();
    int32_t woken = -1;
    if (sleep.until_ns > now) {
      woken = os_futex_wait_any(sleep.words, sleep.count, sleep.until_ns - now);
    }
    woken_on = woken > 0 ? sleep.words[woken].word : NULL;
    latch_lock(&latch);
  }
  /* Under the latch: whoever sets a watch from here on starts another thread. */
  is_running = false;
  latch_unlock(&latch);
}

static void wake_thread(void) {
  atomic_fetch_add(&kick, 1);
  os_futex_wake(&kick, 1);
}

/* ---- setting and ending --------------------------------------------------------------- */

static uint32_t take_slot(void) {
  if (first_free != 0) {
    uint32_t index = first_free - 1;
    first_free = watches[index].next;
    return index;
  }
  if (watch_used == watch_room) {
    uint32_t room = watch_room == 0 ? 64 : watch_room * 2;
    struct watch *grown = room > WATCHES_MAX ? NULL : realloc(watches, room * sizeof *grown);
    if (grown == NULL) return UINT32_MAX;
    watches = grown;
    watch_room = room;
  }
  watches[watch_used].generation = 0;
  return watch_used++;
}

int32_t watch_set(const struct watch_request *request) {
  latch_lock(&latch);
  int32_t outcome = DSMR_E_UNSUPPORTED;
  struct doorbell *doorbell = doorbell_of_thread();
  if (doorbell != NULL) {
    uint32_t index = take_slot();
    outcome = DSMR_E_NO_SPACE;
    if (index != UINT32_MAX) {
      struct watch *watch = &watches[index];
      uint32_t generation = watch->generation % 0x7fffu + 1;
      *watch = (struct watch){.request = *request,
                              .doorbell = doorbell,
                              .generation = (uint16_t)generation,
                              .state = WATCH_SET};
      watch_count++;
      request->backend->watch_count++;
      outcome = (int32_t)WATCH_ID(watch, index);
      if (!is_running && os_thread_start(run, NULL) == 0) is_running = true;
      if (!is_running) {
        request->backend->watch_count--;
        free_slot(index);
        outcome = DSMR_E_NO_SPACE;
      }
    }
  }
  latch_unlock(&latch);
  if (outcome > 0) wake_thread();
  return outcome;
}

bool watch_end(uint32_t id) {
  uint32_t index = id & 0xffffu;
  latch_lock(&latch);
  bool is_there = index < watch_used && watches[index].state != WATCH_FREE &&
                  watches[index].generation == id >> 16 &&
                  watches[index].doorbell->thread == os_thread();
  if (is_there) {
    watches[index].request.backend->watch_count--;
    end_watch(index);
  }
  latch_unlock(&latch);
  return is_there;
}

void watch_fire(uint32_t id) {
  uint32_t index = id & 0xffffu;
  latch_lock(&latch);
  if (index < watch_used && watches[index].state == WATCH_SET &&
      watches[index].generation == id >> 16) {
    fire(index, os_monotonic_ns());
  }
  latch_unlock(&latch);
}

void watch_end_all(struct backend *backend, const struct attachment *attachment) {
  /* Only the backend's own thread sets watches of it, and that is the caller. */
  if (backend->watch_count == 0) return;
  latch_lock(&latch);
  for (uint32_t i = 0; i < watch_used; i++) {
    const struct watch_request *request = &watches[i].request;
    if (watches[i].state == WATCH_FREE || request->backend != backend) continue;
    if (attachment != NULL && request->attachment != attachment) continue;
    end_watch(i);
    backend->watch_count--;
  }
  latch_unlock(&latch);
}

void watch_after_fork(void) {
  atomic_store(&latch, 0);
  /* Our copies of the parent's sockets; the list itself is memory of the past. */
  for (struct doorbell *d = doorbells; d != NULL; d = d->next) os_pair_close(&d->pair);
  watches = NULL;
  watch_room = watch_used = watch_count = first_free = 0;
  doorbells = NULL;
  is_running = false;
}

/* ---- doorbells ------------------------------------------------------------------------- */

/* The thread has ended: nobody listens, and nobody else has the other end any more. */
static void take_down(void *argument) {
  struct doorbell *gone = argument;
  /* A forked child that has not started the library: the latch may be the parent's for ever. */
  if (!process_is_started()) return;
  latch_lock(&latch);
  for (uint32_t i = 0; i < watch_used; i++) {
    if (watches[i].state != WATCH_FREE && watches[i].doorbell == gone) end_watch(i);
  }
  struct doorbell **link = &doorbells;
  while (*link != NULL && *link != gone) link = &(*link)->next;
  /* Not there: it was our parent's, and is closed. */
  bool is_ours = *link != NULL;
  if (is_ours) *link = gone->next;
  latch_unlock(&latch);
  if (!is_ours) return;
  os_pair_close(&gone->pair);
  free(gone);
}

static int32_t no_pair(int32_t outcome, dsmr_error *error) {
  return status_fail_os(error, outcome, "Cannot wait asynchronously: no pair of sockets");
}

/* The caller may have closed its end, and its number may mean some other file by now. */
static int32_t open_again(struct doorbell *doorbell, dsmr_error *error) {
  if (os_pair_is_open(&doorbell->pair)) return doorbell->pair.theirs;
  struct os_pair pair;
  int32_t outcome = os_pair_open(&pair);
  if (outcome != 0) return no_pair(outcome, error);
  latch_lock(&latch);
  os_pair_close(&doorbell->pair);
  doorbell->pair = pair;
  doorbell->is_rung = false;
  if (doorbell->first_fired != 0) ring(doorbell);
  latch_unlock(&latch);
  return pair.theirs;
}

int32_t dsmr_doorbell(dsmr_error *error) {
  int32_t outcome = backend_start_process(error);
  if (outcome != 0) return outcome;
  latch_lock(&latch);
  struct doorbell *doorbell = doorbell_of_thread();
  latch_unlock(&latch);
  if (doorbell != NULL) return open_again(doorbell, error);
  doorbell = calloc(1, sizeof *doorbell);
  outcome = doorbell == NULL ? -ENOMEM : os_pair_open(&doorbell->pair);
  /* A doorbell that outlived its thread would be taken for the next thread's at its address. */
  if (outcome == 0 && !process_on_thread_end(take_down, doorbell)) {
    os_pair_close(&doorbell->pair);
    outcome = -ENOMEM;
  }
  if (outcome != 0) {
    free(doorbell);
    return no_pair(outcome, error);
  }
  doorbell->thread = os_thread();
  latch_lock(&latch);
  doorbell->next = doorbells;
  doorbells = doorbell;
  latch_unlock(&latch);
  return doorbell->pair.theirs;
}

int32_t dsmr_doorbell_answer(uint32_t *ids, uint32_t capacity) {
  if (backend_start_process(NULL) != 0) return 0;
  latch_lock(&latch);
  struct doorbell *doorbell = doorbell_of_thread();
  uint32_t count = 0;
  while (doorbell != NULL && doorbell->first_fired != 0 && count < capacity) {
    uint32_t index = doorbell->first_fired - 1;
    ids[count++] = WATCH_ID(&watches[index], index);
    watches[index].request.backend->watch_count--;
    end_watch(index);
  }
  /* What fires from here on rings again. */
  if (doorbell != NULL && doorbell->first_fired == 0) doorbell->is_rung = false;
  latch_unlock(&latch);
  return (int32_t)count;
}

int32_t dsmr_watch_end(uint32_t watch) {
  return backend_start_process(NULL) == 0 && watch_end(watch);
}

/*
 * watch.c - the watching threads, and the doorbells by which they tell the others.
 *
 * The hardest race is a watch that is ended, and its memory unmapped, while a thread sleeps on
 * its words or looks at them. The answer: everything about watches is under one latch. The
 * threads look at words and call `look` under it only; they sleep without it, on addresses that
 * the kernel checks by itself, and what one learns from the sleep, the address that was woken,
 * is compared with those of the watches that there are then, and never looked at. Whoever ends a
 * watch has the latch, so from then on nobody looks.
 *
 * No wake-up is lost: a word is compared with what it was when the watch was set, before each
 * sleep, under the latch, and once more by the kernel.
 *
 * The kernel's list has room for 128 words, so each hundred or so of the watches have a thread of
 * their own, a sleeper, which sleeps on their words until one wakes or it is kicked: whoever sets
 * a watch kicks its sleeper afterwards, so that it has either seen the watch or does not sleep.
 * Several of them may sleep on one word, as several processes may; a release wakes one, and who
 * finds no watch on it any more wakes the next. A watch is given to the first sleeper with room:
 * few waits have one thread, however many there once were.
 *
 * The first sleeper is also the looker. It alone wakes ten times a second, for all, and looks for
 * what the kernel cannot tell: a death without a bell, a wake-up given to a process that died
 * with it, bells for which there was no room in a list. Where a sleeper could not be started it
 * looks more often. Rejected: polling whatever is beyond the first list. A thousand waits took
 * 0.8 % of a core in each process.
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

/* Between two looks at what the kernel does not tell; often: where it tells of some only. */
#define LOOK_NS 100000000u
#define LOOK_OFTEN_NS 10000000u
/* A look asks the kernel also where a bell would have told, but for one watch of so many, and
 * about so many in all: asking for a thousand each second took 0.1 % of a core. */
#define ASK_ONE_OF 10u
#define ASK_ABOUT 16u
/* A thread ends when there was nothing to watch for so long. */
#define IDLE_NS 1000000000u
/* Sleepers are told when to wake. This is for what nobody has thought of. */
#define SLEEP_NS 10000000000u

/* Slots for the watches of one sleeper, and how many of them are used: the first word of each
 * fits into its list, the sleeper's own word, and bells of 15. */
#define SLEEPER_SLOTS 128u
#define SLEEPER_WATCHES 112u
#define SLEEPERS_MAX 512u
/* How many threads there are at most. What would need more is looked at often. */
#define THREADS_MAX 128u
#define SLEEPER_OF(index) ((index) / SLEEPER_SLOTS)

enum watch_state { WATCH_FREE = 0, WATCH_SET, WATCH_FIRED };

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
  uint32_t next; /* index + 1: of the doorbell's fired ones */
  uint16_t generation;
  uint8_t state; /* enum watch_state */
};

struct sleeper {
  _Atomic uint32_t kick; /* it sleeps on this, too: grows when it must look anew */
  uint16_t count;        /* its watches that are SET, or FIRED and not yet told */
  uint8_t used;          /* slots that were ever used, the first ones */
  bool is_running;
};

/* All of it under the latch, but for the kicks. */
static _Atomic uint32_t latch;
static struct watch *watches;
static uint32_t watch_room;  /* slots that there are */
static uint32_t watch_count; /* of all sleepers */
static struct sleeper sleepers[SLEEPERS_MAX];
static struct doorbell *doorbells;

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

static void kick(struct sleeper *sleeper) {
  atomic_fetch_add(&sleeper->kick, 1);
  os_futex_wake(&sleeper->kick, 1);
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
  struct watch *watch = &watches[index];
  if (watch->state == WATCH_FIRED) unqueue(index);
  watch->state = WATCH_FREE;
  sleepers[SLEEPER_OF(index)].count--;
  watch_count--;
}

/* ---- the threads --------------------------------------------------------------------- */

enum told { NOT_TOLD = 0, CHANGED, WOKEN };

/* What its words tell. One may be a bell's, and what is seen is a hint: the watch's thread looks
 * for itself. Not inlined: that is smaller. */
OS_UNWATCHED static __attribute__((noinline)) enum told told_by(
    const struct watch_request *request, const _Atomic uint32_t *woken) {
  enum told told = NOT_TOLD;
  for (uint32_t i = 0; i < request->word_count; i++) {
    const struct os_futex_wait_on *on = &request->words[i];
    if (on->word == woken) return WOKEN;
    if (atomic_load(on->word) != on->expected) told = CHANGED;
  }
  return told;
}

/* Is there a reason that no word tells? `look`: the number of the look, of which each has others
 * of the watches that look rarely. One who waits for a backend clears it away for all. */
static bool has_reason(uint32_t index, uint32_t look) {
  const struct watch_request *request = &watches[index].request;
  if (!control_is_ready(&request->backend->control)) return true;
  if (request->look == NULL) return false;
  uint32_t one_of = ASK_ONE_OF + watch_count / ASK_ABOUT;
  return (!request->looks_rarely || (index + look) % one_of == 0) && request->look(request);
}

/* What a thread sleeps on. */
struct sleep {
  uint64_t until_ns;
  uint32_t count;
  struct os_futex_wait_on words[OS_FUTEX_WAIT_MAX];
};

static uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }

/*
 * Fires what is due among `count` slots from `first` on. `woken`: on which word the thread was
 * woken, or NULL; the kernel tells one place of it in the list, whichever watch that was of. If
 * all of them have ended meanwhile, the wake-up was for somebody else: a release wakes one
 * sleeper. The word's memory may be gone; the kernel finds nobody there then, or somebody who
 * looks for nothing.
 */
static void look_at(const struct sleeper *self, struct sleep *sleep, uint32_t first,
                    uint32_t count, _Atomic uint32_t *woken, uint64_t now, uint32_t look) {
  bool has_taken = woken == NULL;
  for (uint32_t i = first; i < first + count; i++) {
    struct watch *watch = &watches[i];
    const struct watch_request *request = &watch->request;
    struct sleeper *sleeper = &sleepers[SLEEPER_OF(i)];
    if (watch->state == WATCH_SET) {
      enum told told = told_by(request, woken);
      has_taken |= told == WOKEN;
      if (told != NOT_TOLD || (look != 0 && has_reason(i, look))) {
        fire(i, now);
        /* It sees to it that the watch is answered. */
        if (sleeper != self) kick(sleeper);
      }
    }
    if (watch->state != WATCH_FIRED) continue;
    /* Here, so that it is rung once more if it could not be. */
    ring(watch->doorbell);
    if (request->answer_ns == 0 || (sleeper != self && sleeper->is_running)) continue;
    if (now - watch->fired_ns < request->answer_ns) {
      sleep->until_ns = earlier(sleep->until_ns, watch->fired_ns + request->answer_ns);
    } else {
      watch->request.answer_ns = 0;
      os_futex_wake(&request->claim->lock->owner, 1);
    }
  }
  if (!has_taken) os_futex_wake(woken, 1);
}

/* A word that was seen with two values is listed with both: it is one of them at most, so the
 * kernel returns at once. */
static bool is_listed(const struct sleep *sleep, const struct os_futex_wait_on *on) {
  for (uint32_t i = 0; i < sleep->count; i++) {
    if (sleep->words[i].word == on->word && sleep->words[i].expected == on->expected) return true;
  }
  return false;
}

/* Lists what to sleep on: the first words of all, then bells as far as there is room. */
static void list_words(struct sleeper *self, struct sleep *sleep, uint32_t first) {
  _Static_assert(SLEEPER_WATCHES < OS_FUTEX_WAIT_MAX, "a first word has no room");
  sleep->words[0] = (struct os_futex_wait_on){&self->kick, atomic_load(&self->kick)};
  sleep->count = 1;
  for (uint32_t k = 0; k < WATCH_WORDS; k++) {
    for (uint32_t i = first; i < first + self->used; i++) {
      const struct watch_request *request = &watches[i].request;
      if (watches[i].state != WATCH_SET || k >= request->word_count) continue;
      if (sleep->count == OS_FUTEX_WAIT_MAX) return;
      if (!is_listed(sleep, &request->words[k])) sleep->words[sleep->count++] = request->words[k];
    }
  }
}

/* How long the looker may leave the others alone. Wakes those that are to end. */
static uint64_t look_at_sleepers(void) {
  uint64_t pause_ns = os_futex_can_wait_any() ? LOOK_NS : LOOK_OFTEN_NS / 4;
  for (uint32_t i = 1; i < SLEEPER_OF(watch_room); i++) {
    bool is_needed = sleepers[i].count != 0;
    if (is_needed && !sleepers[i].is_running) pause_ns = earlier(pause_ns, LOOK_OFTEN_NS);
    if (!is_needed && sleepers[i].is_running) kick(&sleepers[i]);
  }
  return pause_ns;
}

static void run(void *argument) {
  struct sleeper *self = argument;
  bool is_looker = self == sleepers;
  uint32_t first = (uint32_t)(self - sleepers) * SLEEPER_SLOTS;
  struct sleep sleep;
  _Atomic uint32_t *woken_on = NULL;
  uint64_t scan_ns = 0;
  uint64_t look_ns = 0;
  uint32_t looks = 0;
  uint64_t needed_ns = os_monotonic_ns();
  latch_lock(&latch);
  for (;;) {
    uint64_t now = os_monotonic_ns();
    sleep.until_ns = now + SLEEP_NS;
    uint32_t count = self->used;
    uint32_t look = 0;
    if (is_looker && now >= scan_ns) {
      count = watch_room;
      scan_ns = UINT64_MAX;
      if (now >= look_ns) {
        look_ns = now + LOOK_NS;
        look = ++looks;
      }
    }
    look_at(self, &sleep, first, count, woken_on, now, look);
    if (is_looker) {
      scan_ns = earlier(scan_ns, now + look_at_sleepers());
      sleep.until_ns = earlier(sleep.until_ns, scan_ns);
    }
    list_words(self, &sleep, first);
    if ((is_looker ? watch_count : self->count) != 0) needed_ns = now;
    else if (now - needed_ns > IDLE_NS) break;
    else sleep.until_ns = now + IDLE_NS + LOOK_NS;
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
  self->is_running = false;
  latch_unlock(&latch);
}

/* ---- setting and ending --------------------------------------------------------------- */

/* False if a sleeper could not be started. */
static bool is_awake(struct sleeper *sleeper) {
  if (!sleeper->is_running) sleeper->is_running = os_thread_start(run, sleeper) == 0;
  return sleeper->is_running;
}

/* A slot of the first sleeper that has room. */
static uint32_t take_slot(void) {
  uint32_t sleeper = 0;
  while (sleeper < SLEEPERS_MAX && sleepers[sleeper].count == SLEEPER_WATCHES) sleeper++;
  if (sleeper == SLEEPERS_MAX) return UINT32_MAX;
  uint32_t index = sleeper * SLEEPER_SLOTS;
  if (index == watch_room) {
    struct watch *grown = realloc(watches, (index + SLEEPER_SLOTS) * sizeof *grown);
    if (grown == NULL) return UINT32_MAX;
    watches = grown;
    watch_room += SLEEPER_SLOTS;
    memset(grown + index, 0, SLEEPER_SLOTS * sizeof *grown);
  }
  while (watches[index].state != WATCH_FREE) index++;
  if (sleepers[sleeper].used <= index % SLEEPER_SLOTS) sleepers[sleeper].used++;
  return index;
}

int32_t watch_set(const struct watch_request *request) {
  latch_lock(&latch);
  int32_t outcome = DSMR_E_UNSUPPORTED;
  struct sleeper *sleeper = NULL;
  struct doorbell *doorbell = doorbell_of_thread();
  if (doorbell != NULL) {
    uint32_t index = take_slot();
    outcome = DSMR_E_NO_SPACE;
    if (index != UINT32_MAX && is_awake(sleepers)) {
      struct watch *watch = &watches[index];
      uint32_t generation = watch->generation == 0x7fffu ? 1 : watch->generation + 1u;
      memset(watch, 0, sizeof *watch);
      memcpy(&watch->request, request, sizeof *request);
      watch->doorbell = doorbell;
      watch->generation = (uint16_t)generation;
      watch->state = WATCH_SET;
      sleeper = &sleepers[SLEEPER_OF(index)];
      sleeper->count++;
      watch_count++;
      request->backend->watch_count++;
      outcome = (int32_t)WATCH_ID(watch, index);
      /* Without its own sleeper the looker does. */
      if (SLEEPER_OF(index) >= THREADS_MAX || !os_futex_can_wait_any() || !is_awake(sleeper)) {
        sleeper = sleepers;
      }
    }
  }
  latch_unlock(&latch);
  if (outcome > 0) kick(sleeper);
  return outcome;
}

bool watch_end(uint32_t id) {
  uint32_t index = id & 0xffffu;
  latch_lock(&latch);
  bool is_there = index < watch_room && watches[index].state != WATCH_FREE &&
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
  if (index < watch_room && watches[index].state == WATCH_SET &&
      watches[index].generation == id >> 16) {
    fire(index, os_monotonic_ns());
    kick(&sleepers[SLEEPER_OF(index)]);
  }
  latch_unlock(&latch);
}

void watch_end_all(struct backend *backend, const struct attachment *attachment) {
  /* Only the backend's own thread sets watches of it, and that is the caller. */
  if (backend->watch_count == 0) return;
  latch_lock(&latch);
  for (uint32_t i = 0; i < watch_room; i++) {
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
  watch_room = watch_count = 0;
  memset(sleepers, 0, sizeof sleepers);
  doorbells = NULL;
}

/* ---- doorbells ------------------------------------------------------------------------- */

/* The thread has ended: nobody listens, and nobody else has the other end any more. */
static void take_down(void *argument) {
  struct doorbell *gone = argument;
  /* A forked child that has not started the library: the latch may be the parent's for ever. */
  if (!process_is_started()) return;
  latch_lock(&latch);
  for (uint32_t i = 0; i < watch_room; i++) {
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

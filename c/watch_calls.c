/*
 * watch_calls.c - the public calls that wait without blocking, and those on words.
 */
#include "claim.h"
#include "entry.h"
#include "journal.h"
#include "lwlock_path.h"
#include "os.h"
#include "segment.h"
#include "status.h"
#include "watch.h"

#include <string.h>

/* How long a call that waits lasts at most: runtimes end Workers between two calls. */
#define SLICE_NS 100000000u

/*
 * Who has been told that a lock is free and does not come for so long: the next sleeper is woken
 * in its stead. Behind one that starves the others queue for as long as lwlock.c lets them
 * (STARVE_CHANCE_MS), so waking them earlier would be for nothing.
 */
#define ANSWER_NS 1000000u
#define STARVING_NS 10000000u

/* Between two looks for damage, of which several in a row make a lock CORRUPT. */
#define DAMAGE_LOOK_NS 20000000u
#define DAMAGE_FORGOTTEN_NS 5000000000u

/* ---- locks ----------------------------------------------------------------------------- */

/*
 * What no word tells: a death; damage, which whoever waits then looks at for itself (is_corrupt);
 * and, since in damaged memory nobody may ever be told, that nobody is in the way any more.
 */
static bool is_in_vain(const struct watch_request *request) {
  const struct claim *claim = request->claim;
  enum claim_state state = (enum claim_state)request->owner;
  return lwlock_is_blocked_by_dead(claim) || lwlock_seems_damaged(claim, state) ||
         (state == CLAIM_DRAINING ? !lwlock_has_readers(claim)
                                  : !is_claimed(atomic_load(&claim->lock->owner)));
}

/* Looks for damage, unless one has just done so: looks in a row are some time apart. */
static bool is_corrupt(struct claim *claim) {
  uint64_t now = os_monotonic_ns();
  if (now < claim->look_ns) return false;
  /* What an earlier wait has found is none of this one's. */
  if (now - claim->look_ns > DAMAGE_FORGOTTEN_NS) claim->damage_count = 0;
  claim->look_ns = now + DAMAGE_LOOK_NS;
  return lwlock_is_damaged(claim);
}

static int32_t watch_claim(struct claim *claim, const struct os_futex_wait_on *words,
                           uint32_t count, uint32_t answer_ns) {
  struct watch_request request = {.backend = claim->backend,
                                  .attachment = claim->attachment,
                                  .word_count = count,
                                  .look = is_in_vain,
                                  /* A bell: asking the kernel is for when it fails. */
                                  .looks_rarely = count > 1 && claim->damage_count == 0 &&
                                                  claim->state != CLAIM_DRAINING,
                                  .claim = claim,
                                  .owner = claim->state,
                                  .answer_ns = answer_ns};
  memcpy(request.words, words, count * sizeof *words);
  return watch_set(&request);
}

int32_t dsmr_lock_watch(uint32_t lock, uint32_t mode) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome != 0) return outcome;
  if (mode != DSMR_SHARED && mode != DSMR_EXCLUSIVE) return DSMR_E_SIZE_INVALID;
  if (claim->state != CLAIM_IDLE && !(claim->is_watched && claim->mode == mode)) {
    return DSMR_E_ALREADY_HELD;
  }
  if (!journal_reserve(claim)) {
    lwlock_cancel(claim);
    return DSMR_E_NO_SPACE;
  }
  for (;;) {
    struct os_futex_wait_on words[LWLOCK_WORDS_MAX];
    uint32_t count = 0;
    outcome = lwlock_watch(claim, (enum lwlock_mode)mode, words, &count);
    if (outcome <= LWLOCK_ACQUIRED_ABANDONED) return outcome;
    if (!control_is_ready(&claim->backend->control)) {
      outcome = DSMR_E_CLOSED;
    } else if (outcome == LWLOCK_DEAD) {
      outcome = claim_clear_the_dead(claim);
      if (outcome == 0) continue;
    } else if (is_corrupt(claim)) {
      outcome = DSMR_E_CORRUPT;
    } else {
      outcome = watch_claim(claim, words, count, claim->is_starving ? STARVING_NS : ANSWER_NS);
    }
    if (outcome < 0) lwlock_cancel(claim);
    return outcome;
  }
}

int32_t dsmr_lock_watch_variable(uint32_t lock, uint32_t offset_low, uint32_t offset_high,
                                 uint64_t *value) {
  struct claim *claim = NULL;
  uint64_t place = 0;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome != 0) return outcome;
  _Atomic uint64_t *variable = NULL;
  if (offset_low != UINT32_MAX || offset_high != UINT32_MAX) {
    outcome = claim_place(claim->attachment, offset_low, offset_high, sizeof(uint64_t), &place,
                          NULL);
    if (outcome != 0) return outcome;
    variable = (_Atomic uint64_t *)(void *)segment_lock_at(claim->attachment->mapping, place);
  }
  for (;;) {
    struct os_futex_wait_on words[LWLOCK_WORDS_MAX];
    uint32_t count = 0;
    outcome = lwlock_watch_variable(claim, variable, *value, value, words, &count);
    if (outcome <= LWLOCK_ACQUIRED_ABANDONED) return outcome;
    if (!control_is_ready(&claim->backend->control)) return DSMR_E_CLOSED;
    if (outcome == LWLOCK_BUSY) {
      return is_corrupt(claim) ? DSMR_E_CORRUPT : watch_claim(claim, words, count, 0);
    }
    outcome = claim_clear_the_dead(claim);
    if (outcome != 0) return outcome;
  }
}

/* ---- words ------------------------------------------------------------------------------- */

static int32_t word_of(uint32_t segment, uint32_t low, uint32_t high, struct attachment **found,
                       _Atomic uint32_t **word) {
  uint64_t place = 0;
  int32_t outcome = attachment_find(segment, found, NULL);
  if (outcome == 0) outcome = claim_place(*found, low, high, sizeof(uint32_t), &place, NULL);
  if (outcome != 0) return outcome;
  *word = (_Atomic uint32_t *)(void *)segment_lock_at((*found)->mapping, place);
  return 0;
}

int32_t dsmr_word_wait(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
                       uint32_t expected, int32_t timeout_ms) {
  struct attachment *attachment = NULL;
  _Atomic uint32_t *word = NULL;
  int32_t outcome = word_of(segment, offset_low, offset_high, &attachment, &word);
  if (outcome != 0) return outcome;
  uint64_t sleep_ns = timeout_ms < 0 ? SLICE_NS : (uint64_t)timeout_ms * 1000000u;
  if (atomic_load(word) == expected) {
    os_futex_wait(word, expected, sleep_ns < SLICE_NS ? sleep_ns : SLICE_NS);
  }
  return control_is_ready(&attachment->backend->control) ? 0 : DSMR_E_CLOSED;
}

int32_t dsmr_word_wake(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
                       uint32_t count) {
  struct attachment *attachment = NULL;
  _Atomic uint32_t *word = NULL;
  int32_t outcome = word_of(segment, offset_low, offset_high, &attachment, &word);
  return outcome == 0 ? (int32_t)os_futex_wake(word, count) : outcome;
}

int32_t dsmr_word_watch(uint32_t segment, uint32_t offset_low, uint32_t offset_high,
                        uint32_t expected) {
  struct attachment *attachment = NULL;
  _Atomic uint32_t *word = NULL;
  int32_t outcome = word_of(segment, offset_low, offset_high, &attachment, &word);
  if (outcome != 0) return outcome;
  if (!control_is_ready(&attachment->backend->control)) return DSMR_E_CLOSED;
  if (atomic_load(word) != expected) return 0;
  struct watch_request request = {.backend = attachment->backend,
                                  .attachment = attachment,
                                  .words = {{word, expected}},
                                  .word_count = 1};
  return watch_set(&request);
}

/* ---- what comes and goes ------------------------------------------------------------------ */

static bool owner_is_dead(const struct watch_request *request) {
  const struct control *control = &request->backend->control;
  uint32_t slot = BACKEND_SLOT(request->owner);
  uint32_t word = slot < control->backend_count_max
                      ? atomic_load_explicit(&control->backends[slot].word, memory_order_acquire)
                      : 0;
  return SLOT_STATE(word) != SLOT_LIVE ||
         BACKEND_ID(SLOT_GENERATION(word), slot) != request->owner ||
         backend_slot_is_dead(control, slot);
}

static void add_bell(struct watch_request *request, uint32_t slot) {
  const struct control *control = &request->backend->control;
  if (request->word_count >= WATCH_WORDS || slot >= control->backend_count_max) return;
  _Atomic uint32_t *bell = backend_bell(control, slot);
  uint32_t expected = 0;
  if (bell == NULL || !os_bell_listen(bell, &expected)) return;
  request->words[request->word_count++] = (struct os_futex_wait_on){bell, expected};
}

static int32_t set(const struct watch_request *request, dsmr_error *error) {
  int32_t outcome = watch_set(request);
  if (outcome >= 0) return outcome;
  return FAIL(error, outcome,
              outcome == DSMR_E_UNSUPPORTED
                  ? "Cannot wait asynchronously: this thread has no doorbell."
                  : "Cannot wait asynchronously: no memory, thread or watch is left.");
}

int32_t dsmr_segment_watch(uint32_t registry, const dsmr_segment_ticket *ticket,
                           dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, error);
  if (outcome != 0) return outcome;
  const struct control *control = &backend->control;
  if (ticket->entry >= control->entry_capacity) {
    return FAIL(error, DSMR_E_SIZE_INVALID, "The ticket is none of this registry.");
  }
  struct watch_request request = {
      .backend = backend,
      .words = {{&control->entries[ticket->entry].word, ticket->word}},
      .word_count = 1,
      .look = owner_is_dead,
      .owner = ticket->owner};
  if (entry_word(control, ticket->entry) != ticket->word || owner_is_dead(&request)) return 0;
  add_bell(&request, BACKEND_SLOT(ticket->owner));
  return set(&request, error);
}

static bool somebody_is_dead(const struct watch_request *request) {
  const struct control *control = &request->backend->control;
  for (uint32_t slot = 0; slot < control->backend_count_max; slot++) {
    if (slot != request->backend->slot && backend_slot_is_dead(control, slot)) return true;
  }
  return false;
}

int32_t dsmr_registry_watch(uint32_t registry, uint32_t *seen, dsmr_error *error) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, error);
  if (outcome != 0) return outcome;
  struct control *control = &backend->control;
  if (!control_is_ready(control)) {
    return FAIL(error, DSMR_E_CLOSED, "Registry \"%s\" was destroyed. Open it anew.",
                control->place.name);
  }
  /* The flag first, then the look: a change from here on clears it and wakes. */
  uint32_t changes = atomic_fetch_or(&control->header->changes, 1) | 1u;
  struct watch_request request = {.backend = backend,
                                  .words = {{&control->header->changes, changes}},
                                  .word_count = 1,
                                  .look = somebody_is_dead};
  if (*seen != changes >> 1 || somebody_is_dead(&request)) {
    *seen = changes >> 1;
    return 0;
  }
  for (uint32_t slot = 0; slot < control->backend_count_max; slot++) {
    if (slot != backend->slot) add_bell(&request, slot);
  }
  return set(&request, error);
}

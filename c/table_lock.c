/*
 * table_lock.c - the lock over a registry's tables, which dies with its holder.
 */
#include "control.h"

#include "os.h"
#include "status.h"

#include <errno.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
/* ThreadSanitizer does not know that a kernel lock orders memory. */
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define SANITIZER_ACQUIRE(address) __tsan_acquire(address)
#define SANITIZER_RELEASE(address) __tsan_release(address)
#endif
#endif
#ifndef SANITIZER_ACQUIRE
#define SANITIZER_ACQUIRE(address) (void)(address)
#define SANITIZER_RELEASE(address) (void)(address)
#endif

/* A waiter looks again at least this often, should the wake-up have died with its sender. */
#define TABLE_SLEEP_MAX_NS 5000000u

static int32_t lock_outcome(struct control *control, int32_t outcome, int32_t patience_ms,
                            dsmr_error *error) {
  if (outcome == 0) {
    SANITIZER_ACQUIRE(control->header);
    atomic_store_explicit(&control->header->table_holder, control->pid, memory_order_relaxed);
    return 0;
  }
  if (outcome == -EAGAIN) {
    uint32_t holder =
        atomic_load_explicit(&control->header->table_holder, memory_order_relaxed);
    return FAIL_NUMBERS(error, DSMR_E_TIMEOUT, holder, (uint64_t)patience_ms,
                        "Registry \"%s\" is in the middle of a change by process %u, which did "
                        "not go on for %d ms. Is it stopped? Let it go on, or kill it.",
                        control->place.name, holder, patience_ms);
  }
  return status_fail_os(error, outcome, "Cannot lock registry \"%s\" in %s", control->place.name,
                        control->place.directory);
}

/*
 * The kernel holds the lock, so it cannot outlive its holder; but the kernel's own waiting
 * call has no timeout. So: try, then sleep on a futex that the holder wakes, at most
 * TABLE_SLEEP_MAX_NS at a time because a holder that dies wakes nobody.
 *
 * No wake-up is lost: a waiter sets table_waiters before it tries for the last time; a
 * holder clears it after it has let go. If the try fails, the holder had not let go, so its
 * exchange comes later, sees 1, and wakes; if it came before the sleep, the word is 0 and
 * the sleep returns at once. Who has slept leaves the 1 standing: more may be asleep, and
 * its own release wakes the next.
 */
int32_t control_lock(struct control *control, int32_t patience_ms, dsmr_error *error) {
  int32_t outcome = os_lock_try(control->fd, LOCK_BYTE_TABLE);
  if (outcome != -EAGAIN) return lock_outcome(control, outcome, patience_ms, error);
  _Atomic uint32_t *waiters = &control->header->table_waiters;
  uint64_t deadline = os_monotonic_ns() + (uint64_t)patience_ms * 1000000u;
  for (;;) {
    /* Sequentially consistent; pairs with the exchange in control_unlock. */
    atomic_store(waiters, 1);
    outcome = os_lock_try(control->fd, LOCK_BYTE_TABLE);
    if (outcome != -EAGAIN) return lock_outcome(control, outcome, patience_ms, error);
    uint64_t now = os_monotonic_ns();
    if (now >= deadline) return lock_outcome(control, -EAGAIN, patience_ms, error);
    uint64_t left = deadline - now;
    os_futex_wait(waiters, 1, left < TABLE_SLEEP_MAX_NS ? left : TABLE_SLEEP_MAX_NS);
  }
}

void control_unlock(struct control *control) {
  atomic_store_explicit(&control->header->table_holder, 0, memory_order_relaxed);
  SANITIZER_RELEASE(control->header);
  (void)os_lock_release(control->fd, LOCK_BYTE_TABLE);
  /* Pairs with the store in control_lock. */
  if (atomic_exchange(&control->header->table_waiters, 0) != 0) {
    os_futex_wake(&control->header->table_waiters, 1);
  }
}

int32_t control_enter(struct control *control, dsmr_error *error) {
  int32_t patience_ms = control->patience_ms;
  return control_enter_within(control, patience_ms != 0 ? patience_ms : DSMR_TABLE_PATIENCE_MS,
                              error);
}

int32_t control_enter_within(struct control *control, int32_t patience_ms, dsmr_error *error) {
  int32_t outcome = control_lock(control, patience_ms, error);
  if (outcome != 0) return outcome;
  if (control_is_ready(control)) return 0;
  control_unlock(control);
  return FAIL(error, DSMR_E_CLOSED,
              "Registry \"%s\" was destroyed. Close it and open it anew; segments that are "
              "attached keep their memory until then.",
              control->place.name);
}

void control_announce(struct control *control) {
  /* Sequentially consistent; pairs with dsmr_registry_watch. */
  uint32_t before = atomic_fetch_add(&control->header->changes, 2);
  if ((before & 1u) == 0) return;
  atomic_fetch_and(&control->header->changes, ~1u);
  os_futex_wake(&control->header->changes, UINT32_MAX);
}

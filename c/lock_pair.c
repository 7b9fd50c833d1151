/*
 * lock_pair.c - taking and releasing a lock that nobody is in the way of: the one path that is
 * built for speed. See lwlock_path.h for what it cost before.
 */
#include "claim.h"
#include "lwlock_path.h"

int32_t dsmr_lock_acquire(uint32_t lock, uint32_t mode, int32_t timeout_ms) {
  struct claim *claim = handle_find(lock, HANDLE_LOCK);
  if (claim != NULL && claim->state == CLAIM_IDLE && claim->journal != NULL) {
    int32_t outcome = LWLOCK_BUSY;
    if (mode == DSMR_EXCLUSIVE) outcome = enter_exclusive(claim, 0);
    if (mode == DSMR_SHARED) outcome = enter_shared(claim);
    if (outcome != LWLOCK_BUSY) return outcome;
  }
  return claim_acquire(lock, mode, timeout_ms);
}

int32_t dsmr_lock_release(uint32_t lock) {
  struct claim *claim = NULL;
  int32_t outcome = claim_find(lock, &claim);
  if (outcome != 0) return outcome;
  if (claim->state != CLAIM_HELD) return DSMR_E_NOT_HELD;
  leave(claim);
  return 0;
}

/*
 * journal.c - cells of the journal, given to the locks that are in use.
 *
 * Private to the process and used by the backend's thread alone. What stands in the cells is
 * lwlock_path.h's business: a cell that is handed on is empty, since its lock is idle.
 */
#include "journal.h"

/* The n-th cell's owner may lose it. */
static bool is_free(const struct backend *backend, uint32_t n) {
  const struct claim *owner = backend->journal_owners[n];
  if (owner == NULL || owner->state == CLAIM_IDLE) return true;
  /* Between two attempts it has nothing in the journal. */
  return owner->state == CLAIM_WAITING && owner->is_watched;
}

bool journal_reserve(struct claim *claim) {
  if (claim->journal != NULL) return true;
  struct backend *backend = claim->backend;
  /* Round and round: the one that has had its cell for longest goes first, as far as one look
   * can tell, and a search begins where the last one ended. */
  for (uint32_t i = 0; i < HELD_MAX; i++) {
    uint32_t n = backend->journal_hand;
    backend->journal_hand = (n + 1) % HELD_MAX;
    if (!is_free(backend, n)) continue;
    if (backend->journal_owners[n] != NULL) backend->journal_owners[n]->journal = NULL;
    backend->journal_owners[n] = claim;
    claim->journal = &claim->slot->held[n];
    return true;
  }
  return false;
}

void journal_forget(struct claim *claim) {
  if (claim->journal == NULL) return;
  claim->backend->journal_owners[claim->journal - claim->slot->held] = NULL;
  claim->journal = NULL;
}

/*
 * journal.h - which cell of the backend's journal (backend_slot.held) is whose.
 *
 * A lock that is used again and again keeps its cell: so the way into a lock that nobody wants
 * writes one word to it, and the way out one zero. A cell changes hands only when all are taken
 * and a lock without one is to be acquired; then an idle lock loses its cell.
 */
#ifndef DSMR_JOURNAL_H
#define DSMR_JOURNAL_H

#include "lwlock.h"

/* Gives the claim a cell if it has none. False if HELD_MAX locks are held or waited for. */
bool journal_reserve(struct claim *claim);
/* The claim goes: its cell, which is empty, is anybody's. */
void journal_forget(struct claim *claim);

#endif

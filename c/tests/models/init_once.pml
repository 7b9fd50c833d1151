/*
 * init_once.pml - the protocol of registry.c and entry.c, for SPIN. run.ts runs it.
 *
 * One name, two cells of the entry table (a segment that was dropped while somebody is attached
 * stays in its cell, without the name), three slots. Everybody asks for the name with a size and
 * a callback: waits, initialises, commits or aborts, or attaches; may hold a lock inside the
 * segment, drop the name, detach. Each store, and each load that can change under the loader, is
 * one step, and between any two the process may be killed, inside the table lock, too.
 *
 * Bounds: 3 backends, one request for each tenant of a slot, KILLS kills in all, 2 cells.
 *
 *   KILLS=n      how many kills
 *   TENANTS=n    how many of the killed backends' slots get a next tenant, at most
 *   TIMEOUTS=0   futex sleeps as they are, without time-outs: finds lost wake-ups
 *   TIMEOUTS=1   a wait ends as soon as what it looks at has changed: what bounded sleeps come to
 *
 * Waits end for a reason only, and everybody has one request: so no execution is endless, and
 * that no process is left over in the end says that every waiter has proceeded.
 *
 * A M_... define breaks one thing; SPIN must find the error. M_NOW_... is a defect that the first
 * version had: this file is the repaired protocol.
 *
 * What is checked: nobody initialises beside another; the memory it gets is zero, and no file that
 * is left over from a death; nobody attaches to what was not committed, filled and linked; who
 * initialises still owns the entry when it commits or aborts; who is attached has its segment; the
 * reaper touches locks of the segment that the journal means; in the end, once the last dead are
 * reaped, no entry is INITIALIZING or DROPPING, nobody dead is attached, and the files are those of
 * the entries.
 *
 * Not here: other names (hashing, tombstones: EMPTY and TOMBSTONE are one state, FREE), sizes,
 * failing system calls, destroy, the wait graph, the counts, how the table lock sleeps
 * (table_lock.pml), sequences and ids that wrap.
 */

#ifndef KILLS
#define KILLS 1
#endif
#ifndef TENANTS
#define TENANTS KILLS
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 1
#endif

#define SLEEPS (TIMEOUTS == 0)
#define IDS 6 /* 2 cells, and 3 journals that may name one of the past; 0 is none */
#define BIT(slot) (1 << (slot))
#define BACKEND_ID(slot) (gen[slot] << 2 | ((slot) + 1))

/* entry.word's state. Its sequence never wraps: see `ticket`. */
#define FREE 0
#define INITIALIZING 1
#define READY 2
#define DROPPING 3
#define DROPPED 5
#define STATE(cell) word[cell]
#define IS_FOUND(cell) (STATE(cell) == INITIALIZING || STATE(cell) == READY)
#define IS_ATTACHABLE(cell) (STATE(cell) == READY || STATE(cell) == DROPPED)

/* ---- shared memory ---------------------------------------------------------------------- */

byte word[2];     /* entry.word: the only one that is looked at without the table lock */
byte ticket[3];   /* the cell + 1 of a word that this backend remembers, until the word changes */
byte owner[2];    /* entry.owner */
byte id[2];       /* entry.id */
byte attached[2]; /* entry.attached */
bit lifetime;     /* entry.flags: 1 = ENTRY_LIFETIME_ATTACHED */
bit live[3];      /* the state in slot.word */
byte gen[3];      /* the generation in slot.word */
byte journal[3];  /* slot.held: the cell + 1 of a lock that may be marked, or 0 */

/* ---- files, and the kernel ---------------------------------------------------------------- */

#define ZERO 1
#define HALF 2
#define FULL 3
byte memory[IDS]; /* of the file that is named after an id */
bit is_linked[IDS];
bit alive[3];
byte table;       /* the table lock: its holder + 1 */
byte asleep[3];   /* the futex queues: cell + 1 */
byte kills = KILLS;
byte tenants = TENANTS;
byte victim;      /* pid: killed, about to vanish; nobody else moves before */

/* ---- what the properties speak of ------------------------------------------------------------ */

byte initializing[3]; /* the id that this backend initialises: between begin and commit */
bit committed[IDS];
byte locked[3];       /* the id of the segment of the lock in the journal */
bit over[3];

#define SLOT_IS_DEAD(slot) (live[slot] && !alive[slot])
#define NONE_IS_DEAD (!SLOT_IS_DEAD(0) && !SLOT_IS_DEAD(1) && !SLOT_IS_DEAD(2))
/* backend_is_alive */
#define IS_ALIVE(backend) \
  ((backend) != 0 && live[((backend) & 3) - 1] && alive[((backend) & 3) - 1] && gen[((backend) & 3) - 1] == (backend) >> 2)
#define SLOT_IS_ALIVE(slot) (live[slot] && alive[slot])

/* has_living, of registry.c */
#define HAS_LIVING(cell) \
  (STATE(cell) == INITIALIZING -> IS_ALIVE(owner[cell]) : \
   (!lifetime || ((attached[cell] & 1) && SLOT_IS_ALIVE(0)) || ((attached[cell] & 2) && SLOT_IS_ALIVE(1)) || \
    ((attached[cell] & 4) && SLOT_IS_ALIVE(2))))

/* os_futex_wake(&entry.word, UINT32_MAX) */
#if SLEEPS
inline wake(cell) {
  d_step {
    if :: asleep[0] == cell + 1 -> asleep[0] = 0 :: else fi;
    if :: asleep[1] == cell + 1 -> asleep[1] = 0 :: else fi;
    if :: asleep[2] == cell + 1 -> asleep[2] = 0 :: else fi
  }
}
#define THEN_WAKE(cell) ; wake(cell)
#else
#define THEN_WAKE(cell)
#endif

/* Stores a word with another sequence: whoever remembers the old one sees a difference. */
inline store_word(cell, state) {
  word[cell] = state;
  if :: ticket[0] == cell + 1 -> ticket[0] = 0 :: else fi;
  if :: ticket[1] == cell + 1 -> ticket[1] = 0 :: else fi;
  if :: ticket[2] == cell + 1 -> ticket[2] = 0 :: else fi
}

inline control_lock() { d_step { table == 0 -> table = me + 1 } }
#define UNLOCK if :: table == me + 1 -> table = 0 :: else fi
inline control_unlock() { d_step { UNLOCK } }

/* ---- entry.c ------------------------------------------------------------------------------------ */

/* An unlinked file that nobody is attached to is as if it had never been. */
#ifdef M_ID_TWICE
#define FORGET_FILE(number) skip
#else
#define FORGET_FILE(number) memory[number] = 0
#endif

/* entry_remove, once the word is DROPPING. FREE stands for TOMBSTONE. */
inline finish_removal(cell) {
  d_step { is_linked[id[cell]] = 0; committed[id[cell]] = 0; FORGET_FILE(id[cell]) }; /* segment_unlink */
  /* Nobody looks at a FREE cell's other fields: they are cleared to have fewer states. */
  d_step { store_word(cell, FREE); id[cell] = 0; owner[cell] = 0; attached[cell] = 0 }
#ifndef M_NO_WAKE_AFTER_ABORT
  THEN_WAKE(cell)
#endif
}

/* entry_detach: the slot was the last one, and the entry goes with it */
#define GOES_WITH_LAST(cell) (attached[cell] == 0 && (lifetime || STATE(cell) == DROPPED))

/* entry_forget_backend, one cell */
inline forget_in(cell) {
  if
  :: d_step { STATE(cell) == INITIALIZING && owner[cell] == dead -> store_word(cell, DROPPING) };
    finish_removal(cell)
  :: d_step { IS_ATTACHABLE(cell) -> attached[cell] = attached[cell] & ~BIT(target) }; /* entry_detach */
    if
    :: d_step { GOES_WITH_LAST(cell) -> store_word(cell, DROPPING) };
      finish_removal(cell)
    :: !GOES_WITH_LAST(cell)
    fi
#ifndef M_NO_SWEEP
  :: STATE(cell) == DROPPING -> finish_removal(cell)
#endif
  :: else
  fi
}

/* ---- backend.c ------------------------------------------------------------------------------------ */

/* reap: the slot `target`, whose tenant was `dead`. */
inline reap() {
  if
  :: d_step {
      journal[target] != 0 ->
      /* reap_lock writes into the segment that now has the cell: it must be the one meant. */
      assert(!IS_ATTACHABLE(journal[target] - 1) || id[journal[target] - 1] == locked[target]);
      journal[target] = 0;
      locked[target] = 0
    }
  :: journal[target] == 0
  fi;
  forget_in(0);
  forget_in(1);
  d_step { live[target] = 0; gen[target] = (gen[target] + 1) & 7; target = 0; dead = 0 } /* vacate */
}

/* backend_reap_dead */
inline reap_dead() {
  do
  :: d_step { SLOT_IS_DEAD(0) -> target = 0; dead = BACKEND_ID(0) } -> reap()
  :: d_step { SLOT_IS_DEAD(1) -> target = 1; dead = BACKEND_ID(1) } -> reap()
  :: d_step { SLOT_IS_DEAD(2) -> target = 2; dead = BACKEND_ID(2) } -> reap()
  :: NONE_IS_DEAD -> break
  od
}

/* join: reaps the dead, of whom its slot's last tenant is one, and claim_slot. */
inline join() {
  control_lock();
  reap_dead();
  if /* claim_slot: its word is stored last */
  :: d_step { journal[me] = 0; live[me] = 1; alive[me] = 1 }
  fi;
  control_unlock()
}

/* ---- a backend ---------------------------------------------------------------------------------------- */

#define IS_IN_USE(number) \
  (id[0] == (number) || id[1] == (number) || is_linked[number] || locked[0] == (number) || \
   locked[1] == (number) || locked[2] == (number))
#define NOBODY_INITIALIZES (initializing[0] == 0 && initializing[1] == 0 && initializing[2] == 0)

inline forget() { target = 0; dead = 0; cell = 0; mine = 0; whose = 0; ticket[me] = 0 }
inline finish() { forget(); over[me] = 1 }

proctype backend(byte me) provided (victim == 0 || victim == _pid) {
  byte target, dead; /* of the reaper */
  byte cell;         /* attachment.entry, or ticket.entry */
  byte mine;         /* attachment.id */
  byte whose;        /* ticket.owner */

  do
  :: {
    if
    :: !alive[me] -> join()
    :: alive[me]
    fi;

    /* ---- dsmr_segment_begin, under the table lock ---- */
begin:
    if :: d_step { table == 0 -> table = me + 1 } fi;
find: /* find_living: entry_find meets the cells in their order */
    if
    :: d_step { IS_FOUND(0) && HAS_LIVING(0) -> cell = 0 } -> goto found
    :: d_step { !IS_FOUND(0) && IS_FOUND(1) && HAS_LIVING(1) -> cell = 1 } -> goto found
    :: d_step { IS_FOUND(0) && !HAS_LIVING(0) -> cell = 0 }
    :: d_step { !IS_FOUND(0) && IS_FOUND(1) && !HAS_LIVING(1) -> cell = 1 }
    :: d_step { !IS_FOUND(0) && !IS_FOUND(1) && STATE(0) == FREE -> cell = 0 } -> goto create
    :: d_step { !IS_FOUND(0) && !IS_FOUND(1) && STATE(0) != FREE && STATE(1) == FREE -> cell = 1 };
      goto create
    :: !IS_FOUND(0) && !IS_FOUND(1) && STATE(0) != FREE && STATE(1) != FREE ->
      if /* begin_create: the dead may hold some */
      :: d_step { NONE_IS_DEAD -> UNLOCK; finish() } -> goto finished /* DSMR_E_REGISTRY_FULL */
      :: !NONE_IS_DEAD -> reap_dead(); goto find
      fi
    fi;
    ticket[me] = cell + 1;
#ifdef M_REAP_WITHOUT_TABLE_LOCK
    control_unlock();
#endif
    reap_dead();
#ifdef M_REAP_WITHOUT_TABLE_LOCK
    control_lock();
    d_step { cell = 0; ticket[me] = 0 };
#else
    if
    :: d_step {
        assert(ticket[me] == 0); /* the second half of find_living is for damaged memory */
        cell = 0
      }
    fi;
#endif
    goto find;

found:
    if
    :: d_step { /* begin_attach: segment_open */
        STATE(cell) == READY ->
        mine = id[cell];
        assert(is_linked[mine])
      };
      d_step { attached[cell] = attached[cell] | BIT(me); UNLOCK }; /* entry_attach */
      goto use
    :: d_step { /* begin_wait */
        STATE(cell) == INITIALIZING ->
        ticket[me] = cell + 1;
        whose = owner[cell];
        assert(whose != BACKEND_ID(me));
        UNLOCK
      }
    fi;

    /* ---- dsmr_segment_wait ---- */
#if SLEEPS
    do
    :: d_step { ticket[me] == 0 || !IS_ALIVE(whose) -> cell = 0; ticket[me] = 0; whose = 0 };
      goto begin
    :: ticket[me] != 0 && IS_ALIVE(whose) ->
      if /* os_futex_wait(&entry.word) */
#ifdef M_NO_RECHECK
      :: asleep[me] = cell + 1
#else
      :: d_step { ticket[me] != 0 -> asleep[me] = cell + 1 }
      :: ticket[me] == 0
#endif
      fi;
      asleep[me] == 0
    od;
#else
    d_step { ticket[me] == 0 || !IS_ALIVE(whose) -> cell = 0; ticket[me] = 0; whose = 0 };
    goto begin;
#endif

    /* ---- begin_create ---- */
create: /* entry_insert: nobody looks at anything of a FREE cell, so its stores are one step */
#ifdef M_WORD_FIRST
    if :: d_step { store_word(cell, INITIALIZING) } fi;
#endif
    if
    :: d_step {
        /* new_id: one that no file and no journal has. That it was never given before comes to
         * the same, and has more states. */
        mine = 1;
        do
        :: IS_IN_USE(mine) -> mine++
        :: else -> break
        od;
        id[cell] = mine;
        owner[cell] = BACKEND_ID(me);
        attached[cell] = 0
      }
    fi;
#ifndef M_WORD_FIRST
    d_step { store_word(cell, INITIALIZING) };
#endif
    d_step { /* segment_create, with O_EXCL */
      ticket[me] = cell + 1;
      is_linked[mine] = 1;
      if :: memory[mine] == 0 -> memory[mine] = ZERO :: else fi;
      UNLOCK
    };

    /* ---- the callback ---- */
    d_step {
      assert(NOBODY_INITIALIZES);
      initializing[me] = mine;
      assert(memory[mine] == ZERO && !committed[mine]); /* fresh */
#ifndef M_COMMIT_BEFORE_FILL
      memory[mine] = HALF
#endif
    };
#ifndef M_COMMIT_BEFORE_FILL
    if
    :: d_step { table == 0 -> table = me + 1; initializing[me] = 0 } -> goto abort
    :: memory[mine] = FULL
    fi;
#endif

    /* ---- dsmr_segment_commit ---- */
    d_step {
      table == 0 ->
      table = me + 1;
      assert(ticket[me] != 0); /* else DSMR_E_CORRUPT */
      attached[cell] = attached[cell] | BIT(me) /* entry_attach */
    };
    d_step { /* entry_publish */
      store_word(cell, READY);
      owner[cell] = 0; /* from now on for people only */
      initializing[me] = 0;
      committed[mine] = 1
#if !SLEEPS
      ; UNLOCK
#endif
    };
#if SLEEPS
#ifndef M_NO_WAKE_AFTER_COMMIT
    wake(cell);
#endif
    control_unlock();
#endif

#ifdef M_COMMIT_BEFORE_FILL
    memory[mine] = FULL;
#endif
use: /* segment_map, and what the user does */
    if
    :: d_step { assert(committed[mine] && memory[mine] == FULL); finish() } -> goto finished /* stays */
    :: d_step { /* takes a lock of the segment, and keeps it */
        assert(committed[mine] && memory[mine] == FULL);
        journal[me] = cell + 1;
        locked[me] = mine
      }
    fi;
    if
    :: d_step { /* dsmr_segment_drop: entry_drop; we are attached */
        table == 0 ->
        if :: STATE(cell) == READY && id[cell] == mine -> store_word(cell, DROPPED) :: else fi
      }
    :: true
    fi;

    /* ---- dsmr_segment_detach ---- */
#ifndef M_NOW_DETACH_FIRST
    d_step { journal[me] = 0; locked[me] = 0 }; /* lets go of its locks first */
#endif
    d_step { /* entry_detach */
      table == 0 ->
      table = me + 1;
      assert(id[cell] == mine && IS_ATTACHABLE(cell)); /* as long as we are attached it stays */
      attached[cell] = attached[cell] & ~BIT(me)
    };
    if
    :: d_step { GOES_WITH_LAST(cell) -> store_word(cell, DROPPING) };
      finish_removal(cell);
      control_unlock()
    :: d_step { !GOES_WITH_LAST(cell) -> UNLOCK }
    fi;
    if
    :: d_step { journal[me] = 0; locked[me] = 0; finish() }
    fi;
    goto finished;

abort: /* ---- dsmr_segment_abort: remove_own ---- */
    if
    :: d_step { assert(ticket[me] != 0); store_word(cell, DROPPING) }
    fi;
    finish_removal(cell);
    d_step { UNLOCK; finish() };
    goto finished
  } unless {
    atomic {
      victim == _pid ->
      victim = 0;
      forget();
      if /* Killed. Is there a next tenant for the slot? */
      :: tenants > 0 -> tenants--
      :: finish(); goto finished
      fi
    }
  }
  od;
finished:
}

/* ---- death, and the end ------------------------------------------------------------------------------------ */

inline kill(slot) {
  kills--;
  victim = slot + 1;
  alive[slot] = 0;
  asleep[slot] = 0;
  initializing[slot] = 0;
  if :: table == slot + 1 -> table = 0 :: else fi
}

/* What every listing does: the last dead are reaped, too. */
proctype last(byte me) {
  byte target, dead;
  reap_dead();
  if
  :: d_step {
    assert(STATE(0) == FREE || IS_ATTACHABLE(0));
    assert(STATE(1) == FREE || IS_ATTACHABLE(1));
    assert(STATE(0) != READY || STATE(1) != READY);
    /* Who is attached is alive; who is alive and attached has not lost its segment. */
    assert((!(attached[0] & 1) || STATE(0) == FREE || alive[0]) && (!(attached[0] & 2) || STATE(0) == FREE || alive[1]));
    assert((!(attached[1] & 1) || STATE(1) == FREE || alive[0]) && (!(attached[1] & 2) || STATE(1) == FREE || alive[1]));
    assert((!(attached[0] & 4) || STATE(0) == FREE || alive[2]) && (!(attached[1] & 4) || STATE(1) == FREE || alive[2]));
    /* No file is left over, none is missing. */
    target = 1;
    do
    :: target < IDS ->
      assert(is_linked[target] == ((STATE(0) != FREE && id[0] == target) || (STATE(1) != FREE && id[1] == target)));
      target++
    :: else -> break
    od;
    assert(!is_linked[0])
  }
  fi
}

init {
  d_step { live[0] = 1; live[1] = 1; live[2] = 1; alive[0] = 1; alive[1] = 1; alive[2] = 1 };
  atomic {
    if
    :: lifetime = 0
    :: lifetime = 1
    fi;
    run backend(0);
    run backend(1);
    run backend(2)
  };
  do
  /* Slots are alike: the first to be killed is in slot 0. */
  :: d_step { kills > 0 && victim == 0 && !over[0] -> kill(0) }
  :: d_step { kills > 0 && kills < KILLS && victim == 0 && !over[1] -> kill(1) }
  :: d_step { kills > 0 && kills < KILLS && victim == 0 && !over[2] -> kill(2) }
  :: d_step { over[0] && over[1] && over[2] && victim == 0 -> kills = 0; tenants = 0 }; break
  od;
  run last(3)
}

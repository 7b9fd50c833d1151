/*
 * lwlock.pml - the protocol of lwlock.c, for SPIN. run.ts runs it; see there for the bounds.
 *
 * One lock, three slots. Each shared-memory operation of lwlock.c is one step, and between any
 * two steps the process may be killed (see `init`): it vanishes at once, the kernel lets go of
 * its table lock, and its slot may be given to a new tenant, with the next generation, once it
 * has been reaped. Whoever waits and finds a dead backend in its way reaps it under the table
 * lock, step by step, and may be killed at that, too. So may the new tenant, which reaps first.
 *
 * What is checked:
 *   - an exclusive holder is alone, and no shared one is inside with it (step_inside, clear_bit);
 *   - no live holder is robbed of its bit or its token (clear_bit, leave_inside);
 *   - POISON is set if and only if an exclusive holder has died inside, or has abandoned, and
 *     nobody has called markConsistent since (`half`), whenever somebody comes in, and in the end;
 *   - in the end the lock is free, nobody starves, and the journals are empty;
 *   - clear_the_dead never meets a mark of a backend that the table does not know;
 *   - everybody gets in: no process is left over, and with TIMEOUTS=2 nothing goes on for ever.
 *
 * Bounds. 3 backends; ROUNDS acquisitions for the first tenant of slot 0, one for everybody else.
 * The mode of each acquisition is open.
 *
 *   KILLS=n           how many kills
 *   TENANTS=n         how many of the killed backends' slots get a next tenant, at most
 *   ROUNDS=n          see above
 *   CANCELS=1         whoever waits may give up, at any time
 *   STARVE=1          whoever waits may become the one that starves, at any time
 *   CHANCE=1          and may be passed over at any time, as one that has had its chance
 *   EXCLUSIVE_ONLY=1  nobody asks for the shared mode
 *   BIAS=1            a reader that leaves may set BIAS, and any reader may try to come in by
 *                     its mark, at any time
 *   TIMEOUTS=0        a sleeper wakes when it is woken, never else: finds lost wake-ups
 *   TIMEOUTS=1        a sleep may end at any time
 *   TIMEOUTS=2        sleeps end by time-out when nothing else can happen any more, all at once;
 *                     then every cycle that `pan -l` finds is one in which nobody gets in
 *
 * A M_... define breaks one thing; SPIN must find the error. M_NOW_... are defects that the first
 * version of lwlock.c had: this file is the repaired protocol.
 *
 * Memory is sequentially consistent here. M_NO_FENCE and M_NO_FENCE_DRAIN give a reader a store
 * buffer of one entry, for the two pairs of Dekker that need sequential consistency.
 *
 * Several C operations are one step where that adds or hides nothing:
 *   - a compare-and-swap loop that ends is its last, successful round (the rounds before have
 *     only read); so is disclaim followed by disclaim_slowly;
 *   - the four words of readers are one: all backends here are in the first; and the marks of all
 *     slots are read at once, for behind a claim no mark comes that lets its reader in;
 *   - reading what only a dead backend has written, and the last store under the table lock with
 *     the unlocking, or with the wake-ups of a reaper among each other;
 *   - `attempt` is tried once before each sleep, not SPINS times; lwlock_try is an acquisition
 *     that is cancelled at once.
 *
 * Not here: variables (lwlock_wait_for_variable), the bell (a time-out stands for it), counters,
 * tranches, the wait graph, generations that wrap, more than one lock, how the table lock sleeps
 * (table_lock.pml).
 */

#ifndef KILLS
#define KILLS 1
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef TENANTS
#define TENANTS KILLS
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 1
#endif
#ifndef CANCELS
#define CANCELS 1
#endif
#ifndef CHANCE
#define CHANCE 0
#endif
#ifndef STARVE
#define STARVE 0
#endif
#ifndef EXCLUSIVE_ONLY
#define EXCLUSIVE_ONLY 0
#endif

#ifndef BIAS
#define BIAS 0
#endif

#define N 3
#define SHARED 1
#define EXCLUSIVE 2

/* lwlock.owner; a token is generation << 2 | slot + 1. */
#define POISON 128
#define WAITERS 64
#define STARVING 32
#define BIASED 16
#define TOKEN(word) ((word) & 15)
#define IS_CLAIMED (TOKEN(owner) != 0)
#define TOKEN_OF(slot) (gen[slot] << 2 | ((slot) + 1))
#define SLOT_OF(token) (((token) & 3) - 1)
#define BIT(slot) (1 << (slot))

/* lwlock.starving: a token, and whether it wants to be exclusive. */
#define STARVING_EXCLUSIVE 16
#define MY_STARVING (TOKEN_OF(me) | (mode == EXCLUSIVE -> STARVING_EXCLUSIVE : 0))

/* What one may sleep on. */
#define ON_OWNER 1
#define ON_DRAIN 2
#define ON_EVENTS 3

/*
 * Where a sleep may end at any time, nobody need be put to sleep: it is a step that may come
 * at once, or later. Nor can anything that is about waking have an effect then (`drain`).
 */
#define SLEEPS (TIMEOUTS != 1)

/* ---- shared memory ---------------------------------------------------------------------- */

byte owner, phase, readers, drain, starving, events;
bit live[N];    /* the state in slot.word; changed under the table lock */
byte gen[N];    /* the generation in slot.word */
bit journal[N]; /* slot.held, of which there is one lock to name */
bit waiting[N]; /* slot.waiting_lock */
byte mark[N];   /* the lock's cell of marks: 1 shared, which is the mark; 2 HELD_UNMARKED */

/* ---- the kernel -------------------------------------------------------------------------- */

bit alive[N];   /* the lock on the slot's byte */
byte table;     /* the table lock: its holder + 1 */
byte asleep[N]; /* the futex queues */
byte kills = KILLS;
byte tenants = TENANTS;
byte victim;    /* pid: killed, about to vanish; nobody else moves before */

/* ---- what the properties speak of ----------------------------------------------------------- */

byte inside[N]; /* SHARED or EXCLUSIVE while the caller may touch the data */
bit half;       /* an exclusive holder died inside, or abandoned, and nobody has repaired it */
bit over[N];    /* no more tenants */

#define NOBODY_ELSE_INSIDE \
  ((me == 0 || inside[0] == 0) && (me == 1 || inside[1] == 0) && (me == 2 || inside[2] == 0))
#define NO_EXCLUSIVE_INSIDE \
  (inside[0] != EXCLUSIVE && inside[1] != EXCLUSIVE && inside[2] != EXCLUSIVE)

/* A LIVE slot whose tenant is gone: backend_slot_is_dead. */
#define SLOT_IS_DEAD(slot) (live[slot] && !alive[slot])
#define TOKEN_IS_KNOWN(token) (live[SLOT_OF(token)] && gen[SLOT_OF(token)] == (token) >> 2)
#define TOKEN_IS_DEAD(token) ((token) != 0 && (!TOKEN_IS_KNOWN(token) || !alive[SLOT_OF(token)]))
/* reader_is_dead, for all bits */
#define SOME_BIT_IS_OF_THE_DEAD \
  (((readers & 1) && !(live[0] && alive[0])) || ((readers & 2) && !(live[1] && alive[1])) || \
   ((readers & 4) && !(live[2] && alive[2])))
#if BIAS
#define COUNTS(slot) (mark[slot] == 1 && live[slot])
#define SOME_MARK ((owner & BIASED) && (COUNTS(0) || COUNTS(1) || COUNTS(2)))
/* lwlock_has_readers */
#define HAS_READERS (readers != 0 || SOME_MARK)
#define IS_OF_THE_DEAD(slot) (COUNTS(slot) && !alive[slot])
#define SOME_READER_IS_DEAD (SOME_BIT_IS_OF_THE_DEAD || ((owner & BIASED) && \
  (IS_OF_THE_DEAD(0) || IS_OF_THE_DEAD(1) || IS_OF_THE_DEAD(2))))
#else
#define HAS_READERS (readers != 0)
#define SOME_READER_IS_DEAD SOME_BIT_IS_OF_THE_DEAD
#endif

/* os_futex_wake(word, 1): the queue's order is not relied on. */
inline wake_one(word) {
  if
  :: d_step { asleep[0] == word -> asleep[0] = 0 }
  :: d_step { asleep[1] == word -> asleep[1] = 0 }
  :: d_step { asleep[2] == word -> asleep[2] = 0 }
  :: asleep[0] != word && asleep[1] != word && asleep[2] != word
  fi
}

/* Of disclaim_slowly. The word changes, so that a sleep that is about to begin does not. */
inline notify_starving() {
#ifndef M_NOW_SLEEP_ON_NAME
  events = (events + 1) & 3; /* atomic_fetch_add(events) */
#endif
  d_step { /* os_futex_wake(events, UINT32_MAX) */
    if :: asleep[0] == ON_EVENTS -> asleep[0] = 0 :: else fi;
    if :: asleep[1] == ON_EVENTS -> asleep[1] = 0 :: else fi;
    if :: asleep[2] == ON_EVENTS -> asleep[2] = 0 :: else fi
  }
}

/* What follows a statement, or not at all. */
#if SLEEPS
#define THEN_WAKE_ONE(word) ; wake_one(word)
#define THEN_NOTIFY_STARVING ; notify_starving()
#define THEN_NOTIFY_CLAIMANT ; notify_claimant()
#else
#define THEN_WAKE_ONE(word)
#define THEN_NOTIFY_STARVING
#define THEN_NOTIFY_CLAIMANT
#endif

/* os_futex_wait_any has returned. */
#if SLEEPS
#define AWAKE (asleep[me] == 0)
#else
#define AWAKE true
#endif

/* ---- a store buffer of one entry, for two mutations -------------------------------------------- */

#if defined(M_NO_FENCE) || defined(M_NO_FENCE_DRAIN)
byte buffer[N]; /* 1: to set the bit, 2: to clear it */
active proctype processor() {
end:
  do
  :: d_step { buffer[0] == 1 -> readers = readers | 1; buffer[0] = 0 }
  :: d_step { buffer[0] == 2 -> readers = readers & ~1; buffer[0] = 0 }
  :: d_step { buffer[1] == 1 -> readers = readers | 2; buffer[1] = 0 }
  :: d_step { buffer[1] == 2 -> readers = readers & ~2; buffer[1] = 0 }
  :: d_step { buffer[2] == 1 -> readers = readers | 4; buffer[2] = 0 }
  :: d_step { buffer[2] == 2 -> readers = readers & ~4; buffer[2] = 0 }
  od
}
#define FIRST_PID 2
#define FLUSHED (buffer[me] == 0)
#define NO_STORES_LEFT (buffer[0] == 0 && buffer[1] == 0 && buffer[2] == 0)
#else
#define FIRST_PID 1
#define FLUSHED true
#define NO_STORES_LEFT true
#endif

/* ---- reaping ------------------------------------------------------------------------------------ */

/* lwlock_reap: takes the backend with the token `id`, in slot `target`, out of the lock. */
inline lwlock_reap() {
  readers = readers & ~BIT(target); /* atomic_fetch_and(readers) */
  do
  /* atomic_load(owner), atomic_load(phase): while the dead one owns, nobody changes phase. */
  :: d_step { TOKEN(owner) == id -> seen = owner; was_inside = (phase == id) };
    if /* compare_exchange(owner) */
    :: d_step {
        owner == seen ->
#ifdef M_BIAS_REAPED
        owner = (seen & (POISON | STARVING)) | (was_inside -> POISON : 0);
#else
        owner = (seen & (POISON | STARVING | BIASED)) | (was_inside -> POISON : 0);
#endif
        seen = 0;
        was_inside = 0
      };
      break
    :: d_step { owner != seen -> seen = 0; was_inside = 0 }
    fi
  :: TOKEN(owner) != id -> break
  od
#if STARVE
  ; if
#ifdef M_REAP_NAME_FIRST
  :: d_step { TOKEN(starving) == id -> starving = 0 }; /* compare_exchange(starving) */
    owner = owner & ~STARVING                          /* atomic_fetch_and(owner) */
#else
  /* The flag first, as in stop_starving: a reaper that dies in between begins again. */
  :: TOKEN(starving) == id -> /* atomic_load(starving) */
    owner = owner & ~STARVING;
    d_step { if :: TOKEN(starving) == id -> starving = 0 :: else fi }
#endif
  :: TOKEN(starving) != id
  fi
#endif
#if SLEEPS
  ; drain = (drain + 2) & 7; /* atomic_fetch_add(drain, 2) */
#if STARVE
  events = (events + 1) & 3; /* atomic_fetch_add(events, 2) */
#endif
  d_step { asleep[0] = 0; asleep[1] = 0; asleep[2] = 0 } /* os_futex_wake of each word, all */
#endif
}

/* backend.c, reap: from the journal to vacate. What the dead have written stays as it is. */
inline reap() {
  if
  :: journal[target] ->
    lwlock_reap();
    journal[target] = 0 /* row->held[i] = 0 */
  :: !journal[target]
  fi;
#if BIAS
  if
  :: mark[target] != 0 ->
    mark[target] = 2; /* before lwlock_reap wakes who waits for it */
    lwlock_reap();
    mark[target] = 0
  :: mark[target] == 0
  fi;
#endif
#if STARVE
  if
  :: waiting[target] -> lwlock_reap()
  :: !waiting[target]
  fi;
#endif
  d_step { vacate(target); id = 0; target = 0 }
}

/* The slot's word, stored last. */
inline vacate(slot) { waiting[slot] = 0; live[slot] = 0; gen[slot] = (gen[slot] + 1) & 3 }

#define IS_MARKED(slot) (journal[slot] || waiting[slot] || mark[slot])

/* backend_reap_dead, in any order. Leaves the loop it is in when there are no more. */
inline reap_one() {
  if
  :: d_step { SLOT_IS_DEAD(0) && IS_MARKED(0) -> target = 0; id = TOKEN_OF(0) } -> reap()
  :: d_step { SLOT_IS_DEAD(1) && IS_MARKED(1) -> target = 1; id = TOKEN_OF(1) } -> reap()
  :: d_step { SLOT_IS_DEAD(2) && IS_MARKED(2) -> target = 2; id = TOKEN_OF(2) } -> reap()
  :: d_step { SLOT_IS_DEAD(0) && !IS_MARKED(0) -> vacate(0) }
  :: d_step { SLOT_IS_DEAD(1) && !IS_MARKED(1) -> vacate(1) }
  :: d_step { SLOT_IS_DEAD(2) && !IS_MARKED(2) -> vacate(2) }
  fi
}
#define NONE_IS_DEAD (!SLOT_IS_DEAD(0) && !SLOT_IS_DEAD(1) && !SLOT_IS_DEAD(2))

/* lock.c, clear_the_dead */
inline clear_the_dead() {
#ifndef M_REAP_WITHOUT_TABLE_LOCK
  d_step { table == 0 -> table = me + 1; met_dead = 0 }; /* control_enter */
#else
  met_dead = 0;
#endif
  do
  :: reap_one()
  :: d_step {
      NONE_IS_DEAD ->
#ifndef M_REAP_WITHOUT_TABLE_LOCK
      /* Its second half is for damaged memory: else it finds nothing to do, ever. */
      assert(TOKEN(owner) == 0 || TOKEN_IS_KNOWN(TOKEN(owner)));
      assert(TOKEN(starving) == 0 || TOKEN_IS_KNOWN(TOKEN(starving)));
      assert((!(readers & 1) || live[0]) && (!(readers & 2) || live[1]) && (!(readers & 4) || live[2]));
#endif
      if :: table == me + 1 -> table = 0 :: else fi /* control_unlock */
    };
    break
  od
}

/* backend.c, join: reaps the dead, of whom its slot's last tenant is one, and claim_slot. */
inline join() {
  d_step { table == 0 -> table = me + 1 }; /* control_lock */
  do
  :: reap_one()
  /* claim_slot: row->held is cleared, and the slot's byte locked, before it is LIVE */
  :: d_step { NONE_IS_DEAD -> journal[me] = 0; live[me] = 1; alive[me] = 1 }; break
  od;
  if /* control_unlock */
#if !EXCLUSIVE_ONLY
  :: d_step { table = 0; mode = SHARED }
#endif
  :: d_step { table = 0; mode = EXCLUSIVE }
  fi
}

/* ---- parts of the lock ------------------------------------------------------------------------------ */

inline forget() {
  seen = 0; event = 0; has_slept = 0; met_dead = 0; was_inside = 0; is_starving = 0; target = 0; id = 0
}

inline finish() { forget(); mode = 0; rounds = 0; over[me] = 1 }

/* lwlock_release, exclusive: the first store. */
inline leave_inside() {
  d_step {
    assert(TOKEN(owner) == TOKEN_OF(me) && phase == TOKEN_OF(me)); /* not robbed */
#ifndef M_PHASE_AFTER_OWNER
    phase = 0;
#endif
    inside[me] = 0
  }
}

/* Clearing our bit: of take_bit_back and lwlock_release. */
inline clear_bit() {
  d_step {
    FLUSHED ->
#ifndef M_NO_FENCE
    assert(readers & BIT(me)); /* not robbed */
#endif
    assert(inside[me] == 0 || NO_EXCLUSIVE_INSIDE);
    inside[me] = 0;
#ifdef M_NO_FENCE_DRAIN
    buffer[me] = 2
#else
    readers = readers & ~BIT(me) /* atomic_fetch_and */
#endif
  }
}

/* notify_claimant */
inline notify_claimant() {
  if
  :: drain & 1 -> /* atomic_load(drain) */
    drain = (drain + 1) & 7; /* atomic_fetch_add(drain, 1) */
    wake_one(ON_DRAIN)
  :: !(drain & 1)
  fi
}

/* Who gives up while draining leaves BIAS; who was inside has cleared it. */
#ifdef M_BIAS_GIVEN_UP
#define KEPT_BIAS 0
#else
#define KEPT_BIAS BIASED
#endif

/* lwlock_unmark_cell: out of the lock, or back from an attempt. */
inline unmark_cell() {
  d_step {
    assert(mark[me] == 1); /* not robbed */
    assert(inside[me] == 0 || NO_EXCLUSIVE_INSIDE);
    inside[me] = 0;
    mark[me] = 2 /* atomic_exchange */
  };
#ifndef M_UNMARK_SILENTLY
  if /* atomic_load(owner) */
  :: IS_CLAIMED -> skip THEN_NOTIFY_CLAIMANT
  :: !IS_CLAIMED
  fi;
#endif
  mark[me] = 0
}

/* disclaim, disclaim_slowly: clears the owner word, and wakes who comes next. */
inline disclaim() {
  if
  :: d_step { owner & STARVING -> owner = owner & (POISON | STARVING | WAITERS | KEPT_BIAS) }
    THEN_NOTIFY_STARVING
#ifdef M_RELEASE_WITHOUT_WAKE
  :: d_step { !(owner & STARVING) && (owner & WAITERS) -> owner = owner & (POISON | KEPT_BIAS) }
#else
  :: d_step { !(owner & STARVING) && (owner & WAITERS) -> owner = owner & (POISON | KEPT_BIAS) }
    THEN_WAKE_ONE(ON_OWNER)
#endif
  :: d_step { !(owner & STARVING) && !(owner & WAITERS) -> owner = owner & (POISON | KEPT_BIAS) }
  fi
}

/* stop_starving, and the end of the record that names us there. */
inline stop_starving() {
  if
  :: d_step { is_starving -> owner = owner & ~STARVING }; /* atomic_fetch_and(owner) */
    d_step {                                              /* compare_exchange(starving) */
      if :: starving == MY_STARVING -> starving = 0 :: else fi;
      is_starving = 0;
      has_slept = 1 /* was_starving: the same to end_waiting */
    }
  :: !is_starving
  fi;
  waiting[me] = 0
}

/* ---- a backend ---------------------------------------------------------------------------------------- */

proctype backend(byte me; byte mode) provided (victim == 0 || victim == _pid) {
  byte rounds = (me == 0 -> ROUNDS : 1);
  byte seen;        /* a word that was loaded: what a compare-and-swap or a sleep expects */
  byte event;       /* events, before a sleep */
  byte target, id;  /* of the reaper */
  bit was_inside;   /* of the reaper */
  bit has_slept;    /* claim.has_slept */
  bit met_dead;     /* what a sleep returned */
  bit is_starving;  /* claim.is_starving */

  do
  :: {
    if
    :: !alive[me] -> join()
    :: alive[me]
    fi;
attempt:
#if BIAS
    if
    :: mode == SHARED && !is_starving -> goto try_mark
    :: true
    fi;
#endif
attempt_by_bit:
    if
#ifdef M_NO_JOURNAL_FIRST
    :: mode == SHARED
    :: mode == EXCLUSIVE -> goto enter_exclusive
#else
    :: d_step { mode == SHARED -> journal[me] = 1 }    /* journal_write */
    :: d_step { mode == EXCLUSIVE -> journal[me] = 1 } /* journal_write */
      goto enter_exclusive
#endif
    fi;

    /* ---- enter_shared, after its journal_write ---- */
#ifdef M_NO_FENCE
    d_step { FLUSHED -> buffer[me] = 1 };
#else
    d_step { FLUSHED -> readers = readers | BIT(me) }; /* atomic_fetch_or(readers) */
#endif
#ifdef M_NO_JOURNAL_FIRST
    journal[me] = 1;
#endif
    if /* atomic_load(owner) */
    :: d_step { !IS_CLAIMED && (!(owner & STARVING) || is_starving) -> inside[me] = SHARED };
      goto held_shared
#if STARVE
    :: !IS_CLAIMED && (owner & STARVING) && !is_starving ->
      if /* must_queue: atomic_load(starving) */
#ifdef M_NOW_CLEAR_FLAG
      :: starving == 0 ->
        d_step { owner = owner & ~STARVING; inside[me] = SHARED }; /* atomic_fetch_and(owner) */
        goto held_shared
#else
      :: d_step { starving == 0 -> inside[me] = SHARED };
        goto held_shared
#endif
      :: d_step { starving != 0 && !(starving & STARVING_EXCLUSIVE) -> inside[me] = SHARED };
        goto held_shared
      :: starving & STARVING_EXCLUSIVE
#if CHANCE
      :: d_step { starving != 0 -> inside[me] = SHARED };
        goto held_shared
#endif
      fi
#endif
    :: IS_CLAIMED
    fi;
    /* take_bit_back */
    clear_bit() THEN_NOTIFY_CLAIMANT;
    if /* journal_clear */
    :: d_step { FLUSHED && met_dead -> journal[me] = 0 };
      clear_the_dead()
    :: d_step { FLUSHED && !met_dead -> journal[me] = 0 }
    fi;
    goto wait_slowly;

    /* ---- enter_exclusive, after its journal_write ---- */
enter_exclusive:
    do
    :: d_step { /* compare_exchange(owner) */
        !IS_CLAIMED && (!(owner & STARVING) || is_starving) ->
#ifdef M_NO_WAITERS_KEPT
        owner = owner | TOKEN_OF(me);
#else
        owner = owner | TOKEN_OF(me) | (has_slept -> WAITERS : 0);
#endif
        seen = 0
      };
      break
#if STARVE
    :: d_step { !IS_CLAIMED && (owner & STARVING) && !is_starving -> seen = owner };
      if /* must_queue: atomic_load(starving) */
      :: starving != 0 -> goto exclusive_busy
#if CHANCE
      :: starving != 0
#endif
#ifdef M_NOW_CLEAR_FLAG
      :: starving == 0 -> owner = owner & ~STARVING; /* atomic_fetch_and(owner) */
#else
      :: starving == 0
#endif
      fi;
      if /* compare_exchange(owner), with the flag */
      :: d_step { owner == seen -> owner = owner | TOKEN_OF(me) | (has_slept -> WAITERS : 0); seen = 0 };
        break
      :: d_step { owner != seen -> seen = 0 }
      fi
#endif
    :: IS_CLAIMED -> goto exclusive_busy
    od;
#ifdef M_NO_JOURNAL_FIRST
    journal[me] = 1;
#endif
#ifdef M_PHASE_BEFORE_DRAIN
    phase = TOKEN_OF(me);
#endif
#ifdef M_BIAS_FIRST
    if
    :: owner & BIASED -> owner = owner & ~BIASED; /* and then looks at the marks */
      if
      :: (mark[0] != 1 || !alive[0]) && (mark[1] != 1 || !alive[1]) && (mark[2] != 1 || !alive[2])
      fi
    :: !(owner & BIASED)
    fi;
#endif
    if /* has_reader_bits */
    :: readers == 0 && !(owner & BIASED) -> goto step_inside
#if BIAS
    :: readers == 0 && (owner & BIASED) -> goto look_at_marks
#endif
    :: readers != 0 && met_dead -> clear_the_dead()
    :: readers != 0 && !met_dead
    fi;
    goto draining;

#if BIAS
    /* ---- lwlock_finish_draining, after it has found no bit ---- */
look_at_marks:
    if
    :: !(owner & BIASED) -> goto step_inside
    :: (owner & BIASED) && !SOME_MARK ->
      owner = owner & ~BIASED; /* atomic_fetch_and(owner) */
      goto step_inside
    :: SOME_MARK && met_dead -> clear_the_dead()
    :: SOME_MARK && !met_dead
    fi;
    goto draining;

    /* ---- lwlock_try_mark ---- */
try_mark:
#ifdef M_MARK_AFTER_LOOK
    if
    :: (owner & ~WAITERS) == BIASED -> d_step { mark[me] = 1; inside[me] = SHARED }; goto held_marked
    :: (owner & ~WAITERS) != BIASED -> goto attempt_by_bit
    fi;
#endif
    mark[me] = 1; /* atomic_exchange */
    if /* atomic_load(owner) */
    :: d_step { (owner & ~WAITERS) == BIASED -> inside[me] = SHARED }; goto held_marked
    :: (owner & ~WAITERS) != BIASED
    fi;
    unmark_cell();
    goto attempt_by_bit;
#endif

exclusive_busy:
    if /* journal_clear */
    :: d_step { met_dead -> journal[me] = 0; seen = 0 };
      clear_the_dead()
    :: d_step { !met_dead -> journal[me] = 0; seen = 0 }
    fi;
    goto wait_slowly;

    /* ---- wait_slowly, CLAIM_DRAINING: sleep_until_drained ---- */
draining:
    if
#if BIAS
    :: !HAS_READERS -> goto look_at_marks
#else
    :: readers == 0 -> goto step_inside /* has_readers */
#endif
#if CANCELS
    :: d_step { HAS_READERS -> skip } -> goto cancel_draining
#endif
#if !SLEEPS
    :: SOME_READER_IS_DEAD -> clear_the_dead()
#elif defined(M_NO_DRAIN_FLAG)
    :: d_step { HAS_READERS -> seen = drain };
#else
    :: d_step { HAS_READERS && (drain & 1) -> seen = drain }   /* atomic_load(drain) */
    :: d_step { HAS_READERS && !(drain & 1) -> seen = drain };
      if                                      /* compare_exchange(drain) */
      :: d_step { drain == seen -> drain = drain | 1; seen = drain }
      :: d_step { drain != seen -> seen = 0 } -> goto draining
      fi;
#endif
    fi;
#if SLEEPS
#ifndef M_NO_LOOK_BEFORE_SLEEP
    if /* lwlock_readers: has_any */
    :: d_step { !HAS_READERS -> seen = 0 } -> goto draining
    :: HAS_READERS
    fi;
#endif
    if /* os_futex_wait_any(drain) */
    :: d_step { drain == seen -> asleep[me] = ON_DRAIN; seen = 0 }
    :: d_step { drain != seen -> seen = 0 }
    fi;
    if
    :: AWAKE && !SOME_READER_IS_DEAD
    :: AWAKE && SOME_READER_IS_DEAD -> clear_the_dead()
    fi;
#endif
    goto draining;

    /* ---- wait_slowly, CLAIM_WAITING: sleep_until_free ---- */
wait_slowly:
#if STARVE
    waiting[me] = 1; /* publish_waiting */
    if
    :: !is_starving -> /* start_starving */
      if /* compare_exchange(starving) */
      :: d_step { starving == 0 -> starving = MY_STARVING; is_starving = 1 };
        owner = owner | STARVING /* atomic_fetch_or(owner) */
      :: starving != 0
      fi
    :: true /* has not waited for long; or is it already */
    fi;
#ifndef M_NOW_SLEEP_ON_NAME
    if
    :: d_step { is_starving -> event = events } /* atomic_load(events), before the owner word */
    :: !is_starving
    fi;
#endif
#endif
    if
#if CANCELS && STARVE
    :: true -> goto cancel_waiting
#elif CANCELS && SLEEPS
    :: has_slept -> goto pass_on
    :: !has_slept -> goto released
#elif CANCELS
    :: d_step { rounds > 1 -> forget(); rounds--; mode = SHARED } -> goto attempt
    :: d_step { rounds > 1 -> forget(); rounds--; mode = EXCLUSIVE } -> goto attempt
    :: d_step { rounds <= 1 -> finish() } -> goto finished
#endif
    /* atomic_load(owner) */
    :: !IS_CLAIMED && (!(owner & STARVING) || is_starving) -> goto attempt
#if STARVE
    :: d_step { !IS_CLAIMED && (owner & STARVING) && !is_starving -> seen = owner };
      if /* must_queue: atomic_load(starving) */
#ifdef M_NOW_CLEAR_FLAG
      :: starving == 0 ->
        d_step { owner = owner & ~STARVING; seen = 0 }; /* atomic_fetch_and(owner) */
        goto attempt
#else
      :: d_step { starving == 0 -> seen = 0 } -> goto attempt
#endif
      :: d_step { starving != 0 && mode == SHARED && !(starving & STARVING_EXCLUSIVE) -> seen = 0 };
        goto attempt
      :: starving != 0 && (mode == EXCLUSIVE || (starving & STARVING_EXCLUSIVE))
#if CHANCE
      :: d_step { starving != 0 -> seen = 0 } -> goto attempt
#endif
      fi
#ifdef M_NOW_CLEAR_FLAG
    :: IS_CLAIMED && is_starving && !(owner & STARVING) ->
      owner = owner | STARVING; /* the flag was taken away: put it back, try again */
      goto attempt
#endif
    :: d_step { IS_CLAIMED && is_starving && (owner & STARVING) -> seen = owner };
#if SLEEPS && defined(M_NOW_SLEEP_ON_NAME)
      if /* os_futex_wait_any(starving) */
      :: d_step { starving == MY_STARVING -> asleep[me] = ON_EVENTS }
      :: starving != MY_STARVING
      fi;
#elif SLEEPS
      if /* os_futex_wait_any(events) */
      :: d_step { events == event -> asleep[me] = ON_EVENTS; event = 0 }
      :: d_step { events != event -> event = 0 }
      fi;
#endif
      goto asleep_until_free
#endif
    :: d_step { IS_CLAIMED && !is_starving -> seen = owner }
    fi;
#ifndef M_NO_WAITERS_FLAG
    if
    :: seen & WAITERS
    :: !(seen & WAITERS) ->
      if /* compare_exchange(owner) */
      :: d_step { owner == seen -> owner = owner | WAITERS; seen = owner }
      :: d_step { owner != seen -> seen = 0 } -> goto attempt
      fi
    fi;
#endif
#if SLEEPS
    if /* os_futex_wait_any(owner) */
#ifdef M_NO_RECHECK
    :: d_step { asleep[me] = ON_OWNER }
#else
    :: d_step { owner == seen -> asleep[me] = ON_OWNER }
    :: owner != seen
#endif
    fi;
#endif
asleep_until_free:
    if
    :: d_step {
        AWAKE ->
        has_slept = 1;
#ifndef M_NO_LOOK_FOR_THE_DEAD
        /* token_is_dead(blocker) */
        met_dead = TOKEN_IS_DEAD(TOKEN(seen)) || (TOKEN(seen) == 0 && TOKEN_IS_DEAD(TOKEN(starving)));
#endif
        seen = 0
      }
    fi;
    goto attempt;

    /* ---- lwlock_cancel ---- */
#if CANCELS
cancel_draining:
    disclaim();
#if SLEEPS || STARVE
    journal[me] = 0; /* journal_clear */
#endif
#if STARVE
cancel_waiting:
    stop_starving();
#endif
#if SLEEPS
    if
    :: has_slept
    :: !has_slept -> goto released
    fi;
pass_on: /* end_waiting: the wake-up was perhaps meant for somebody else */
    wake_one(ON_OWNER);
#endif
    goto released;
#endif

    /* ---- inside ---- */
#if BIAS
held_marked:
#if SLEEPS
    if
    :: has_slept -> has_slept = 0 THEN_WAKE_ONE(ON_OWNER)
    :: !has_slept
    fi;
#endif
    unmark_cell();
    goto released;
#endif

held_shared:
#if STARVE
    stop_starving();
#endif
#if SLEEPS
    if
    :: has_slept -> has_slept = 0
#ifndef M_NO_PASS_ON
      THEN_WAKE_ONE(ON_OWNER); /* end_waiting: passes the wake-up on */
#endif
      clear_bit()
    :: !has_slept -> clear_bit()
    fi;
    if /* atomic_load(owner) */
    :: owner != 0 -> notify_claimant()
    :: owner == 0
    fi;
#else
    if :: clear_bit() fi;
#endif
#if BIAS
    if /* lwlock_leave_readers */
    :: d_step { (owner & ~WAITERS) == 0 -> owner = owner | BIASED } /* compare_exchange(owner) */
    :: true
    fi;
#endif
    goto released;

step_inside:
    if
    :: d_step {
        phase = TOKEN_OF(me);
        inside[me] = EXCLUSIVE;
        has_slept = 0;
        met_dead = 0;
        assert(NOBODY_ELSE_INSIDE);
        assert(TOKEN(owner) == TOKEN_OF(me));
        assert(((owner & POISON) != 0) == half) /* what held() returns */
      }
    fi;
#if STARVE
    stop_starving();
#endif
    if
    :: d_step { half -> owner = owner & ~POISON; half = 0 }; /* lwlock_mark_consistent */
      leave_inside()
    :: leave_inside()
    :: goto abandon
    fi;
    disclaim();
#ifdef M_PHASE_AFTER_OWNER
    phase = 0;
#endif
    goto released;

abandon: /* lwlock_abandon: from its first step on, the data count as half-done. */
#ifdef M_NOW_ABANDON_PHASE_FIRST
    if :: d_step { phase = 0; inside[me] = 0; half = 1 } fi;
    owner = owner | POISON; /* disclaim_slowly sets it in the step that lets go */
#else
    if :: d_step { owner = owner | POISON; half = 1 } fi; /* atomic_fetch_or(owner) */
    d_step { phase = 0; inside[me] = 0 };
#endif
    disclaim();

released: /* journal_clear, and the next acquisition */
    if
#if !EXCLUSIVE_ONLY
    :: d_step { FLUSHED && rounds > 1 -> journal[me] = 0; forget(); rounds--; mode = SHARED };
      goto attempt
#endif
    :: d_step { FLUSHED && rounds > 1 -> journal[me] = 0; forget(); rounds--; mode = EXCLUSIVE };
      goto attempt
    :: d_step { FLUSHED && rounds <= 1 -> journal[me] = 0; finish() };
      goto finished
    fi
  } unless {
    atomic {
      victim == _pid ->
      victim = 0;
      forget();
      rounds = 1;
      mode = 0;
      if /* Killed. Is there a next tenant for the slot? */
      :: tenants > 0 -> tenants--
      :: finish(); goto finished
      fi
    }
  }
  od;
finished:
}

/* ---- death, time, and the end ---------------------------------------------------------------------------- */

/* Nobody need be killed; a kill comes at any time. */
inline kill(slot) {
  kills--;
  victim = FIRST_PID + slot;
  alive[slot] = 0;
  asleep[slot] = 0;
  if :: table == slot + 1 -> table = 0 :: else fi;
  if :: inside[slot] == EXCLUSIVE -> half = 1 :: else fi;
  inside[slot] = 0
}

/* Reaps a slot that nobody has reaped so far; its journal is all there is to go by. */
inline reap_rest(slot) {
  if
  :: SLOT_IS_DEAD(slot) && IS_MARKED(slot) ->
    readers = readers & ~BIT(slot);
    if
    :: TOKEN(owner) == TOKEN_OF(slot) ->
      owner = (owner & (POISON | STARVING | BIASED)) | (phase == TOKEN_OF(slot) -> POISON : 0)
    :: else
    fi;
    if :: TOKEN(starving) == TOKEN_OF(slot) -> starving = 0; owner = owner & ~STARVING :: else fi;
    journal[slot] = 0;
    mark[slot] = 0;
    waiting[slot] = 0
  :: else
  fi
}

#define EVERYTHING_IS_OVER (over[0] && over[1] && over[2] && NO_STORES_LEFT)

init {
  byte a, b, c;
  d_step { live[0] = 1; live[1] = 1; live[2] = 1; alive[0] = 1; alive[1] = 1; alive[2] = 1 };
  /* Slots are alike; so the first to be killed is in slot 0, it has the most to do, and 1 and 2
   * may be exchanged. */
  atomic {
    if
    :: a = EXCLUSIVE; b = EXCLUSIVE; c = EXCLUSIVE
#if !EXCLUSIVE_ONLY
    :: a = SHARED; b = SHARED; c = SHARED
    :: a = SHARED; b = SHARED; c = EXCLUSIVE
    :: a = SHARED; b = EXCLUSIVE; c = EXCLUSIVE
#if KILLS > 0 || ROUNDS > 1
    :: a = EXCLUSIVE; b = SHARED; c = SHARED
    :: a = EXCLUSIVE; b = SHARED; c = EXCLUSIVE
#endif
#endif
    fi;
    run backend(0, a);
    run backend(1, b);
    run backend(2, c);
    a = 0; b = 0; c = 0
  };
  do
#if KILLS > 0
  :: d_step { kills > 0 && victim == 0 && !over[0] -> kill(0) }
  :: d_step { kills > 0 && kills < KILLS && victim == 0 && !over[1] -> kill(1) }
  :: d_step { kills > 0 && kills < KILLS && victim == 0 && !over[2] -> kill(2) }
#endif
#if TIMEOUTS == 2
  :: timeout && (asleep[0] || asleep[1] || asleep[2]) -> d_step { asleep[0] = 0; asleep[1] = 0; asleep[2] = 0 }
#endif
  :: d_step {
      EVERYTHING_IS_OVER && victim == 0 ->
      kills = 0;
      tenants = 0;
      reap_rest(0); reap_rest(1); reap_rest(2);
      assert(TOKEN(owner) == 0 && readers == 0);
      assert(starving == 0 && !(owner & STARVING));
      assert(!journal[0] && !journal[1] && !journal[2]);
      assert(!mark[0] && !mark[1] && !mark[2]);
      assert(((owner & POISON) != 0) == half)
    };
    break
  od
}

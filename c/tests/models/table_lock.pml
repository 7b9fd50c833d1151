/*
 * table_lock.pml - how control_lock and control_unlock of control.c sleep, for SPIN.
 *
 * Three backends, each takes the table lock ROUNDS times. No time-outs and no deaths: a sleeper
 * wakes when it is woken. That no process is left over in the end says that no wake-up is lost.
 */

#ifndef ROUNDS
#define ROUNDS 3
#endif

bit held;    /* by the kernel: os_lock_try, os_lock_release */
bit waiters; /* header.table_waiters */
bit asleep[3];
byte inside;

proctype backend(byte me) {
  byte rounds = ROUNDS;
  do
  :: rounds == 0 -> break
  :: rounds > 0 ->
    /* ---- control_lock ---- */
    if
    :: d_step { !held -> held = 1; inside++ } -> goto locked
    :: held
    fi;
    do
    :: waiters = 1; /* atomic_store(waiters, 1) */
#ifndef M_SLEEP_WITHOUT_TRYING
      if
      :: d_step { !held -> held = 1; inside++ }; break
      :: held
      fi;
#endif
      if /* os_futex_wait(waiters, 1) */
#ifdef M_NO_RECHECK
      :: asleep[me] = 1
#else
      :: d_step { waiters == 1 -> asleep[me] = 1 }
      :: waiters == 0
#endif
      fi;
      asleep[me] == 0
#ifdef M_SLEEP_WITHOUT_TRYING
      ;
      if
      :: d_step { !held -> held = 1; inside++ }; break
      :: held
      fi
#endif
    od;
#ifdef M_CLEAR_WHEN_LOCKED
    waiters = 0; /* instead of leaving the 1 for the others */
#endif
locked:
    assert(inside == 1);
    /* ---- control_unlock ---- */
#ifdef M_CLEAR_BEFORE_RELEASE
    if
    :: d_step { waiters == 1 -> waiters = 0 }; d_step { held = 0; inside-- }; goto wake
    :: waiters == 0 -> d_step { held = 0; inside-- }; goto next
    fi;
#else
    d_step { held = 0; inside-- }; /* os_lock_release */
    if /* atomic_exchange(waiters, 0) */
    :: d_step { waiters == 1 -> waiters = 0 }
    :: waiters == 0 -> goto next
    fi;
#endif
wake: /* os_futex_wake(waiters, 1) */
    if
    :: d_step { asleep[0] -> asleep[0] = 0 }
    :: d_step { asleep[1] -> asleep[1] = 0 }
    :: d_step { asleep[2] -> asleep[2] = 0 }
    :: !asleep[0] && !asleep[1] && !asleep[2]
    fi;
next:
    rounds--
  od
}

init {
  atomic { run backend(0); run backend(1); run backend(2) }
}

/*
 * death.c - from kill -9 of a lock's holder to the next owner running.
 *
 *   death DIRECTORY mutex ROUNDS              glibc's robust mutex, for comparison
 *   death DIRECTORY dsmr ROUNDS               ours; the next owner is a C program
 *   death DIRECTORY dsmr ROUNDS COMMAND ...   it is COMMAND: see death_child.ts
 *
 * Prints the microseconds of each round in one line. The waiter reads a byte from its input,
 * takes the lock of segment "data", writes the time of CLOCK_MONOTONIC in ns to the segment's
 * first 8 bytes, marks the lock consistent, lets go and writes a byte to its output.
 */
#include "../bench.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/wait.h>

#define WAITERS_MAX 16

struct peer {
  pthread_mutex_t mutex;
  _Atomic int is_coming; /* the waiter is about to wait */
};

static uint32_t registry;
static uint32_t segment;
static uint32_t own_lock;
static struct peer *peer; /* NULL: ours is measured */

static int32_t init_peer(void *address, uint64_t size, void *argument) {
  (void)size;
  (void)argument;
  struct peer *fresh = address;
  return -init_robust_mutex(&fresh->mutex);
}

static void attach(const char *directory, int is_mutex) {
  registry = open_registry(directory, "lock");
  segment = get_segment(registry, "data");
  own_lock = lock_of(segment);
  if (!is_mutex) return;
  int32_t peers =
      dsmr_get_named_segment(registry, "robust", sizeof *peer, init_peer, NULL, -1, NULL, NULL);
  must(peers > 0, "segment robust");
  peer = dsmr_segment_address((uint32_t)peers);
}

static _Atomic int64_t *acquired_ns(void) { return dsmr_segment_address(segment); }

static void holder(int say) {
  if (peer != NULL) {
    must(pthread_mutex_lock(&peer->mutex) == 0, "pthread_mutex_lock");
  } else {
    must(acquire(own_lock, DSMR_EXCLUSIVE) >= 0, "acquire");
  }
  must(write(say, "h", 1) == 1, "write");
  for (;;) pause();
}

static void waiter(void) {
  char byte;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
    if (peer != NULL) {
      atomic_store(&peer->is_coming, 1);
      int outcome = pthread_mutex_lock(&peer->mutex);
      atomic_store(acquired_ns(), (int64_t)now_ns());
      must(outcome == EOWNERDEAD, "the mutex is not inconsistent");
      pthread_mutex_consistent(&peer->mutex);
      pthread_mutex_unlock(&peer->mutex);
    } else {
      int32_t outcome = acquire(own_lock, DSMR_EXCLUSIVE);
      atomic_store(acquired_ns(), (int64_t)now_ns());
      must(outcome == DSMR_LOCK_ABANDONED, "the lock is not abandoned");
      (void)dsmr_lock_mark_consistent(own_lock);
      (void)dsmr_lock_release(own_lock);
    }
    must(write(STDOUT_FILENO, "a", 1) == 1, "write");
  }
}

static pid_t start_waiter(const char *directory, int is_mutex, char **command, int hear,
                          int say) {
  pid_t self = getpid();
  pid_t child = fork();
  must(child >= 0, "fork");
  if (child > 0) return child;
  end_with_parent(self);
  must(dup2(hear, STDIN_FILENO) == 0 && dup2(say, STDOUT_FILENO) == 1, "dup2");
  if (command[0] == NULL) {
    attach(directory, is_mutex);
    waiter();
  } else {
    execvp(command[0], command);
    perror(command[0]);
  }
  _exit(1);
}

/* Whether the process is in the list of who waits for a lock. */
static int is_listed(pid_t pid) {
  dsmr_lock_info infos[WAITERS_MAX];
  int32_t found = dsmr_locks(registry, infos, WAITERS_MAX, NULL);
  must(found >= 0 && found <= WAITERS_MAX, "dsmr_locks");
  for (int32_t i = 0; i < found; i++) {
    if (infos[i].pid == (uint32_t)pid && infos[i].is_waiting == 1) return 1;
  }
  return 0;
}

static void until_it_waits(pid_t pid) {
  while (peer != NULL ? atomic_exchange(&peer->is_coming, 0) == 0 : !is_listed(pid)) {
    must(waitpid(pid, NULL, WNOHANG) == 0, "the waiter ended");
    sleep_ns(1e5);
  }
}

/* Microseconds. */
static double one_death(const char *directory, int round, pid_t waiting, int tell, int hear) {
  int from_holder[2];
  must(pipe(from_holder) == 0, "pipe");
  pid_t self = getpid();
  pid_t holding = fork();
  must(holding >= 0, "fork");
  if (holding == 0) {
    end_with_parent(self);
    attach(directory, peer != NULL);
    holder(from_holder[1]);
  }
  close(from_holder[1]);
  char byte;
  must(read(from_holder[0], &byte, 1) == 1, "the holder ended");
  close(from_holder[0]);
  must(write(tell, "g", 1) == 1, "the waiter ended");
  until_it_waits(waiting);
  /* Until it is asleep, and then at another moment of its sleep each time. */
  sleep_ns(1e6 + 2.5e5 * (round % 16));
  double killed = now_ns();
  kill(holding, SIGKILL);
  must(read(hear, &byte, 1) == 1, "the waiter ended");
  double acquired = (double)atomic_load(acquired_ns());
  waitpid(holding, NULL, 0);
  return (acquired - killed) / 1e3;
}

int main(int count, char **words) {
  if (count < 4) return 2;
  int is_mutex = strcmp(words[2], "mutex") == 0;
  signal(SIGPIPE, SIG_IGN);
  int to_waiter[2];
  int from_waiter[2];
  must(pipe(to_waiter) == 0 && pipe(from_waiter) == 0, "pipe");
  pid_t waiting = start_waiter(words[1], is_mutex, words + 4, to_waiter[0], from_waiter[1]);
  close(to_waiter[0]);
  close(from_waiter[1]);
  attach(words[1], is_mutex);
  int rounds = atoi(words[3]);
  for (int round = 0; round < rounds; round++) {
    printf("%.1f ", one_death(words[1], round, waiting, to_waiter[1], from_waiter[0]));
    /* Before the next fork, which would inherit what is not yet written. */
    fflush(stdout);
  }
  printf("\n");
  kill(waiting, SIGKILL);
  waitpid(waiting, NULL, 0);
  return 0;
}

/*
 * os_posix.c - of the operating-system seam, what all systems do the same way.
 */
#include "os.h"

#include "dsmr.h"
#include "os_fault.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#ifdef DSMR_FAULTS
_Thread_local struct os_fault os_fault;

int32_t os_fault_next(void) {
  os_fault.calls++;
  if (os_fault.countdown == 0 || --os_fault.countdown > 0) return 0;
  return -os_fault.os_errno;
}
#endif

/* ---- doorbells and threads ----------------------------------------------------------- */

bool os_pair_is_open(const struct os_pair *pair) {
  struct os_file_info info = {0};
  return os_file_info(pair->theirs, &info) == 0 && info.inode == pair->inode &&
         info.device == pair->device;
}

void os_pair_close(const struct os_pair *pair) {
  if (os_pair_is_open(pair)) os_file_close(pair->theirs);
  os_file_close(pair->ours);
}

/* What a new thread gets; it frees it. */
struct start {
  void (*run)(void *argument);
  void *argument;
};

static void *run_thread(void *argument) {
  struct start start = *(struct start *)argument;
  free(argument);
  start.run(start.argument);
  return NULL;
}

int32_t os_thread_start(void (*run)(void *argument), void *argument) {
  FAULT();
  struct start *start = calloc(1, sizeof *start);
  if (start == NULL) return -ENOMEM;
  *start = (struct start){run, argument};
  sigset_t all;
  sigset_t before;
  memset(&all, 0xff, sizeof all); /* sigfillset, without a call */
  int32_t outcome = pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  if (outcome == 0) outcome = pthread_create(&thread, NULL, run_thread, start);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (outcome == 0) (void)pthread_detach(thread);
  else free(start);
  return -outcome;
}

/* ---- the rest -------------------------------------------------------------------- */

int32_t os_directory_scan(const char *directory, int32_t (*visit)(const char *name, void *argument),
                          void *argument) {
  FAULT();
  DIR *stream = opendir(directory);
  if (stream == NULL) return -errno;
  int32_t outcome = 0;
  struct dirent *found;
  while (outcome == 0) {
    errno = 0;
    found = readdir(stream);
    if (found == NULL) {
      outcome = -errno;
      break;
    }
    outcome = visit(found->d_name, argument);
  }
  closedir(stream);
  return outcome;
}

void os_stay_loaded(void) {
  static char inside;
  Dl_info info;
  if (dladdr(&inside, &info) == 0 || info.dli_fname == NULL) return;
  /* NULL in a program that has the library linked in: that one is not unloaded. Never closed: to
   * stay is the purpose. */
  (void)dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

const char *os_errno_text(int32_t os_errno) { return strerror(os_errno); }

int32_t os_status_of(int32_t os_errno) {
  switch (os_errno) {
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP:
      return DSMR_E_PERMISSION;
    case ENOENT:
    case ENOTDIR:
      return DSMR_E_NOT_FOUND;
    case EEXIST:
      return DSMR_E_EXISTS;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOLCK:
      return DSMR_E_NO_SPACE;
    case ENAMETOOLONG:
      return DSMR_E_NAME_TOO_LONG;
    case ENXIO:
    case EISDIR:
#if EOPNOTSUPP != ENOTSUP
    case EOPNOTSUPP: /* opening a socket; a file system that cannot says ENOTSUP */
#endif
      return DSMR_E_CORRUPT;
    default:
      return DSMR_E_UNSUPPORTED;
  }
}

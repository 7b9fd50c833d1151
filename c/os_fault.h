/*
 * os_fault.h - FAULT(): where a test may have a system call fail; see os.h.
 */
#ifndef DSMR_OS_FAULT_H
#define DSMR_OS_FAULT_H

#include "os.h"

#ifdef DSMR_FAULTS
/* 0, or the negative errno that this call is to return. */
int32_t os_fault_next(void);
#define FAULT()                         \
  do {                                  \
    int32_t injected = os_fault_next(); \
    if (injected != 0) return injected; \
  } while (0)
#else
#define FAULT() (void)0
#endif

#endif

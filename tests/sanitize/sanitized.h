#ifndef MAGMAX_TESTS_SANITIZE_SANITIZED_H
#define MAGMAX_TESTS_SANITIZE_SANITIZED_H

/* Whether this is a sanitized build. There the emulated GPU is ten times
 * slower, and tests leave out what goes the same ways through the code again:
 * numbers are compared in full in the other builds. */
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

#endif

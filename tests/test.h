/* What every test program includes: cmocka with the headers it wants in front. */
#ifndef TSR_TESTS_TEST_H
#define TSR_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/base/status.h"

/* Fails with both names when a status is not the expected one. */
#define ASSERT_STATUS(expected, actual)                                                            \
    assert_string_equal(tsr_status_name(expected), tsr_status_name(actual))

/* Of a program that is given a pattern, only the cases that it names are run: all of them take too long under
 * a sanitizer. */
static inline void test_choose(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
}

#endif

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

#endif

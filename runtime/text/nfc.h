/*
 * Unicode's normal form C as the reference computes it: with the marks of Unicode 9. Marks that
 * came later neither compose nor change places, here as there.
 */
#ifndef TSR_RUNTIME_TEXT_NFC_H
#define TSR_RUNTIME_TEXT_NFC_H

#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"

#include <stddef.h>

/* Appends the normal form of valid UTF-8. Linear in `count`, whatever the text. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_nfc_add(const char *text, size_t count, tsr_text *out);

#endif

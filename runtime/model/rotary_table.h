/* Cosines and sines of every position: what rotates queries and keys. */
#ifndef TSR_RUNTIME_MODEL_ROTARY_TABLE_H
#define TSR_RUNTIME_MODEL_ROTARY_TABLE_H

#include <stdint.h>

/*
 * Row `position` of both tables, [rotary_dim / 2], every step rounded to fp32 as Hugging Face's is,
 * so that long positions turn by the same angle:
 *
 *   angle(p, i) = p * (1 / theta^(2i / rotary_dim))
 */
void tsr_rotary_row(double theta, int32_t rotary_dim, int32_t position, float *cos_row,
                    float *sin_row);

#endif

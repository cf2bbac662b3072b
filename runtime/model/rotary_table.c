/* Tables, made on the host and given to the device, so that no backend computes an angle: whichever
 * it is, a position turns by the same bits. */
#include "runtime/model/rotary_table.h"

#include <math.h>

/* Powers, cosines and sines are taken in double and rounded once: a C library may pick another
 * float variant on another processor, with other last bits. */
void tsr_rotary_row(double theta, int32_t rotary_dim, int32_t position, float *cos_row,
                    float *sin_row)
{
    for (int32_t i = 0; i < rotary_dim / 2; i++) {
        const float exponent = (float)(2 * i) / (float)rotary_dim;
        const float frequency = 1.0F / (float)pow((double)(float)theta, (double)exponent);
        const float angle = (float)position * frequency;
        cos_row[i] = (float)cos((double)angle);
        sin_row[i] = (float)sin((double)angle);
    }
}

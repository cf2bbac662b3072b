/*
 * The precision of a model, drawn: a row for each run of equal layers, a letter for each linear.
 *
 *             attention   dense MLP   shared      8 experts
 *   layers    q k v o     g u d       g u d       g u d
 *   0         4 4 4 4     8 8 4       -           -
 *   1-2       8 8 8 4     -           4 4 4       8 8 8
 */
#ifndef TSR_LAUNCH_REPORT_PRECISION_MAP_H
#define TSR_LAUNCH_REPORT_PRECISION_MAP_H

#include "proto/plan.h"
#include "runtime/plan/precision.h"

#include <stdbool.h>
#include <stdio.h>

/* What is drawn; owns nothing. */
typedef struct tsr_precision_map {
    const tsr_model_facts *model;
    const tsr_linear_plan *linears; /* [linear_count] in plan order */
    const tsr_claim *claims;        /* [linear_count], or NULL: nothing is contradicted */
    int32_t linear_count;
    bool colour;
} tsr_precision_map;

/* The map and its legend, with the number of linears and the stored bytes of each format. */
void tsr_precision_map_draw(const tsr_precision_map *map, FILE *out);

/* The map of a plan. */
void tsr_precision_map_print(const tsr_plan *plan, bool colour, FILE *out);

/* Bytes that a linear takes in its files, scales included. */
uint64_t tsr_linear_stored_bytes(const tsr_linear_plan *linear);

/* "3", "3-45", "0, 2-4": the layers whose entry is set; `layers` [count]. */
void tsr_layer_ranges(const bool *layers, int32_t count, size_t capacity, char *ret_text);

#endif

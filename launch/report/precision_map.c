/* Drawn from what was proven, not from what was declared: what its tensors contradict is a '!'.
 * Neighbouring layers that are alike share a row, so that 92 layers fit on a screen. */
#include "launch/report/precision_map.h"

#include "runtime/plan/algos.h"
#include "runtime/plan/byte_count.h"

#include <stdlib.h>
#include <string.h>

/* One letter and one colour (256-colour background) for each declared algorithm. */
typedef struct glyph {
    char letter;
    int colour;
} glyph;

static const glyph glyphs[TSR_ALGO_COUNT] = {
    [TSR_ALGO_NONE] = {'.', 240},
    [TSR_ALGO_FP8] = {'8', 25},
    [TSR_ALGO_FP8_PER_CHANNEL_PER_TOKEN] = {'c', 31},
    [TSR_ALGO_FP8_BLOCK_SCALES] = {'b', 61},
    [TSR_ALGO_FP8_PB_WO] = {'p', 97},
    [TSR_ALGO_NVFP4] = {'4', 28},
    [TSR_ALGO_W4A16_NVFP4] = {'w', 100},
    [TSR_ALGO_NVFP4_AWQ] = {'a', 64},
};

enum { CONTRADICTED = '!', DIFFERENT = '*', NOTHING = ' ', CONTRADICTED_COLOUR = 160 };

/* A column of the map, and the group it stands in. */
typedef struct column {
    tsr_role role;
    char letter;
} column;

typedef struct group {
    const char *title;
    column columns[4];
    int count;
} group;

static const group groups[] = {
    {"attention", {{TSR_ROLE_Q, 'q'}, {TSR_ROLE_K, 'k'}, {TSR_ROLE_V, 'v'}, {TSR_ROLE_O, 'o'}}, 4},
    {"dense MLP", {{TSR_ROLE_GATE, 'g'}, {TSR_ROLE_UP, 'u'}, {TSR_ROLE_DOWN, 'd'}}, 3},
    {"shared",
     {{TSR_ROLE_SHARED_GATE, 'g'}, {TSR_ROLE_SHARED_UP, 'u'}, {TSR_ROLE_SHARED_DOWN, 'd'}},
     3},
    {"experts",
     {{TSR_ROLE_EXPERT_GATE, 'g'}, {TSR_ROLE_EXPERT_UP, 'u'}, {TSR_ROLE_EXPERT_DOWN, 'd'}},
     3},
};

enum { GROUPS = sizeof(groups) / sizeof(groups[0]), GROUP_WIDTH = 14, LAYERS_WIDTH = 11 };

/* cells[layer + 1].of[role]: a letter, or NOTHING where the layer has no such linear. */
typedef struct cell_row {
    char of[TSR_ROLE_FINAL_NORM];
} cell_row;

uint64_t tsr_linear_stored_bytes(const tsr_linear_plan *l)
{
    const tsr_tensor_place *const places[] = {
        &l->weight, &l->scale, &l->global_scale, &l->input_scale, &l->pre_quant_scale, &l->bias};
    uint64_t bytes = 0;

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        if (places[i]->file != TSR_NO_FILE)
            bytes += places[i]->bytes;
    return bytes;
}

void tsr_layer_ranges(const bool *layers, int32_t count, size_t capacity, char *ret_text)
{
    size_t at = 0;

    ret_text[0] = '\0';
    for (int32_t first = 0; first < count && at < capacity; first++) {
        int32_t last = first;
        int written;
        if (!layers[first])
            continue;
        while (last + 1 < count && layers[last + 1])
            last++;
        written = snprintf(ret_text + at, capacity - at, last > first ? "%s%d-%d" : "%s%d",
                           at > 0 ? ", " : "", first, last);
        at += written > 0 ? (size_t)written : 0;
        first = last;
    }
}

static char letter_of(const tsr_precision_map *map, int32_t i)
{
    if (map->claims != NULL && (map->claims[i].contradicted || map->claims[i].refused))
        return CONTRADICTED;
    return glyphs[map->linears[i].algo].letter;
}

/* Experts share a cell: the letter they agree on. */
static void fill_cells(const tsr_precision_map *map, cell_row *cells)
{
    for (int32_t layer = 0; layer <= map->model->layers; layer++)
        memset(cells[layer].of, NOTHING, sizeof(cells[layer].of));
    for (int32_t i = 0; i < map->linear_count; i++) {
        char *cell = &cells[map->linears[i].layer + 1].of[map->linears[i].role];
        const char letter = letter_of(map, i);
        if (*cell == NOTHING || *cell == letter)
            *cell = letter;
        else if (*cell != CONTRADICTED)
            *cell = letter == CONTRADICTED ? CONTRADICTED : DIFFERENT;
    }
}

static int colour_of(char letter)
{
    for (int i = 0; i < TSR_ALGO_COUNT; i++)
        if (glyphs[i].letter == letter)
            return glyphs[i].colour;
    return CONTRADICTED_COLOUR;
}

static void print_cell(const tsr_precision_map *map, char letter, FILE *out)
{
    if (map->colour && letter != NOTHING)
        (void)fprintf(out, "\033[48;5;%dm\033[97m%c \033[0m", colour_of(letter), letter);
    else
        (void)fprintf(out, "%c ", letter);
}

/* False when no layer of the model has the group. */
static bool has_group(const tsr_precision_map *map, const cell_row *cells, const group *g)
{
    for (int32_t layer = 1; layer <= map->model->layers; layer++)
        for (int c = 0; c < g->count; c++)
            if (cells[layer].of[g->columns[c].role] != NOTHING)
                return true;
    return false;
}

static void print_head(const tsr_precision_map *map, const cell_row *cells, FILE *out)
{
    char title[32];
    int pad = LAYERS_WIDTH + 2;

    for (int g = 0; g < GROUPS; g++) {
        const bool experts = groups[g].columns[0].role == TSR_ROLE_EXPERT_GATE;
        if (!has_group(map, cells, &groups[g]))
            continue;
        (void)snprintf(title, sizeof(title), experts ? "%d experts" : "%.0d%s",
                       experts ? map->model->experts : 0, groups[g].title);
        (void)fprintf(out, "%*s%s", pad, "", title);
        pad = GROUP_WIDTH - (int)strlen(title);
    }
    (void)fprintf(out, "\n  layers");
    pad = LAYERS_WIDTH - (int)strlen("layers");
    for (int g = 0; g < GROUPS; g++) {
        if (!has_group(map, cells, &groups[g]))
            continue;
        (void)fprintf(out, "%*s", pad, "");
        for (int c = 0; c < groups[g].count; c++)
            (void)fprintf(out, "%c ", groups[g].columns[c].letter);
        pad = GROUP_WIDTH - 2 * groups[g].count;
    }
    (void)fputc('\n', out);
}

static void print_row(const tsr_precision_map *map, const cell_row *cells, int32_t first,
                      int32_t last, FILE *out)
{
    char layers[32];
    int pad;

    (void)snprintf(layers, sizeof(layers), last > first ? "%d-%d" : "%d", first, last);
    (void)fprintf(out, "  %s", layers);
    pad = LAYERS_WIDTH - (int)strlen(layers);
    for (int g = 0; g < GROUPS; g++) {
        if (!has_group(map, cells, &groups[g]))
            continue;
        (void)fprintf(out, "%*s", pad, "");
        for (int c = 0; c < groups[g].count; c++)
            print_cell(map, cells[first + 1].of[groups[g].columns[c].role], out);
        pad = GROUP_WIDTH - 2 * groups[g].count;
    }
    (void)fputc('\n', out);
}

static void print_legend(const tsr_precision_map *map, FILE *out)
{
    uint64_t bytes[TSR_ALGO_COUNT] = {0};
    int32_t counts[TSR_ALGO_COUNT] = {0};
    char text[TSR_BYTE_COUNT_BYTES];
    bool wrong = false;

    for (int32_t i = 0; i < map->linear_count; i++) {
        counts[map->linears[i].algo]++;
        bytes[map->linears[i].algo] += tsr_linear_stored_bytes(&map->linears[i]);
        wrong |= letter_of(map, i) == CONTRADICTED;
    }
    (void)fputc('\n', out);
    for (int a = 0; a < TSR_ALGO_COUNT; a++) {
        if (counts[a] == 0)
            continue;
        (void)fputs("  ", out);
        print_cell(map, glyphs[a].letter, out);
        (void)fprintf(out, "%-26s %7d linears %12s\n",
                      a == TSR_ALGO_NONE ? "not quantized" : tsr_algo_name((tsr_algo)a), counts[a],
                      tsr_byte_count_text(bytes[a], text));
    }
    if (wrong) {
        (void)fputs("  ", out);
        print_cell(map, CONTRADICTED, out);
        (void)fputs("contradicted by the stored tensors, or not served\n", out);
    }
}

void tsr_precision_map_draw(const tsr_precision_map *map, FILE *out)
{
    const int32_t layers = map->model->layers;
    cell_row *cells = calloc((size_t)layers + 1, sizeof(*cells));

    if (cells == NULL)
        return;
    fill_cells(map, cells);
    print_head(map, cells, out);
    for (int32_t first = 0, last; first < layers; first = last + 1) {
        for (last = first; last + 1 < layers; last++)
            if (memcmp(&cells[first + 1], &cells[last + 2], sizeof(cells[first + 1])) != 0)
                break;
        print_row(map, cells, first, last, out);
    }
    print_legend(map, out);
    free(cells);
}

void tsr_precision_map_print(const tsr_plan *plan, bool colour, FILE *out)
{
    const tsr_precision_map map = {.model = &plan->model,
                                   .linears = plan->linears,
                                   .linear_count = plan->linear_count,
                                   .colour = colour};
    tsr_precision_map_draw(&map, out);
}

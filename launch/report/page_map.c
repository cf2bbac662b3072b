/* The map of the terminal, with a row for each layer and words behind every cell. */
#include "launch/report/page.h"

#include "runtime/plan/algos.h"
#include "runtime/plan/byte_count.h"

#include <stdlib.h>
#include <string.h>

enum { NOTHING, MIXED = -1, WRONG = -2 };

/* of[role]: 1 + the algorithm, or one of the above. */
typedef struct map_row {
    int of[TSR_ROLE_FINAL_NORM];
} map_row;

typedef struct column_group {
    const char *title;
    tsr_role first;
    tsr_role last;
} column_group;

static const column_group column_groups[] = {
    {"attention", TSR_ROLE_Q, TSR_ROLE_O},
    {"dense MLP", TSR_ROLE_GATE, TSR_ROLE_DOWN},
    {"shared experts", TSR_ROLE_SHARED_GATE, TSR_ROLE_SHARED_DOWN},
    {"experts", TSR_ROLE_EXPERT_GATE, TSR_ROLE_EXPERT_DOWN},
};
enum { COLUMN_GROUPS = sizeof(column_groups) / sizeof(column_groups[0]) };

static int value_of(const tsr_precision_map *map, int32_t i)
{
    if (map->claims != NULL && (map->claims[i].contradicted || map->claims[i].refused))
        return WRONG;
    return 1 + (int)map->linears[i].algo;
}

/* Experts share a cell. */
static void fill_rows(const tsr_precision_map *map, map_row *rows)
{
    for (int32_t i = 0; i < map->linear_count; i++) {
        const tsr_linear_plan *l = &map->linears[i];
        const int value = value_of(map, i);
        if (l->layer < 0 || l->role >= TSR_ROLE_FINAL_NORM)
            continue;
        int *cell = &rows[l->layer].of[l->role];
        if (*cell == NOTHING || *cell == value)
            *cell = value;
        else if (*cell != WRONG)
            *cell = value == WRONG ? WRONG : MIXED;
    }
}

static bool is_there(const tsr_precision_map *map, const map_row *rows, const column_group *g)
{
    for (int32_t layer = 0; layer < map->model->layers; layer++) {
        for (int role = (int)g->first; role <= (int)g->last; role++) {
            if (rows[layer].of[role] != NOTHING)
                return true;
        }
    }
    return false;
}

static const char *cell_letter(int value)
{
    static const char *const letters[TSR_ALGO_COUNT] = {
        [TSR_ALGO_NONE] = "&middot;",
        [TSR_ALGO_FP8] = "8",
        [TSR_ALGO_FP8_PER_CHANNEL_PER_TOKEN] = "c",
        [TSR_ALGO_FP8_BLOCK_SCALES] = "b",
        [TSR_ALGO_FP8_PB_WO] = "p",
        [TSR_ALGO_NVFP4] = "4",
        [TSR_ALGO_W4A16_NVFP4] = "w",
        [TSR_ALGO_NVFP4_AWQ] = "a",
    };

    if (value == WRONG)
        return "!";
    return value == MIXED ? "*" : letters[value - 1];
}

static const char *cell_name(int value)
{
    if (value == WRONG)
        return "contradicted by the stored tensors, or not served";
    if (value == MIXED)
        return "experts that differ";
    return value == 1 + TSR_ALGO_NONE ? "not quantized" : tsr_algo_name((tsr_algo)(value - 1));
}

static void add_class(tsr_page *page, int value)
{
    if (value == WRONG || value == MIXED)
        tsr_page_add(page, "%s", value == WRONG ? "wrong" : "mixed");
    else
        tsr_page_add(page, "a%d", value - 1);
}

static void add_head(tsr_page *page, const tsr_precision_map *map, const map_row *rows)
{
    tsr_page_add(page, "<tr><th></th>");
    for (int g = 0; g < COLUMN_GROUPS; g++) {
        const column_group *group = &column_groups[g];
        if (!is_there(map, rows, group))
            continue;
        tsr_page_add(page, "<th class=\"gap\"></th><th class=\"g\" colspan=\"%d\">",
                     (int)group->last - (int)group->first + 1);
        if (group->first == TSR_ROLE_EXPERT_GATE)
            tsr_page_add(page, "%d ", map->model->experts);
        tsr_page_add(page, "%s</th>", group->title);
    }
    tsr_page_add(page, "</tr>\n<tr><th class=\"l\">layer</th>");
    for (int g = 0; g < COLUMN_GROUPS; g++) {
        if (!is_there(map, rows, &column_groups[g]))
            continue;
        tsr_page_add(page, "<th class=\"gap\"></th>");
        for (int role = (int)column_groups[g].first; role <= (int)column_groups[g].last; role++) {
            const char *letters = g == 0 ? "qkvo" : "gud";
            tsr_page_add(page, "<th title=\"%s\">%c</th>", tsr_role_name((tsr_role)role),
                         letters[role - (int)column_groups[g].first]);
        }
    }
    tsr_page_add(page, "</tr>\n");
}

static void add_row(tsr_page *page, const tsr_precision_map *map, const map_row *rows,
                    int32_t layer)
{
    tsr_page_add(page, "<tr><td class=\"l\">%d</td>", layer);
    for (int g = 0; g < COLUMN_GROUPS; g++) {
        if (!is_there(map, rows, &column_groups[g]))
            continue;
        tsr_page_add(page, "<td class=\"gap\"></td>");
        for (int role = (int)column_groups[g].first; role <= (int)column_groups[g].last; role++) {
            const int value = rows[layer].of[role];
            if (value == NOTHING) {
                tsr_page_add(page, "<td></td>");
                continue;
            }
            tsr_page_add(page, "<td class=\"c ");
            add_class(page, value);
            tsr_page_add(page, "\" title=\"layer %d, %s: %s\">%s</td>", layer,
                         tsr_role_name((tsr_role)role), cell_name(value), cell_letter(value));
        }
    }
    tsr_page_add(page, "</tr>\n");
}

static void add_legend_row(tsr_page *page, int value, int32_t linears, uint64_t bytes,
                           uint64_t all_bytes)
{
    char text[TSR_BYTE_COUNT_BYTES];
    const double share = all_bytes > 0 ? (double)bytes / (double)all_bytes : 0;

    tsr_page_add(page, "<tr><td class=\"c ");
    add_class(page, value);
    tsr_page_add(page,
                 "\">%s</td><td>%s</td><td class=\"n\">%d</td><td class=\"n\">%s</td>"
                 "<td class=\"n\">%.1f %%</td><td><span class=\"bar\" style=\"width:%.1frem\">"
                 "</span></td></tr>\n",
                 cell_letter(value), cell_name(value), linears, tsr_byte_count_text(bytes, text),
                 100 * share, 12 * share);
}

static void add_legend(tsr_page *page, const tsr_precision_map *map)
{
    uint64_t bytes[TSR_ALGO_COUNT] = {0};
    int32_t counts[TSR_ALGO_COUNT] = {0};
    uint64_t all = 0;
    uint64_t wrong_bytes = 0;
    int32_t wrong = 0;

    for (int32_t i = 0; i < map->linear_count; i++) {
        const uint64_t own = tsr_linear_stored_bytes(&map->linears[i]);
        const bool is_wrong = value_of(map, i) == WRONG;
        all += own;
        counts[map->linears[i].algo] += !is_wrong;
        bytes[map->linears[i].algo] += is_wrong ? 0 : own;
        wrong += is_wrong;
        wrong_bytes += is_wrong ? own : 0;
    }
    tsr_page_add(page, "<table class=\"legend\"><tr><th></th><th>format</th><th "
                       "class=\"n\">linears</th><th class=\"n\">stored</th><th class=\"n\">of all"
                       "</th><th></th></tr>\n");
    for (int a = 0; a < TSR_ALGO_COUNT; a++) {
        if (counts[a] > 0)
            add_legend_row(page, 1 + a, counts[a], bytes[a], all);
    }
    if (wrong > 0)
        add_legend_row(page, WRONG, wrong, wrong_bytes, all);
    tsr_page_add(page, "</table>\n");
}

void tsr_page_map(tsr_page *page, const tsr_precision_map *map)
{
    const int32_t layers = map->model->layers;
    map_row *rows = calloc((size_t)layers + 1, sizeof(*rows));

    if (rows == NULL) {
        page->status = TSR_ERR_MEMORY;
        return;
    }
    fill_rows(map, rows);
    tsr_page_add(page, "<h2>Precision of every layer</h2>\n");
    add_legend(page, map);
    tsr_page_add(page, "<p class=\"note\">q, k, v, o: the projections of the attention; g, u, d: "
                       "gate, up and down of an MLP. All experts of a layer share a cell.</p>\n"
                       "<div class=\"scroll\"><table class=\"map\">\n");
    add_head(page, map, rows);
    for (int32_t layer = 0; layer < layers; layer++)
        add_row(page, map, rows, layer);
    tsr_page_add(page, "</table></div>\n");
    free(rows);
}

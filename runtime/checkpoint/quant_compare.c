/* Differences are warnings, for one of the two files is used whole and nothing of the other.
 * However many keys differ, they are one line, with the first of them. */
#include "runtime/checkpoint/quant_compare.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Rows that differ, and the first of them. */
typedef struct differences {
    size_t count;
    const char *name;
    const char *used;
    const char *other;
} differences;

static const char *shown(const char *text)
{
    return text != NULL ? text : "none";
}

static bool same_text(const char *a, const char *b)
{
    return a != NULL && b != NULL ? strcasecmp(a, b) == 0 : a == b;
}

static const char *algo_of(const tsr_declarations *d)
{
    return d->mixed ? "MIXED_PRECISION" : d->uniform.algo;
}

/* Not every form of these files keeps the group size: only two that are given can differ. */
static bool same_group(int32_t a, int32_t b)
{
    return a == 0 || b == 0 || a == b;
}

static void note_difference(differences *d, const char *name, const char *used, const char *other)
{
    if (d->count == 0) {
        d->name = name;
        d->used = used;
        d->other = other;
    }
    d->count++;
}

/* Both tables are sorted by name. */
static differences compare_rows(const tsr_declared *a, size_t a_count, const tsr_declared *b,
                                size_t b_count)
{
    differences d = {0};
    size_t i = 0;
    size_t j = 0;

    while (i < a_count || j < b_count) {
        int order = 0;
        if (i == a_count)
            order = 1;
        else if (j == b_count)
            order = -1;
        else
            order = strcmp(a[i].name, b[j].name);

        if (order < 0) {
            note_difference(&d, a[i].name, a[i].algo, NULL);
        } else if (order > 0) {
            note_difference(&d, b[j].name, NULL, b[j].algo);
        } else if (!same_text(a[i].algo, b[j].algo)) {
            note_difference(&d, a[i].name, a[i].algo, b[j].algo);
        } else if (!same_group(a[i].group_size, b[j].group_size)) {
            note_difference(&d, a[i].name, "one group_size", "another");
        }
        i += order <= 0;
        j += order >= 0;
    }
    return d;
}

static int compare_patterns(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* Counts patterns of `list` that `sorted` lacks. */
static void find_missing(char *const *list, size_t count, char *const *sorted, size_t sorted_count,
                         differences *d)
{
    for (size_t i = 0; i < count; i++) {
        if (bsearch(&list[i], sorted, sorted_count, sizeof(*sorted), compare_patterns) == NULL)
            note_difference(d, list[i], NULL, NULL);
    }
}

static char **sorted_copy(char *const *list, size_t count)
{
    char **copy = malloc((count + 1) * sizeof(*copy));
    if (copy == NULL)
        return NULL;
    if (count > 0)
        memcpy(copy, list, count * sizeof(*copy));
    qsort(copy, count, sizeof(*copy), compare_patterns);
    return copy;
}

static differences compare_excludes(const tsr_declarations *a, const tsr_declarations *b)
{
    differences d = {0};
    char **left = sorted_copy(a->excludes, a->exclude_count);
    char **right = sorted_copy(b->excludes, b->exclude_count);

    if (left != NULL && right != NULL) {
        find_missing(a->excludes, a->exclude_count, right, b->exclude_count, &d);
        find_missing(b->excludes, b->exclude_count, left, a->exclude_count, &d);
    }
    free(left);
    free(right);
    return d;
}

static void warn_rows(const char *what, const differences *d, const tsr_declarations *used,
                      const tsr_declarations *other, tsr_problems *problems)
{
    if (d->count == 0)
        return;
    tsr_problems_add(problems, TSR_SEVERITY_WARNING,
                     "%s and %s disagree on %zu %s, first \"%.200s\" (%s, %s); %s is used",
                     used->source, other->source, d->count, what, d->name, shown(d->used),
                     shown(d->other), used->source);
}

static void warn_value(const char *what, const char *a, const char *b, const tsr_declarations *used,
                       const tsr_declarations *other, tsr_problems *problems)
{
    if (same_text(a, b))
        return;
    tsr_problems_add(problems, TSR_SEVERITY_WARNING,
                     "%s and %s disagree on %s (%s, %s); %s is used", used->source, other->source,
                     what, shown(a), shown(b), used->source);
}

void tsr_quant_compare(const tsr_declarations *used, const tsr_declarations *other,
                       tsr_problems *problems)
{
    warn_value("quant_algo", algo_of(used), algo_of(other), used, other, problems);
    warn_value("the KV cache", used->kv_algo, other->kv_algo, used, other, problems);
    if (!same_group(used->uniform.group_size, other->uniform.group_size))
        tsr_problems_add(problems, TSR_SEVERITY_WARNING,
                         "%s and %s disagree on group_size (%d, %d); %s is used", used->source,
                         other->source, used->uniform.group_size, other->uniform.group_size,
                         used->source);

    const differences layers =
        compare_rows(used->layers, used->layer_count, other->layers, other->layer_count);
    warn_rows("layers", &layers, used, other, problems);
    const differences kv = compare_rows(used->kv_layers, used->kv_layer_count, other->kv_layers,
                                        other->kv_layer_count);
    warn_rows("layers of the KV cache", &kv, used, other, problems);

    const differences excludes = compare_excludes(used, other);
    if (excludes.count > 0)
        tsr_problems_add(problems, TSR_SEVERITY_WARNING,
                         "%s and %s disagree on %zu excluded modules, first \"%.200s\"; %s is used",
                         used->source, other->source, excludes.count, excludes.name, used->source);
}

/* Names are spelled one way as soon as they are read, the original kept for messages: everything
 * behind compares whole names with strcmp. */
#include "runtime/checkpoint/module_name.h"

#include <string.h>

static bool begins_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* True when the component at `name` is exactly `word`. */
static bool component_is(const char *name, const char *word)
{
    const size_t n = strlen(word);
    return strncmp(name, word, n) == 0 && (name[n] == '.' || name[n] == '\0');
}

/* Components that stand directly under "model.", where some exporters leave it out. */
static bool misses_model(const char *name)
{
    return begins_with(name, "layers.") || component_is(name, "embed_tokens") ||
           component_is(name, "norm");
}

/* Copies without the components "language_model" that stand before "layers". */
static void copy_without_prefix(const char *name, char *ret_name)
{
    static const char prefix[] = "language_model.";
    char *to = ret_name;
    bool leading = true;

    while (*name != '\0') {
        if (leading && begins_with(name, prefix)) {
            name += sizeof(prefix) - 1;
            continue;
        }
        leading = leading && !component_is(name, "layers");
        const size_t n = strcspn(name, ".");
        const size_t copied = name[n] == '.' ? n + 1 : n;
        memmove(to, name, copied);
        to += copied;
        name += copied;
    }
    *to = '\0';
}

void tsr_name_canonical(const char *name, char *ret_name)
{
    if (begins_with(name, "re:")) {
        memcpy(ret_name, name, strlen(name) + 1);
        return;
    }

    copy_without_prefix(name, ret_name);
    if (ret_name[0] == '\0' && name[0] != '\0')
        memcpy(ret_name, name, strlen(name) + 1);
    if (misses_model(ret_name)) {
        static const char model[] = "model.";
        memmove(ret_name + sizeof(model) - 1, ret_name, strlen(ret_name) + 1);
        memcpy(ret_name, model, sizeof(model) - 1);
    }
}

void tsr_name_canonical_module(const char *name, char *ret_name)
{
    static const char weight[] = ".weight";

    tsr_name_canonical(name, ret_name);
    const size_t n = strlen(ret_name);
    if (n >= sizeof(weight) && !begins_with(ret_name, "re:") &&
        strcmp(ret_name + n - (sizeof(weight) - 1), weight) == 0)
        ret_name[n - (sizeof(weight) - 1)] = '\0';
}

bool tsr_name_layer(const char *name, int32_t *ret_layer, const char **ret_rest)
{
    static const char start[] = "model.layers.";
    enum { LARGEST = 1000000 };

    if (!begins_with(name, start))
        return false;

    const char *at = name + sizeof(start) - 1;
    const char *first = at;
    int32_t layer = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        layer = layer * 10 + (*at - '0');
        if (layer > LARGEST)
            return false;
    }
    const bool leading_zero = *first == '0' && at - first > 1;
    if (at == first || leading_zero || (*at != '.' && *at != '\0'))
        return false;

    *ret_layer = layer;
    *ret_rest = *at == '.' ? at + 1 : at;
    return true;
}

bool tsr_name_is_usable(const char *name, size_t longest)
{
    const size_t length = strlen(name);

    if (length == 0 || length > longest)
        return false;
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    }
    return true;
}

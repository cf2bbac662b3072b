/* What is looped over is known by its name: message.content, message['content'], or the parameter
 * of a macro that is given one of these. */
#include "runtime/text/jinja/takes_parts.h"

#include <string.h>

typedef tsr_jinja_node node;

static bool is_word(tsr_jinja_text text)
{
    static const char word[] = "content";
    return text.count == sizeof(word) - 1 && memcmp(text.bytes, word, text.count) == 0;
}

static bool is_content(const node *n)
{
    while (n != NULL) {
        switch ((int)n->kind) {
        case TSR_JINJA_NODE_NAME:
        case TSR_JINJA_NODE_ATTRIBUTE:
            return is_word(n->name);
        case TSR_JINJA_NODE_ITEM:
            return n->b != NULL && n->b->kind == TSR_JINJA_NODE_CONST &&
                   n->b->value.kind == TSR_JINJA_TEXT && is_word(n->b->value.as.text);
        case TSR_JINJA_NODE_FILTER:
        case TSR_JINJA_NODE_SLICE:
        case TSR_JINJA_NODE_OR:
            n = n->a;
            break;
        default:
            return false;
        }
    }
    return false;
}

/* Long chains (1 + 1 + ..., elif, else-if) hang on one child, which takes no depth. */
bool tsr_jinja_takes_parts(const tsr_jinja_node *root)
{
    for (const node *n = root; n != NULL;) {
        const node *children[] = {n->a, n->b, n->c};
        const size_t chain = n->kind == TSR_JINJA_NODE_IF        ? 2
                             : n->kind == TSR_JINJA_NODE_IF_ELSE ? 1
                                                                 : 0;
        if (n->kind == TSR_JINJA_NODE_FOR && is_content(n->b))
            return true;
        for (size_t i = 0; i < 3; i++) {
            if (i != chain && tsr_jinja_takes_parts(children[i]))
                return true;
        }
        for (size_t i = 0; i < n->count; i++) {
            if (tsr_jinja_takes_parts(n->items[i]))
                return true;
        }
        n = children[chain];
    }
    return false;
}

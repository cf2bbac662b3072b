/* An id is a slot and a serial number: found without a search, and never taken for that of a choice
 * which had the slot before. */
#include "launch/gateway/answer_list.h"

#include <stdlib.h>

enum { FEWEST_SLOTS = 64, MOST_SLOTS = 1 << 24 };

void tsr_answer_list_add(tsr_answer_list *list, tsr_answer *answer)
{
    answer->previous = NULL;
    answer->next = list->first;
    if (list->first != NULL)
        list->first->previous = answer;
    list->first = answer;
}

void tsr_answer_list_remove(tsr_answer_list *list, tsr_answer *answer)
{
    if (answer->previous != NULL)
        answer->previous->next = answer->next;
    else
        list->first = answer->next;
    if (answer->next != NULL)
        answer->next->previous = answer->previous;
}

static tsr_status grow(tsr_answer_list *list)
{
    const uint32_t count = list->slot_count > 0 ? list->slot_count * 2 : FEWEST_SLOTS;
    if (count > MOST_SLOTS)
        return TSR_ERR_MEMORY;

    tsr_choice **slots = realloc(list->slots, count * sizeof(tsr_choice *));
    if (slots == NULL)
        return TSR_ERR_MEMORY;
    list->slots = slots;
    uint32_t *free_slots = realloc(list->free, count * sizeof(*free_slots));
    if (free_slots == NULL)
        return TSR_ERR_MEMORY;
    list->free = free_slots;
    for (uint32_t slot = count; slot-- > list->slot_count;) {
        list->slots[slot] = NULL;
        list->free[list->free_count++] = slot;
    }
    list->slot_count = count;
    return TSR_OK;
}

tsr_status tsr_answer_list_name(tsr_answer_list *list, tsr_choice *choice)
{
    const tsr_status st = list->free_count == 0 ? grow(list) : TSR_OK;
    if (st != TSR_OK)
        return st;

    const uint32_t slot = list->free[--list->free_count];
    if (++list->serial == 0)
        list->serial = 1;
    list->slots[slot] = choice;
    choice->id = (uint64_t)list->serial << 32 | slot;
    list->live++;
    return TSR_OK;
}

void tsr_answer_list_unname(tsr_answer_list *list, tsr_choice *choice)
{
    const uint32_t slot = (uint32_t)choice->id;

    if (choice->id == 0)
        return;
    list->slots[slot] = NULL;
    list->free[list->free_count++] = slot;
    list->live--;
    choice->id = 0;
}

tsr_choice *tsr_answer_list_find(const tsr_answer_list *list, uint64_t id)
{
    const uint32_t slot = (uint32_t)id;
    tsr_choice *choice = slot < list->slot_count ? list->slots[slot] : NULL;
    return choice != NULL && choice->id == id ? choice : NULL;
}

void tsr_answer_list_close(tsr_answer_list *list)
{
    free(list->slots);
    free(list->free);
    *list = (tsr_answer_list){0};
}

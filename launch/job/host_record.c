/*
 * Machines are told apart by name and by their kernel's boot id: an image that is copied keeps its
 * name, and containers of one machine have names of their own. Not by MPI's grouping, so that threads
 * and processes are divided alike.
 *
 * The ranks of a machine take its GPUs in turn; a process that was given one of its own sees no
 * other. Whether that went well is seen by the ids of what they took: two ranks that were both given
 * GPU 0, or pods that both see all, meet on one.
 */
#define _GNU_SOURCE /* IFF_UP */
#include "launch/job/host_record.h"

#include "runtime/base/sizes.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* GPUs behind one that cannot be asked are left out. */
static void read_cards(tsr_host_record *record)
{
    const int32_t cards = tsr_smaller(tsr_cuda_cards(), TSR_HOST_CARDS);

    for (int32_t i = 0; i < cards; i++) {
        tsr_host_card *card = &record->cards[i];
        char bus[TSR_CARD_BUS_BYTES];
        if (tsr_cuda_card_id(i, card->id) != TSR_OK || tsr_cuda_card_bus(i, bus) != TSR_OK)
            return;
        card->node = tsr_machine_numa_node("", bus);
        record->card_count++;
    }
}

/* IPv6 addresses of a link are no way to another machine; loopback is none either. */
static bool address_text(const struct ifaddrs *one, char ret_text[INET6_ADDRSTRLEN])
{
    if (one->ifa_addr == NULL || (one->ifa_flags & IFF_UP) == 0 ||
        (one->ifa_flags & IFF_LOOPBACK) != 0)
        return false;
    if (one->ifa_addr->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, one->ifa_addr, sizeof(v4));
        return inet_ntop(AF_INET, &v4.sin_addr, ret_text, INET6_ADDRSTRLEN) != NULL;
    }
    if (one->ifa_addr->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, one->ifa_addr, sizeof(v6));
        return !IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr) &&
               inet_ntop(AF_INET6, &v6.sin6_addr, ret_text, INET6_ADDRSTRLEN) != NULL;
    }
    return false;
}

static void read_networks(tsr_host_networks *networks)
{
    struct ifaddrs *list = NULL;
    char text[INET6_ADDRSTRLEN];

    if (getifaddrs(&list) != 0)
        return;
    for (const struct ifaddrs *one = list; one != NULL; one = one->ifa_next) {
        if (networks->count == TSR_HOST_NETWORKS || !address_text(one, text))
            continue;
        tsr_host_network *network = &networks->of[networks->count++];
        (void)snprintf(network->name, sizeof(network->name), "%s", one->ifa_name);
        (void)snprintf(network->address, sizeof(network->address), "%s", text);
    }
    freeifaddrs(list);
}

tsr_host_record tsr_host_record_read(bool cards)
{
    tsr_host_record record = {.version = TSR_VERSION,
                              .available_bytes = tsr_machine_memory(""),
                              .cpus = tsr_machine_cpus_read("")};

    if (gethostname(record.name, sizeof(record.name) - 1) != 0)
        record.name[0] = '\0';
    tsr_machine_boot("", sizeof(record.boot), record.boot);
    read_networks(&record.networks);
    if (cards)
        read_cards(&record);
    return record;
}

bool tsr_host_record_same(const tsr_host_record *a, const tsr_host_record *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->boot, b->boot) == 0;
}

void tsr_host_deal_cards(tsr_host_record *records, int32_t ranks)
{
    for (int32_t r = 0; r < ranks; r++) {
        int32_t before = 0;
        for (int32_t o = 0; o < r; o++)
            before += tsr_host_record_same(&records[r], &records[o]);
        if (records[r].card_count > 0)
            records[r].card = before % records[r].card_count;
    }
}

static const tsr_host_card *card_of(const tsr_host_record *record)
{
    return record->card_count > 0 ? &record->cards[record->card] : NULL;
}

static bool on_one_card(const tsr_host_record *a, const tsr_host_record *b)
{
    const tsr_host_card *one = card_of(a);
    const tsr_host_card *other = card_of(b);

    return one != NULL && other != NULL && memcmp(one->id, other->id, TSR_CARD_ID_BYTES) == 0;
}

int32_t tsr_host_card_ranks(const tsr_host_record *records, int32_t ranks, int32_t rank)
{
    int32_t count = 0;

    for (int32_t o = 0; o < ranks; o++)
        count += on_one_card(&records[rank], &records[o]);
    return count;
}

/* As nvidia-smi -L writes it. */
static void card_id_text(const unsigned char *id, size_t capacity, char *ret_text)
{
    size_t used = (size_t)snprintf(ret_text, capacity, "GPU-");

    for (size_t i = 0; i < TSR_CARD_ID_BYTES && used < capacity; i++) {
        const bool dash = i == 4 || i == 6 || i == 8 || i == 10;
        used += (size_t)snprintf(ret_text + used, capacity - used, "%s%02x", dash ? "-" : "",
                                 (unsigned)id[i]);
    }
}

void tsr_host_crowd(const tsr_host_record *records, int32_t ranks,
                    char ret_text[TSR_HOST_CROWD_BYTES])
{
    char id[48];
    int32_t first = 0;
    int32_t most = 0;

    for (int32_t r = 0; r < ranks; r++) {
        const int32_t count = tsr_host_card_ranks(records, ranks, r);
        first = count > most ? r : first;
        most = tsr_larger(count, most);
    }
    ret_text[0] = '\0';
    if (most < 2)
        return;
    int32_t second = first + 1;
    while (!on_one_card(&records[first], &records[second]))
        second++;
    card_id_text(card_of(&records[first])->id, sizeof(id), id);
    (void)snprintf(ret_text, TSR_HOST_CROWD_BYTES,
                   "rank %d on host %s and rank %d on host %s%s meet on %s", first,
                   records[first].name, second, records[second].name,
                   most > 2 ? ", and others," : "", id);
}

const tsr_host_network *tsr_host_networks_clash(const tsr_host_networks *a,
                                                const tsr_host_networks *b)
{
    for (int32_t i = 0; i < a->count; i++) {
        for (int32_t o = 0; o < b->count; o++) {
            if (strcmp(a->of[i].address, b->of[o].address) == 0)
                return &a->of[i];
        }
    }
    return NULL;
}

bool tsr_host_clash(const tsr_host_record *records, int32_t ranks, int32_t ret_ranks[2],
                    const tsr_host_network **ret_network)
{
    for (int32_t r = 1; r < ranks; r++) {
        for (int32_t o = 0; o < r; o++) {
            const tsr_host_network *found =
                tsr_host_networks_clash(&records[o].networks, &records[r].networks);
            if (found == NULL || tsr_host_record_same(&records[r], &records[o]))
                continue;
            ret_ranks[0] = o;
            ret_ranks[1] = r;
            *ret_network = found;
            return true;
        }
    }
    return false;
}

void tsr_host_networks_text(const tsr_host_networks *networks, size_t capacity, char *ret_text)
{
    size_t used = 0;

    ret_text[0] = '\0';
    for (int32_t i = 0; i < networks->count && used < capacity; i++)
        used += (size_t)snprintf(ret_text + used, capacity - used, "%s%s %s", i > 0 ? ", " : "",
                                 networks->of[i].name, networks->of[i].address);
}

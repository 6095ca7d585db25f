/* SPDX-License-Identifier: MIT */
/* fab_send.h - send one record. For many see fab_batch.h. */
#ifndef FAB_SEND_H
#define FAB_SEND_H

#include "fab_measures.h"

/* Write one record and publish it. Returns 1, 0 when the lane is full, -EMSGSIZE, -EINVAL. */
static inline int fab_peer_send(struct fab_peer *s, uint32_t lane, const struct fab_record *header,
                                const void *body) {
    if (lane >= 2 * s->header.processes || s->out[lane].capacity == 0)
        return -EINVAL;
    struct fab_producer *p = &s->out[lane];
    uint64_t before = p->next;
    int rc = fab_producer_put(p, header, body);
    if (rc != 1)
        return rc;
    if (fab_meter_on(s)) { /* before it is published: the reply may be here first */
        fab_meter_sent(s, lane, header->kind, 1, header->correlation != 0, p->next - before);
        if (header->kind == FAB_KIND_MESSAGE && header->correlation != 0)
            fab_meter_asked(s, header->correlation, 1, header->sent_at);
    }
    fab_peer_publish(s, lane);
    return 1;
}

/* Write one record and publish it, its header given as numbers: one crossing from Python and no object
 * for the header. meta = kind | encoding << 16 | flags << 24. Returns as fab_peer_send. */
static inline int fab_peer_send_one(struct fab_peer *s, uint32_t lane, uint32_t meta, uint64_t target,
                                    uint64_t sender, uint64_t correlation, const uint8_t *body,
                                    uint32_t size) {
    struct fab_record r = {.size = size,
                           .kind = (uint16_t)(meta & 0xffff),
                           .encoding = (uint8_t)(meta >> 16 & 0xff),
                           .flags = (uint8_t)(meta >> 24),
                           .target = target,
                           .sender = sender,
                           .correlation = correlation,
                           .sent_at = (uint64_t)fab_now()};
    return fab_peer_send(s, lane, &r, body);
}

#endif

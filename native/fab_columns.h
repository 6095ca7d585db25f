/* SPDX-License-Identifier: MIT */
/*
 * fab_columns.h - a run of records as columns: how what was received crosses into Python, in one piece.
 *
 *   facts | what holds for the run, one word each: FAB_COLUMN_FACTS of them, which Python reads as one array
 *   then  | targets | senders | correlations | sent_ats | starts | ends | encodings |  one entry a record
 *
 * All of it is the reader's own memory. Bodies stay where they lie: a column says from where to where.
 */
#ifndef FAB_COLUMNS_H
#define FAB_COLUMNS_H

#include "fab_record.h"

#define FAB_BATCH_MAX 1024 /* records in one set of columns */
#define FAB_COLUMN_FACTS 16

/* A run of records of one kind, as columns. Filled by fab_consumer_peek, in the reader's memory. */
struct fab_columns {
    uint64_t count;
    uint64_t kind;
    uint64_t encoding; /* of all records, or 256 when they differ: then see encodings */
    uint64_t flags;    /* of all records, or-ed */
    uint64_t asks;     /* records with a correlation id */
    uint64_t size;     /* body size of all records, or UINT32_MAX when they differ */
    uint64_t token;    /* correlation >> FAB_TOKEN_SHIFT of all records, or UINT64_MAX */
    uint64_t step;     /* from each correlation id to the next, or 0 when it varies */
    uint64_t start;    /* offset of the run in the lane's data */
    uint64_t bytes;    /* length of the run, headers included */
    uint64_t end;      /* counter behind the run: what to commit when it is handled */
    uint64_t sent_at;  /* of the first record */
    uint64_t more;     /* is there something else to read, in this lane or another? */
    uint64_t first_target;
    uint64_t first_sender;
    uint64_t first_correlation; /* these three spare the arrays where there is but one record */
    uint64_t targets[FAB_BATCH_MAX];
    uint64_t senders[FAB_BATCH_MAX];
    uint64_t correlations[FAB_BATCH_MAX];
    uint64_t sent_ats[FAB_BATCH_MAX];
    uint32_t starts[FAB_BATCH_MAX]; /* of the body, from the start of the run */
    uint32_t ends[FAB_BATCH_MAX];
    uint8_t encodings[FAB_BATCH_MAX];
};

static_assert(offsetof(struct fab_columns, targets) == FAB_COLUMN_FACTS * 8,
              "Python reads the facts before as one array");

/* Add one record to the run. */
static inline void fab_columns_add(struct fab_columns *cols, const struct fab_record *r) {
    uint64_t i = cols->count++;
    uint32_t body = r->size - (uint32_t)sizeof *r;
    cols->targets[i] = r->target;
    cols->senders[i] = r->sender;
    cols->correlations[i] = r->correlation;
    cols->sent_ats[i] = r->sent_at;
    cols->starts[i] = (uint32_t)(cols->bytes + sizeof *r);
    cols->ends[i] = (uint32_t)(cols->bytes + r->size);
    cols->encodings[i] = r->encoding;
    if (i == 0) {
        cols->kind = r->kind;
        cols->encoding = r->encoding;
        cols->size = body;
        cols->sent_at = r->sent_at;
        cols->token = r->correlation >> FAB_TOKEN_SHIFT;
        cols->step = 0;
        cols->first_target = r->target;
        cols->first_sender = r->sender;
        cols->first_correlation = r->correlation;
    } else {
        uint64_t step = r->correlation - cols->correlations[i - 1];
        cols->step = i == 1 || cols->step == step ? step : 0;
    }
    cols->token = cols->token == r->correlation >> FAB_TOKEN_SHIFT ? cols->token : UINT64_MAX;
    cols->encoding = cols->encoding == r->encoding ? cols->encoding : 256;
    cols->size = cols->size == body ? body : UINT32_MAX;
    cols->flags |= r->flags;
    cols->asks += r->correlation != 0;
    cols->bytes += fab_record_span(body);
}

#endif

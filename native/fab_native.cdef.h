/* What Python may do with the C core. Shared structs are opaque; the rest is private memory. */

#define FAB_BATCH_MAX ...
#define FAB_TOKEN_SHIFT ...
#define FAB_COLUMN_FACTS ...
#define FAB_PROCESSES_MAX ...
#define FAB_QUEUE_DATA ...
#define FAB_QUEUE_LEAST_BYTES ...
#define FAB_QUEUE_MOST_BYTES ...
#define FAB_QUEUE_MOST_ITEMS ...
#define FAB_QUEUE_ENCODING_BITS ...
#define FAB_QUEUE_FOR_EVER ...
#define FAB_QUEUE_STEP_BYTES ...
#define FAB_COUNTERS ...
#define FAB_WAITS_MESSAGES ...
#define FAB_WAITS_ROOM ...
#define FAB_WAITS_QUIET ...
#define FAB_WAITS_ARENA ...
#define FAB_AGENT_ALIVE ...
#define FAB_AGENT_STOPPED ...
#define FAB_AGENT_LOST ...
#define FAB_CLASSES ...
#define FAB_CLASS_NAME_BYTES ...
#define FAB_TRAFFIC_BYTES ...
#define FAB_HISTOGRAM_BUCKETS ...
#define FAB_SURVEY_HEAD ...
#define FAB_LAST_USE_SHIFT ...
#define FAB_LONG_NS ...
#define FAB_KIND_MESSAGE ...
#define FAB_KIND_REPLY ...
#define FAB_KIND_SPAWN ...
#define FAB_KIND_SHUTDOWN ...
#define FAB_KIND_REQUEST ...
#define FAB_KIND_STREAM ...
#define FAB_ENCODING_ERROR ...

struct fab_header {
    uint64_t magic;
    uint32_t version;
    uint32_t processes;
    uint64_t lane_bytes;
    uint64_t peer_lane_bytes;
    uint64_t control_lane_bytes;
    uint64_t outbox_bytes;
    uint64_t journal_bytes;
    uint64_t arena_bytes;
    uint64_t loans;
    uint64_t max_agents;
    uint64_t segment_bytes;
    uint64_t identity;
};

struct fab_record {
    uint32_t size;
    uint16_t kind;
    uint8_t encoding;
    uint8_t flags;
    uint64_t target;
    uint64_t sender;
    uint64_t correlation;
    uint64_t sequence;
    uint64_t sent_at;
};

struct fab_batch {
    struct fab_record header;
    const uint64_t *targets;
    const uint64_t *senders;
    const uint64_t *correlations;
    const uint32_t *sizes;
    const uint8_t *encodings;
    const uint8_t *bytes;
    uint64_t bytes_count;
    uint32_t count;
    uint32_t numbered;
    uint32_t repeated;
};

struct fab_columns {
    uint64_t count;
    uint64_t targets[...];
    uint64_t senders[...];
    uint64_t correlations[...];
    uint32_t starts[...];
    uint32_t ends[...];
    uint8_t encodings[...];
    ...;
};

struct fab_survey {
    uint64_t messages;
    uint64_t asks;
    uint64_t replies;
    uint64_t bytes;
    uint64_t waiting_bytes;
    uint64_t in_flight;
};

struct fab_lifeline {
    int fd;
    int bell;
    int64_t grace_ns;
    ...;
};

struct fab_peer {
    ...;
};

struct fab_arena {
    ...;
};

struct fab_queue {
    uint64_t ring_bytes;
    uint32_t maxsize;
    ...;
};

struct fab_queue_batch {
    const uint8_t *bytes;
    const uint64_t *sizes;
    const uint8_t *encodings;
    uint64_t uniform;
    uint32_t encoding;
    uint32_t count;
};

struct fab_queue_taken {
    uint8_t *bytes;
    uint64_t room;
    uint64_t used;
    uint64_t sizes[...];
    uint8_t encodings[...];
};

/* segment */
int fab_header_init(struct fab_header *header);
int fab_header_validate(const struct fab_header *header, uint64_t bytes);
uint64_t fab_block_offset(const struct fab_header *header, uint32_t process);
uint64_t fab_block_bytes(const struct fab_header *header, uint32_t process);
uint64_t fab_data_offset(const struct fab_header *header, uint32_t from, uint32_t lane);
uint64_t fab_heads_offset(void);
uint64_t fab_tails_offset(const struct fab_header *header);
uint64_t fab_begun_offset(const struct fab_header *header);
uint64_t fab_board_offset(void);
uint64_t fab_classes_offset(const struct fab_header *header);
uint64_t fab_class_names_offset(const struct fab_header *header);
uint64_t fab_traffic_offset(const struct fab_header *header);
uint64_t fab_measures_offset(const struct fab_header *header);
uint64_t fab_last_use_offset(const struct fab_header *header);
uint64_t fab_arena_offset(const struct fab_header *header, uint32_t process);
uint64_t fab_journal_offset(const struct fab_header *header, uint32_t process);
uint64_t fab_lane_bytes(const struct fab_header *header, uint32_t from, uint32_t lane);
uint64_t fab_record_span(uint64_t body_bytes);

/* one process's ends */
int fab_peer_init(struct fab_peer *peer, const struct fab_header *header, uint32_t process,
                  const uint8_t *whole, uint8_t *block);
void fab_meter_open(struct fab_peer *peer);
void fab_survey_all(const struct fab_header *header, const uint8_t *whole, struct fab_survey *out);
uint64_t fab_survey_measures(const struct fab_header *header, const uint8_t *whole, uint32_t process,
                             uint32_t classes, uint64_t *out);
int fab_meter_on(const struct fab_peer *peer);
void fab_peer_handled(struct fab_peer *peer, uint64_t count, uint64_t ns);
void fab_peer_tune(struct fab_peer *peer, uint32_t cores, int64_t spin_ns);
void fab_peer_set_bell(struct fab_peer *peer, uint32_t process, int bell);
void fab_peer_set_pollset(struct fab_peer *peer, int pollset);
void fab_peer_ring(const struct fab_peer *peer, uint32_t process);
uint64_t fab_peer_body_limit(const struct fab_peer *peer, uint32_t lane);
uint64_t fab_peer_backlog(struct fab_peer *peer, uint32_t lane, uint64_t *head);
uint64_t fab_peer_dropped(const struct fab_peer *peer);
uint64_t fab_peer_dropped_of(const struct fab_peer *peer, uint32_t process);
void fab_peer_mend(struct fab_peer *peer, uint32_t process);
uint64_t fab_peer_sent(const struct fab_peer *peer, uint32_t lane);
uint64_t fab_peer_progress(const struct fab_peer *peer, uint32_t process);

/* send */
int fab_peer_send_one(struct fab_peer *peer, uint32_t lane, uint32_t meta, uint64_t target, uint64_t sender,
                      uint64_t correlation, const uint8_t *body, uint32_t size);
int32_t fab_peer_send_batch(struct fab_peer *peer, uint32_t lane, const struct fab_batch *batch,
                            uint64_t most_bytes, uint32_t *done, uint64_t *offset);
int32_t fab_peer_outbox_batch(struct fab_peer *peer, const struct fab_batch *batch, uint32_t *done,
                              uint64_t *offset);
uint64_t fab_peer_outbox_room(struct fab_peer *peer);
void fab_peer_intend_slice(struct fab_peer *peer, int32_t lane, uint32_t of, uint64_t end);
int32_t fab_peer_published_slice(struct fab_peer *peer, uint64_t *end);
int fab_peer_outbox_pass(struct fab_peer *peer, int32_t of, uint64_t end, uint32_t behind,
                         const uint8_t *records, uint64_t bytes);
int fab_peer_outbox_flush(struct fab_peer *peer, struct fab_record *stray);
void fab_peer_outbox_resume(struct fab_peer *peer);
void fab_peer_adopt(struct fab_peer *peer, uint32_t lane, uint64_t end);
uint64_t fab_peer_room(struct fab_peer *peer, uint32_t lane);
uint64_t fab_peer_tail(const struct fab_peer *peer, uint32_t lane);

/* journal */
int fab_peer_journal_run(struct fab_peer *peer, uint32_t lane, uint64_t begin, uint64_t end);
int32_t fab_peer_journal_batch(struct fab_peer *peer, const struct fab_batch *batch, uint32_t *done,
                               uint64_t *offset);
uint64_t fab_peer_journal_room(struct fab_peer *peer);
uint64_t fab_peer_journal_tail(const struct fab_peer *peer);
uint32_t fab_peer_journal_peek(struct fab_peer *peer, struct fab_columns *columns);
void fab_peer_journal_forget(struct fab_peer *peer, uint64_t end);

/* receive */
int32_t fab_peer_commit_and_receive(struct fab_peer *peer, int32_t lane, uint64_t end, uint32_t most,
                                    uint64_t most_bytes, struct fab_columns *columns);
int32_t fab_peer_commit_and_await(struct fab_peer *peer, uint32_t reasons, int64_t timeout_ns, int32_t lane,
                                  uint64_t end, uint32_t most, uint64_t most_bytes,
                                  struct fab_columns *columns);
void fab_peer_rewind(struct fab_peer *peer);
void fab_peer_commit(struct fab_peer *peer, uint32_t lane, uint64_t end);
int fab_peer_wait(struct fab_peer *peer, uint32_t reasons, int extra, int64_t timeout_ns);
int fab_peer_arm(struct fab_peer *peer, uint32_t reasons);
void fab_peer_disarm(struct fab_peer *peer);
int fab_peer_quiet(struct fab_peer *peer);

/* agent table */
uint32_t fab_peer_route(const struct fab_peer *peer, const uint64_t *addresses, uint32_t count,
                        uint16_t *slots);
uint32_t fab_partition(const uint16_t *slots, uint32_t count, uint32_t processes, uint32_t *order,
                       uint32_t *starts);
void fab_table_write(uint8_t *whole, const uint64_t *addresses, const uint16_t *slots, uint32_t count,
                     uint32_t state);

/* arena: its owner */
int fab_arena_open(struct fab_arena *arena, struct fab_peer *peer);
void fab_arena_close(struct fab_arena *arena);
int64_t fab_arena_take(struct fab_arena *arena, uint64_t bytes);
void fab_arena_allow(struct fab_arena *arena, uint64_t fresh_bytes);
uint64_t fab_arena_block_bytes(const struct fab_arena *arena, uint64_t offset);
int fab_arena_retain(struct fab_arena *arena, uint64_t offset);
int64_t fab_arena_retain_around(struct fab_arena *arena, uint64_t offset);
int fab_arena_drop(struct fab_arena *arena, uint64_t offset);
int64_t fab_arena_lend(struct fab_arena *arena, uint64_t offset, uint64_t at, uint64_t bytes,
                       uint32_t reader);
int fab_arena_unlend(struct fab_arena *arena, uint64_t loan);
uint32_t fab_arena_reclaim(struct fab_arena *arena, uint32_t most);
uint64_t fab_arena_trim(struct fab_arena *arena, uint64_t keep_bytes);
void fab_arena_usage(const struct fab_arena *arena, uint64_t out[6]);

/* loans: their readers */
int fab_loan_hold(struct fab_peer *peer, uint32_t owner, uint64_t loan, uint64_t offset, uint64_t bytes,
                  uint64_t end);
void fab_loan_done(struct fab_peer *peer, uint32_t owner, uint64_t loan);
uint32_t fab_loan_adopt(struct fab_peer *peer);
void fab_loan_keep_only(struct fab_peer *peer, const uint64_t *loans, uint32_t count);

/* private views */
int fab_view_renew(int pagemap, uint8_t *at, uint64_t bytes);
uint64_t fab_view_faults(void);
void *fab_view_map(int segment, uint64_t offset, uint64_t bytes);
void fab_view_unmap(void *at, uint64_t bytes);

/* heap */
void fab_heap_keep(uint64_t largest);

/* lifeline */
int fab_lifeline_start(struct fab_lifeline *lifeline);
int fab_lifeline_ended(const struct fab_lifeline *lifeline);

/* queue */
int fab_queue_create(struct fab_queue *queue, int descriptor, uint64_t ring_bytes, uint32_t maxsize,
                     uint64_t identity);
int fab_queue_open(struct fab_queue *queue, int descriptor);
void fab_queue_close(struct fab_queue *queue);
void fab_queue_tune(struct fab_queue *queue, int64_t spin_ns);
void fab_queue_allow(struct fab_queue *queue, uint64_t bytes);
void fab_queue_set_travelled(struct fab_queue *queue);
int fab_queue_travelled(const struct fab_queue *queue);
uint64_t fab_queue_identity(const struct fab_queue *queue);
int32_t fab_queue_put(struct fab_queue *queue, const uint8_t *body, uint64_t size, uint32_t encoding,
                      int64_t deadline);
int32_t fab_queue_put_many(struct fab_queue *queue, const struct fab_queue_batch *batch, int64_t deadline);
int64_t fab_queue_get(struct fab_queue *queue, struct fab_queue_taken *taken, int64_t deadline);
int32_t fab_queue_get_many(struct fab_queue *queue, struct fab_queue_taken *taken, uint32_t most,
                           int64_t deadline);
uint32_t fab_queue_size(const struct fab_queue *queue);
uint32_t fab_queue_put_count(const struct fab_queue *queue);
int fab_queue_task_done(struct fab_queue *queue, uint32_t count);
int fab_queue_join(struct fab_queue *queue, int64_t deadline);
int fab_queue_shutdown(struct fab_queue *queue, int immediate);

/* SPDX-License-Identifier: MIT */
/*
 * wake_stress.c - two peers that sleep and wake each other, with real eventfds and fab_peer_wait: as two
 * threads (ThreadSanitizer sees them), and as two processes that map the segment read-only and their own
 * block writable. A lost wake-up shows as an alarm after the safety net's second, or as a hang.
 *
 *   side 0 (coordinator)                                side 1 (worker)
 *     ping      one record there and back                 pong
 *     burst     batches, waiting for room; now and        sink   checks order and content,
 *               then until all is acknowledged                   hands room back late, acknowledges
 *     fill      to the brim, then sleeps                  drain  only when it sees that side 0 sleeps
 */
#include "fixture.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#define KIND 7u
#define ACK_EVERY 1000u
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ROUNDS 5000u
#define RECORDS 100000u
#else
#define ROUNDS 20000u
#define RECORDS 500000u
#endif
#define FILLS 300u

/* Wait for a random while at most: mostly long, at times so short that deadline and bell collide. */
static void await(struct fab_peer *s, uint32_t reasons, uint64_t *seed) {
    const int64_t timeouts[] = {FAB_SAFETY_NS, FAB_SAFETY_NS, 60000, 0};
    int64_t timeout = timeouts[fixture_below(seed, 4)];
    int rc = fab_peer_wait(s, reasons, -1, timeout);
    CHECK(rc == 1 || (rc == 0 && timeout < FAB_SAFETY_NS)); /* nobody here leaves the other alone for 1 s */
}

static void send(struct fab_peer *s, uint32_t to, uint64_t n) {
    struct fab_record r = {.size = sizeof n, .kind = KIND, .correlation = n};
    CHECK_EQ(fab_peer_send(s, to, &r, &n), 1);
}

/* Wait for the next record, which must be n, and hand it back. */
static void expect(struct fab_peer *s, struct fab_columns *cols, uint64_t n, uint64_t *seed) {
    int32_t lane;
    while ((lane = fab_peer_receive(s, 1, 0, cols)) < 0)
        await(s, FAB_WAITS_MESSAGES, seed);
    CHECK_EQ(cols->count, 1);
    CHECK_EQ(cols->correlations[0], n);
    fab_peer_commit(s, (uint32_t)lane, cols->end);
}

static void ping(struct fab_peer *s, struct fab_columns *cols) {
    uint64_t seed = 1;
    for (uint64_t n = 0; n < ROUNDS; n++) {
        send(s, 1, n);
        expect(s, cols, n, &seed);
    }
}

static void pong(struct fab_peer *s, struct fab_columns *cols) {
    uint64_t seed = 2;
    for (uint64_t n = 0; n < ROUNDS; n++) {
        expect(s, cols, n, &seed);
        send(s, 0, n);
    }
}

static uint32_t body_bytes(uint64_t n) {
    return (uint32_t)(n * 37 % 101);
}

/* A batch of records n and following. */
static struct fab_batch batch_from(uint64_t n, uint32_t count) {
    static uint8_t bytes[300 * 101];
    static uint32_t sizes[300];
    struct fab_batch b = {.header = {.kind = KIND, .correlation = n}, .sizes = sizes, .bytes = bytes};
    b.numbered = 1;
    b.count = count;
    for (uint32_t i = 0; i < count; i++) {
        sizes[i] = body_bytes(n + i);
        fixture_fill(bytes + b.bytes_count, n + i, sizes[i]);
        b.bytes_count += sizes[i];
    }
    return b;
}

static void burst(struct fab_peer *s, struct fab_columns *cols) {
    uint64_t seed = 3;
    for (uint64_t n = 0; n < RECORDS;) {
        uint32_t done = 0;
        uint64_t offset = 0;
        uint32_t count = 1 + fixture_below(&seed, 300);
        uint32_t to_ack = ACK_EVERY - (uint32_t)(n % ACK_EVERY);
        struct fab_batch b = batch_from(n, count < to_ack ? count : to_ack);
        uint64_t window = fixture_below(&seed, 2) ? UINT64_MAX : 1024;
        for (;;) {
            CHECK(fab_peer_send_batch(s, 1, &b, window, &done, &offset) >= 0);
            if (done == b.count)
                break;
            await(s, FAB_WAITS_ROOM, &seed);
        }
        n += b.count;
        for (uint32_t pause = fixture_below(&seed, 400); pause > 0; pause--)
            fab_cpu_relax();
        if (n % ACK_EVERY == 0)
            expect(s, cols, n, &seed);
    }
}

static void sink(struct fab_peer *s, struct fab_columns *cols) {
    uint64_t seed = 4;
    for (uint64_t n = 0; n < RECORDS;) {
        if (fab_peer_receive(s, 1 + fixture_below(&seed, 80), UINT64_MAX, cols) < 0) {
            fab_peer_commit(s, 0, s->in[0].read); /* nothing more comes without room */
            await(s, FAB_WAITS_MESSAGES, &seed);
            continue;
        }
        for (uint32_t i = 0; i < cols->count; i++, n++) {
            CHECK_EQ(cols->correlations[i], n);
            CHECK_EQ(cols->ends[i] - cols->starts[i], body_bytes(n));
            fixture_check_body(s->in[0].data + cols->start + cols->starts[i], n, body_bytes(n));
        }
        if (fixture_below(&seed, 2) || n % ACK_EVERY == 0)
            fab_peer_commit(s, 0, cols->end);
        if (n % ACK_EVERY == 0 && cols->count != 0)
            send(s, 0, n);
    }
}

static void fill(struct fab_peer *s, struct fab_columns *cols) {
    static const uint8_t body[2048];
    uint64_t seed = 5;
    (void)cols;
    for (uint64_t n = 0; n < FILLS; n++) {
        struct fab_record r = {.size = 2048 - 48, .kind = KIND, .correlation = n};
        while (fab_peer_send(s, 1, &r, body) == 0)
            await(s, FAB_WAITS_ROOM, &seed);
    }
}

static void drain(struct fab_peer *s, struct fab_columns *cols) {
    for (uint64_t n = 0; n < FILLS;) {
        if (n < FILLS - 2) /* two fill the lane; behind the last two nobody sleeps */
            while (atomic_load(&fab_peer_words(s, 0)->sleeping) != FAB_WAITS_ROOM)
                fab_cpu_relax();
        if (fab_peer_receive(s, 99, UINT64_MAX, cols) < 0)
            continue;
        for (uint32_t i = 0; i < cols->count; i++)
            CHECK_EQ(cols->correlations[i], n++);
        fab_peer_commit(s, 0, cols->end);
    }
}

typedef void side_run(struct fab_peer *, struct fab_columns *);

struct side {
    struct fab_peer *peer;
    side_run *run;
};

static void *side_main(void *arg) {
    struct side *side = arg;
    struct fab_columns *cols = calloc(1, sizeof *cols);
    side->run(side->peer, cols);
    free(cols);
    CHECK_EQ(side->peer->words->counters[FAB_COUNT_ALARMS], 0);
    CHECK_EQ(fab_peer_dropped(side->peer), 0);
    return NULL;
}

/* Have a process wait through an epoll, as the binding has it. */
static void watch(struct fab_peer *s) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int pollset = epoll_create1(EPOLL_CLOEXEC);
    CHECK(pollset >= 0);
    CHECK_EQ(epoll_ctl(pollset, EPOLL_CTL_ADD, s->bell, &event), 0);
    fab_peer_set_pollset(s, pollset);
}

static void as_threads(side_run *run0, side_run *run1, int64_t spin_ns, int pollset) {
    struct fixture_fabric f;
    pthread_t thread;
    fixture_fabric_open(&f, 2, FAB_PAGE);
    struct side sides[] = {{f.peers[0], run0}, {f.peers[1], run1}};
    for (int i = 0; i < 2; i++)
        fab_peer_tune(f.peers[i], 2, spin_ns);
    if (pollset)
        watch(f.peers[1]);
    CHECK_EQ(pthread_create(&thread, NULL, side_main, &sides[1]), 0);
    side_main(&sides[0]);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(fab_peer_quiet(f.peers[0]), 1);
    if (pollset)
        close(f.peers[1]->pollset);
    CHECK(f.peers[0]->words->counters[FAB_COUNT_PARKS] +
              (spin_ns != 0 ? f.peers[0]->words->counters[FAB_COUNT_SPINS_WON] : 0) >
          0); /* or this tested nothing */
    fixture_fabric_close(&f);
}

/* One process's two mappings of the segment. */
static struct fab_peer *attach(const struct fixture_fabric *f, int segment, uint32_t process) {
    const struct fab_header *h = &f->header;
    struct fab_peer *s = calloc(1, sizeof *s);
    const uint8_t *whole = mmap(NULL, h->segment_bytes, PROT_READ, MAP_SHARED, segment, 0);
    uint8_t *block = mmap(NULL, fab_block_bytes(h, process), PROT_READ | PROT_WRITE, MAP_SHARED, segment,
                          (off_t)fab_block_offset(h, process));
    CHECK(whole != MAP_FAILED && block != MAP_FAILED);
    CHECK_EQ(fab_peer_init(s, h, process, whole, block), 0);
    for (uint32_t p = 0; p < h->processes; p++)
        fab_peer_set_bell(s, p, f->bells[p]);
    fab_peer_tune(s, 2, 20000);
    watch(s);
    return s;
}

static void detach(struct fab_peer *s) {
    close(s->pollset);
    CHECK_EQ(munmap((void *)(uintptr_t)s->whole, s->header.segment_bytes), 0);
    CHECK_EQ(munmap(s->block, fab_block_bytes(&s->header, s->process)), 0);
    free(s);
}

static void as_processes(side_run *run0, side_run *run1) {
    struct fixture_fabric f;
    int status;
    fixture_fabric_open(&f, 2, FAB_PAGE); /* for its header and bells */
    int segment = memfd_create("wake_stress", MFD_CLOEXEC);
    CHECK(segment >= 0);
    CHECK_EQ(ftruncate(segment, (off_t)f.header.segment_bytes), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    struct side side = {attach(&f, segment, child == 0), child == 0 ? run1 : run0};
    side_main(&side);
    if (child == 0)
        _exit(0);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_EQ(fab_peer_quiet(side.peer), 1);
    detach(side.peer);
    close(segment);
    fixture_fabric_close(&f);
}

static void threads_play_ping_pong_asleep(void) {
    as_threads(ping, pong, 0, 0);
    as_threads(ping, pong, 0, 1);
}

static void threads_play_ping_pong_spinning(void) {
    as_threads(ping, pong, 20000, 0);
    as_threads(ping, pong, 20000, 1);
}

static void threads_send_bursts_asleep(void) {
    as_threads(burst, sink, 0, 0);
    as_threads(burst, sink, 0, 1);
}

static void threads_send_bursts_spinning(void) {
    as_threads(burst, sink, 20000, 0);
    as_threads(burst, sink, 20000, 1);
}

static void threads_sleep_until_there_is_room(void) {
    as_threads(fill, drain, 0, 0);
    as_threads(fill, drain, 0, 1);
}

static void processes_play_ping_pong(void) {
    as_processes(ping, pong);
}

static void processes_send_bursts(void) {
    as_processes(burst, sink);
}

static void processes_sleep_until_there_is_room(void) {
    as_processes(fill, drain);
}

static const struct check_test tests[] = {
    TEST(threads_play_ping_pong_asleep),
    TEST(threads_play_ping_pong_spinning),
    TEST(threads_send_bursts_asleep),
    TEST(threads_send_bursts_spinning),
    TEST(threads_sleep_until_there_is_room),
    TEST(processes_play_ping_pong),
    TEST(processes_send_bursts),
    TEST(processes_sleep_until_there_is_room),
};

int main(void) {
    return CHECK_RUN(tests, 60);
}

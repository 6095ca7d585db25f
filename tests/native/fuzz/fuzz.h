/* SPDX-License-Identifier: MIT */
/*
 * fuzz.h - run a target over a corpus, and over what is made of it.
 *
 *   with libFuzzer (clang -DFUZZ_LIBFUZZER -fsanitize=fuzzer)   guided by coverage; its own main
 *   without        (any compiler)                               replays the corpus, then changes it at random
 *
 *   PROGRAM SECONDS SEED FILE...     the main of this file; prints the seed and how many inputs it ran
 *
 * A target is LLVMFuzzerTestOneInput; it ends the process when something is not so. The input that did it is
 * in crash-NAME then (libFuzzer calls its own crash-HASH): run the program with it, or add it to the corpus.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "../fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Take numbers from an input; zeros when it is used up. */
struct fuzz_input {
    const uint8_t *data;
    size_t left;
};

static inline void fuzz_take(struct fuzz_input *in, void *to, size_t bytes) {
    size_t some = bytes < in->left ? bytes : in->left;
    memset(to, 0, bytes);
    if (some != 0)
        memcpy(to, in->data, some);
    in->data += some;
    in->left -= some;
}

static inline uint64_t fuzz_u64(struct fuzz_input *in) {
    uint64_t value;
    fuzz_take(in, &value, sizeof value);
    return value;
}

static inline uint32_t fuzz_u16(struct fuzz_input *in) {
    uint16_t value;
    fuzz_take(in, &value, sizeof value);
    return value;
}

#ifndef FUZZ_LIBFUZZER

#define FUZZ_LARGEST 8192u
#define FUZZ_CORPUS 256

struct fuzz_file {
    uint8_t *data;
    uint32_t size;
};

static inline struct fuzz_file fuzz_read(const char *path) {
    struct fuzz_file f = {malloc(FUZZ_LARGEST), 0};
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && f.data != NULL);
    f.size = (uint32_t)fread(f.data, 1, FUZZ_LARGEST, file);
    CHECK_EQ(fclose(file), 0);
    return f;
}

/* Change a copy of an input in a few places: bits, interesting numbers, pieces of another, its length. */
static inline uint32_t fuzz_mutate(uint8_t *out, const struct fuzz_file *a, const struct fuzz_file *b,
                                   uint64_t *seed) {
    static const uint64_t numbers[] = {0,  1,    15,   16,         47,         48,         49,
                                       64, 4095, 4096, 0x7fffffff, 0x80000000, 0xfffffff0, UINT64_MAX};
    uint32_t size = a->size;
    if (size != 0)
        memcpy(out, a->data, size);
    for (uint32_t n = 1 + fixture_below(seed, 6); n > 0; n--) {
        uint32_t at = fixture_below(seed, size + 1);
        uint32_t bytes = 1u << fixture_below(seed, 4);
        uint64_t number = numbers[fixture_below(seed, sizeof numbers / sizeof *numbers)];
        switch (fixture_below(seed, 6)) {
        case 0:
            if (at < size)
                out[at] ^= (uint8_t)(1u << fixture_below(seed, 8));
            break;
        case 1:
            if (at + bytes <= size)
                memcpy(out + at, &number, bytes);
            break;
        case 2: /* the same where numbers of 4 bytes lie */
            if ((at & ~3u) + 4 <= size)
                memcpy(out + (at & ~3u), &number, 4);
            break;
        case 3:
            if (at < size)
                out[at] = (uint8_t)(out[at] + fixture_below(seed, 35) - 17);
            break;
        case 4: /* a piece of another input */
            bytes = fixture_below(seed, b->size + 1);
            bytes = at + bytes <= FUZZ_LARGEST ? bytes : FUZZ_LARGEST - at;
            if (bytes != 0)
                memcpy(out + at, b->data + fixture_below(seed, b->size - bytes + 1), bytes);
            size = at + bytes > size ? at + bytes : size;
            break;
        default:
            if (fixture_below(seed, 4) == 0)
                size = at;
        }
    }
    return size;
}

/* What is run, to be written out by whoever finds the process dying of it. */
static struct fuzz_file fuzz_running;
static const char *fuzz_name;

static inline void fuzz_save(void) {
    char path[200];
    snprintf(path, sizeof path, "crash-%s", fuzz_name);
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        return;
    fwrite(fuzz_running.data, 1, fuzz_running.size, file);
    fclose(file);
    fprintf(stderr, "the input that did it is in %s\n", path);
}

static inline void fuzz_one(const uint8_t *data, uint32_t size) {
    memcpy(fuzz_running.data + FUZZ_LARGEST, &size, sizeof size);
    if (size != 0)
        memcpy(fuzz_running.data, data, size);
    alarm(5); /* one input that takes longer hangs */
    LLVMFuzzerTestOneInput(fuzz_running.data, size);
}

/* A failed check exits with a status and a crash is a signal: the parent sees both, the input is in shared memory. */
static inline int fuzz_main(int argc, char **argv) {
    struct fuzz_file corpus[FUZZ_CORPUS];
    static uint8_t made[FUZZ_LARGEST];
    uint32_t files = 0;
    uint64_t seed = strtoull(argc > 2 ? argv[2] : "1", NULL, 10);
    int64_t end = fab_now() + (int64_t)(strtod(argc > 1 ? argv[1] : "1", NULL) * 1e9);
    uint64_t runs = 0;
    for (int i = 3; i < argc && files < FUZZ_CORPUS; i++)
        corpus[files++] = fuzz_read(argv[i]);
    CHECK(files > 0 && seed != 0);
    for (uint32_t i = 0; i < files; i++)
        fuzz_one(corpus[i].data, corpus[i].size);
    for (uint64_t state = seed; fab_now() < end; runs++) {
        const struct fuzz_file *a = &corpus[fixture_below(&state, files)];
        fuzz_one(made, fuzz_mutate(made, a, &corpus[fixture_below(&state, files)], &state));
    }
    printf("%s: %u files, %llu changed inputs, seed %llu\n", fuzz_name, files, (unsigned long long)runs,
           (unsigned long long)seed);
    for (uint32_t i = 0; i < files; i++)
        free(corpus[i].data);
    return 0;
}

#include <sys/wait.h>

int main(int argc, char **argv) {
    int status = 0;
    const char *slash = strrchr(argv[0], '/');
    fuzz_name = slash != NULL ? slash + 1 : argv[0];
    fuzz_running.data =
        mmap(NULL, 2 * FUZZ_LARGEST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(fuzz_running.data != MAP_FAILED);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        return fuzz_main(argc, argv);
    CHECK_EQ(waitpid(child, &status, 0), child);
    if (status == 0)
        return 0;
    memcpy(&fuzz_running.size, fuzz_running.data + FUZZ_LARGEST, sizeof fuzz_running.size);
    fuzz_save();
    return 1;
}
#endif
#endif

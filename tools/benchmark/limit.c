/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limit: what metering costs where nothing but the work itself costs anything. One pass over
 * the scans, each read once: decode, gap check, sums, peaks and clipping, windows of whole cycles
 * between rising crossings, one a second. Takes the parts of a sample at a window's edges as whole.
 *
 *     limit FILE SCANS_A_SECOND SCAN_BYTES STORAGE_BYTES BITS SHIFT BIG_ENDIAN SIGNED \
 *         STAMP_OFFSET ROUNDS
 *
 * Prints a line of JSON: CPU nanoseconds for each second of scans, those of a memcpy() of the same
 * bytes, the RMS codes and the frequency of the last window, and how many scans were lost.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHANNELS = 3 };

struct format {
    size_t scan_bytes, storage_bytes;
    int bits, shift, big_endian, is_signed;
    long stamp_offset; /* -1: the scans have none */
};

struct sums {
    int64_t sum[CHANNELS], low[CHANNELS], high[CHANNELS], clipped[CHANNELS], scans;
    double squares[CHANNELS];
};

struct state {
    struct sums cycle, window; /* since the last crossing; whole cycles before it */
    int64_t scan, stamp, lost, previous, period_ns, rate, cycles;
    double middle, first_crossing, last_crossing, rms[CHANNELS], hertz;
    int64_t windows, clipped;
};

static void clear(struct sums *sums)
{
    memset(sums, 0, sizeof *sums);
    for (int c = 0; c < CHANNELS; c++) {
        sums->low[c] = INT64_MAX;
        sums->high[c] = INT64_MIN;
    }
}

static void add(struct sums *to, const struct sums *from)
{
    for (int c = 0; c < CHANNELS; c++) {
        to->sum[c] += from->sum[c];
        to->squares[c] += from->squares[c];
        to->clipped[c] += from->clipped[c];
        if (from->low[c] < to->low[c])
            to->low[c] = from->low[c];
        if (from->high[c] > to->high[c])
            to->high[c] = from->high[c];
    }
    to->scans += from->scans;
}

static void finish(struct state *state)
{
    struct sums *window = &state->window;
    for (int c = 0; c < CHANNELS; c++) {
        double mean = (double)window->sum[c] / window->scans;
        state->rms[c] = sqrt(window->squares[c] / window->scans - mean * mean);
        state->clipped += window->clipped[c];
    }
    state->middle = (double)window->sum[0] / window->scans;
    state->hertz = state->cycles * (double)state->rate
                   / (state->last_crossing - state->first_crossing);
    state->first_crossing = state->last_crossing;
    state->cycles = 0;
    state->windows++;
    clear(window);
}

static inline __attribute__((always_inline)) int64_t
decode(const unsigned char *place, const struct format f)
{
    if (f.storage_bytes == 2) {
        uint16_t word;
        memcpy(&word, place, sizeof word);
        if (f.big_endian)
            word = __builtin_bswap16(word);
        word = (uint16_t)(word << (16 - f.bits - f.shift));
        return f.is_signed ? (int16_t)word >> (16 - f.bits) : word >> (16 - f.bits);
    }
    uint32_t word;
    memcpy(&word, place, sizeof word);
    if (f.big_endian)
        word = __builtin_bswap32(word);
    word <<= 32 - f.bits - f.shift;
    return f.is_signed ? (int32_t)word >> (32 - f.bits) : (int64_t)(word >> (32 - f.bits));
}

/* Inlined for each format, so that the compiler knows its constants. */
static inline __attribute__((always_inline)) void
feed(struct state *state, const unsigned char *data, size_t scans, const struct format f)
{
    const int64_t lowest = f.is_signed ? -(1 << (f.bits - 1)) : 0;
    const int64_t highest = lowest + (1 << f.bits) - 1;
    struct sums cycle = state->cycle;
    int64_t previous = state->previous, stamp = state->stamp;

    for (size_t n = 0; n < scans; n++, data += f.scan_bytes) {
        int64_t codes[CHANNELS];
        for (int c = 0; c < CHANNELS; c++)
            codes[c] = decode(data + c * f.storage_bytes, f);
        if (f.stamp_offset >= 0) {
            int64_t now;
            memcpy(&now, data + f.stamp_offset, sizeof now);
            if (stamp && now - stamp > state->period_ns * 3 / 2)
                state->lost += (now - stamp) / state->period_ns - 1;
            stamp = now;
        }
        /* Noise turns one crossing into several: ignore those that follow too soon. */
        if (previous < state->middle && codes[0] >= state->middle
            && (state->first_crossing < 0 || cycle.scans > state->rate / 100)) {
            double crossing = state->scan + (double)n
                              - (codes[0] - state->middle) / (double)(codes[0] - previous);
            if (state->first_crossing < 0) {
                state->first_crossing = crossing;
            } else {
                add(&state->window, &cycle);
                state->cycles++;
            }
            state->last_crossing = crossing;
            clear(&cycle);
        }
        previous = codes[0];
        for (int c = 0; c < CHANNELS; c++) {
            cycle.sum[c] += codes[c];
            cycle.squares[c] += (double)(codes[c] * codes[c]);
            cycle.low[c] = codes[c] < cycle.low[c] ? codes[c] : cycle.low[c];
            cycle.high[c] = codes[c] > cycle.high[c] ? codes[c] : cycle.high[c];
            cycle.clipped[c] += codes[c] <= lowest || codes[c] >= highest;
        }
        cycle.scans++;
    }
    state->cycle = cycle;
    state->previous = previous;
    state->stamp = stamp;
    state->scan += scans;
    if (state->window.scans)
        finish(state);
}

static int64_t cpu_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void second(struct state *state, const unsigned char *data, size_t scans, struct format f)
{
    const struct format s16 = {16, 2, 16, 0, 0, 1, 8}, s24 = {12, 4, 24, 0, 0, 1, -1};
    const struct format u12 = {6, 2, 12, 4, 1, 0, -1};

    if (!memcmp(&f, &s16, sizeof f))
        feed(state, data, scans, s16);
    else if (!memcmp(&f, &s24, sizeof f))
        feed(state, data, scans, s24);
    else if (!memcmp(&f, &u12, sizeof f))
        feed(state, data, scans, u12);
    else
        exit(3);
}

int main(int argc, char **argv)
{
    if (argc != 11)
        return 2;
    struct format f;
    memset(&f, 0, sizeof f);
    size_t rate = strtoul(argv[2], NULL, 10);
    f.scan_bytes = strtoul(argv[3], NULL, 10);
    f.storage_bytes = strtoul(argv[4], NULL, 10);
    f.bits = atoi(argv[5]);
    f.shift = atoi(argv[6]);
    f.big_endian = atoi(argv[7]);
    f.is_signed = atoi(argv[8]);
    f.stamp_offset = atol(argv[9]);
    int rounds = atoi(argv[10]);
    FILE *file = fopen(argv[1], "rb");
    if (!file || fseek(file, 0, SEEK_END))
        return 1;
    size_t block = rate * f.scan_bytes, length = ftell(file) / block * block;
    unsigned char *data = malloc(length), *copy = malloc(block);
    rewind(file);
    if (!length || fread(data, 1, length, file) != length)
        return 1;
    struct state state;
    printf("{\"feed_ns\": [");
    for (int round = 0; round < rounds; round++) {
        memset(&state, 0, sizeof state);
        state.rate = rate;
        state.period_ns = 1000000000LL / rate;
        state.first_crossing = -1;
        state.middle = f.is_signed ? 0 : 1 << (f.bits - 1);
        clear(&state.cycle);
        clear(&state.window);
        for (size_t at = 0; at < length; at += block) {
            int64_t start = cpu_ns();
            second(&state, data + at, rate, f);
            printf("%s%lld", round || at ? ", " : "", (long long)(cpu_ns() - start));
        }
    }
    printf("], \"copy_ns\": [");
    for (int round = 0; round < rounds; round++)
        for (size_t at = 0; at < length; at += block) {
            int64_t start = cpu_ns();
            memcpy(copy, data + at, block);
            __asm__ volatile("" : : "r"(copy) : "memory");
            printf("%s%lld", round || at ? ", " : "", (long long)(cpu_ns() - start));
        }
    printf("], \"rms\": [%.17g, %.17g, %.17g], \"hertz\": %.17g, \"lost\": %lld}\n", state.rms[0],
           state.rms[1], state.rms[2], state.hertz, (long long)state.lost);
    return 0;
}

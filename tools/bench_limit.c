// SPDX-License-Identifier: Apache-2.0
/*
 * What metering costs at the least: one pass over the scans in C. Decodes three channels, checks
 * the stamps for gaps, and takes sum, squares, extremes and clipping over the whole cycles of a
 * block. No fractional edges, no direction, no waveforms, no tolerance for late stamps.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { CHANNELS = 3 };

struct state {
	double mean[CHANNELS], rms[CHANNELS], hertz;
	int64_t lowest[CHANNELS], highest[CHANNELS], newest, lost, clipped;
};

static inline int64_t code_s16(const uint8_t *at)
{
	int16_t word;

	memcpy(&word, at, sizeof(word));
	return word;
}

static inline int64_t code_s24(const uint8_t *at)
{
	int32_t word;

	memcpy(&word, at, sizeof(word));
	return (int32_t)((uint32_t)word << 8) >> 8;
}

static inline int64_t code_be12(const uint8_t *at)
{
	uint16_t word;

	memcpy(&word, at, sizeof(word));
	return __builtin_bswap16(word) >> 4;
}

#define METER(NAME, WIDTH, SCAN, STAMP, LOW, HIGH)						\
void meter_##NAME(const uint8_t *scans, int64_t count, double period, struct state *s)		\
{												\
	int64_t sum[CHANNELS] = { 0 }, kept[CHANNELS] = { 0 };					\
	double square[CHANNELS] = { 0 }, kept_square[CHANNELS] = { 0 };				\
	int64_t samples = 0, kept_samples = 0, cycles = -1, before = 0;				\
	double first_crossing = 0, crossing = 0;						\
												\
	for (int c = 0; c < CHANNELS; c++)							\
		s->lowest[c] = INT64_MAX, s->highest[c] = INT64_MIN;				\
	for (int64_t i = 0; i < count; i++) {							\
		const uint8_t *scan = scans + i * (SCAN);					\
		int64_t codes[CHANNELS], stamp;							\
												\
		memcpy(&stamp, scan + (STAMP), sizeof(stamp));					\
		if (s->newest && stamp - s->newest > 1.5 * period)				\
			s->lost += llround((stamp - s->newest) / period) - 1;			\
		s->newest = stamp;								\
		for (int c = 0; c < CHANNELS; c++)						\
			codes[c] = code_##NAME(scan + c * (WIDTH));				\
		if (i && before < s->mean[0] && codes[0] >= s->mean[0]) {			\
			crossing = i - (codes[0] - s->mean[0]) / (double)(codes[0] - before);	\
			if (++cycles == 0)							\
				first_crossing = crossing;					\
			for (int c = 0; c < CHANNELS; c++)					\
				kept[c] = sum[c], kept_square[c] = square[c];			\
			kept_samples = samples;							\
		}										\
		before = codes[0];								\
		samples++;									\
		for (int c = 0; c < CHANNELS; c++) {						\
			double centered = codes[c] - s->mean[c];				\
												\
			sum[c] += codes[c];							\
			square[c] += centered * centered;					\
			if (codes[c] < s->lowest[c])						\
				s->lowest[c] = codes[c];					\
			if (codes[c] > s->highest[c])						\
				s->highest[c] = codes[c];					\
			s->clipped += codes[c] <= (LOW) || codes[c] >= (HIGH);			\
		}										\
	}											\
	if (cycles <= 0)									\
		for (int c = 0; c < CHANNELS; c++)						\
			kept[c] = sum[c], kept_square[c] = square[c], kept_samples = samples;	\
	else											\
		s->hertz = cycles * 1e9 / period / (crossing - first_crossing);			\
	for (int c = 0; c < CHANNELS; c++) {							\
		double mean = (double)kept[c] / kept_samples, off = mean - s->mean[c];		\
												\
		s->rms[c] = sqrt(fmax(0, kept_square[c] / kept_samples - off * off));		\
		s->mean[c] = mean;								\
	}											\
}

METER(s16, 2, 16, 8, -32768, 32767)
METER(s24, 4, 24, 16, -8388608, 8388607)
METER(be12, 2, 16, 8, 0, 4095)

/*
 * What iio_channel_read() of libiio does for one channel: sample by sample, convert through a
 * function that knows the type, to another buffer.
 */
#define READ(NAME, TYPE, SCAN)									\
static __attribute__((noinline)) void convert_##NAME(TYPE *to, const uint8_t *from)		\
{												\
	*to = (TYPE)code_##NAME(from);								\
}												\
												\
void read_##NAME(const uint8_t *scans, int64_t count, int64_t offset, TYPE *to)			\
{												\
	for (int64_t i = 0; i < count; i++)							\
		convert_##NAME(to + i, scans + i * (SCAN) + offset);				\
}

READ(s16, int16_t, 16)
READ(s24, int32_t, 24)
READ(be12, int16_t, 16)

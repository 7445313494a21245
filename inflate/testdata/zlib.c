// Decodes raw deflate blocks with C zlib, for the benchmark. On standard input: the output size
// of the blocks and their number as 32-bit little-endian numbers, then for each its compressed
// size and its bytes. After that, each byte read makes it decode all of them once, whereupon it
// writes how many nanoseconds that took as a 64-bit number.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <zlib.h>

static uint32_t number(void) {
	uint32_t v;
	if (fread(&v, sizeof v, 1, stdin) != 1) exit(1);
	return v;
}

int main(void) {
	uint32_t size = number(), count = number();
	unsigned char *out = malloc(size), **in = malloc(count * sizeof *in);
	uint32_t *lens = malloc(count * sizeof *lens);
	for (uint32_t i = 0; i < count; i++) {
		lens[i] = number();
		in[i] = malloc(lens[i]);
		if (fread(in[i], 1, lens[i], stdin) != lens[i]) return 1;
	}
	z_stream z = {0};
	if (inflateInit2(&z, -15) != Z_OK) return 1;
	while (getchar() != EOF) {
		struct timespec a, b;
		clock_gettime(CLOCK_MONOTONIC, &a);
		for (uint32_t i = 0; i < count; i++) {
			inflateReset(&z);
			z.next_in = in[i], z.avail_in = lens[i];
			z.next_out = out, z.avail_out = size;
			if (inflate(&z, Z_FINISH) != Z_STREAM_END || z.avail_out != 0) return 1;
		}
		clock_gettime(CLOCK_MONOTONIC, &b);
		uint64_t ns = (b.tv_sec - a.tv_sec) * 1000000000ull + b.tv_nsec - a.tv_nsec;
		fwrite(&ns, sizeof ns, 1, stdout);
		fflush(stdout);
	}
}

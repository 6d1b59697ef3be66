// Times AES-128-GCM by libipsec-mb's direct call: a nonce of 12 bytes, 8 bytes of additional data, a tag of 16,
// in place, 32 buffers in turn. usage: direct CORE MILLISECONDS SIZE... One line a size: SIZE SEAL OPEN, in nanoseconds,
// the median of 15 rounds.
#define _GNU_SOURCE
#include <intel-ipsec-mb.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { buffers = 32, rounds = 15 };

static uint8_t text[buffers][2048] __attribute__((aligned(64)));
static uint8_t tag[buffers][16], nonce[buffers][16], aad[buffers][16];
static struct gcm_key_data key __attribute__((aligned(64)));
static struct gcm_context_data context __attribute__((aligned(64)));

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void batch(IMB_MGR *m, int open, int size) {
	for (int i = 0; i < buffers; i++) {
		if (open)
			IMB_AES128_GCM_DEC(m, &key, &context, text[i], text[i], size, nonce[i], aad[i], 8, tag[i], 16);
		else
			IMB_AES128_GCM_ENC(m, &key, &context, text[i], text[i], size, nonce[i], aad[i], 8, tag[i], 16);
	}
}

static int ascending(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double each(IMB_MGR *m, int open, int size, double budget) {
	double took[rounds];
	for (int r = 0; r < rounds; r++) {
		double began = now(), ended;
		long n = 0;
		do {
			for (int i = 0; i < 16; i++)
				batch(m, open, size);
			n += 16 * buffers;
			ended = now();
		} while (ended - began < budget / rounds);
		took[r] = (ended - began) / n;
	}
	qsort(took, rounds, sizeof took[0], ascending);
	return took[rounds / 2];
}

int main(int argc, char **argv) {
	if (argc < 4)
		return 2;
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(atoi(argv[1]), &set);
	if (sched_setaffinity(0, sizeof set, &set)) {
		perror("sched_setaffinity");
		return 1;
	}
	IMB_MGR *m = alloc_mb_mgr(0);
	if (!m)
		return 1;
	init_mb_mgr_auto(m, NULL);
	static const uint8_t k[16] = {1, 2, 3};
	IMB_AES128_GCM_PRE(m, k, &key);
	double budget = atof(argv[2]) * 1e6;
	for (int i = 3; i < argc; i++) {
		int size = atoi(argv[i]);
		if (size < 1 || size > (int)sizeof text[0])
			return 2;
		double seal = each(m, 0, size, budget), open = each(m, 1, size, budget);
		printf("%d %.2f %.2f\n", size, seal, open);
	}
	return 0;
}

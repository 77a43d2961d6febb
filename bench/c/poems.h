// Slow poems for the measured programs: every connection has its next chunk at
// the same place of a wheel that turns once per delay, a place a millisecond. No
// timer is ever moved, which no engine that knows nothing of its protocols can
// do: this is the limit of what a server of poems may cost.
//
// The program that includes it defines recite, which sends the next chunk of a
// connection.
#include <time.h>

struct place { int *fds, n, room; };

static struct place *wheel;
static long places, chunk_bytes, text_bytes, turned; // turned: milliseconds that were served
static char *text;
static long *at_byte; // of each connection, where in the text it is

static void recite(int fd);

static long now_ms(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// millis is a Go duration in milliseconds or seconds.
static long millis(const char *s) {
	char *unit;
	double n = strtod(s, &unit) * (strcmp(unit, "s") ? 1 : 1000);
	if (n < 1 || (strcmp(unit, "s") && strcmp(unit, "ms"))) {
		errno = EINVAL;
		die(s);
	}
	return (long)n;
}

// poems_init makes the wheel, if it is poems that the command line asks for. The
// text is a file's that repeats itself after --period bytes.
static int poems_init(int argc, char **argv, long max) {
	const char *kind = "", *path = "", *delay = "100ms";
	for (int i = 1; i + 1 < argc; i++) {
		if (!strcmp(argv[i], "--kind")) kind = argv[i + 1];
		if (!strcmp(argv[i], "--text")) path = argv[i + 1];
		if (!strcmp(argv[i], "--delay")) delay = argv[i + 1];
	}
	if (strcmp(kind, "slow-poems")) return 0;
	chunk_bytes = flag(argc, argv, "--size", 10);
	text_bytes = flag(argc, argv, "--period", 1);
	places = millis(delay);
	wheel = calloc(places, sizeof *wheel);
	at_byte = calloc(max, sizeof *at_byte);
	text = malloc(text_bytes + chunk_bytes);
	FILE *f = fopen(path, "r");
	if (!wheel || !at_byte || !text || !f || fread(text, 1, text_bytes + chunk_bytes, f) != (size_t)(text_bytes + chunk_bytes)) die(path);
	fclose(f);
	turned = now_ms();
	return 1;
}

// chunk is the next one of fd; it counts as sent.
static const char *chunk_of(int fd) {
	const char *p = text + at_byte[fd];
	at_byte[fd] = (at_byte[fd] + chunk_bytes) % text_bytes;
	return p;
}

// poem begins one: the first chunk now, the others a delay after each other, at
// the place that was served last.
static void poem(int fd) {
	struct place *p = &wheel[turned % places];
	if (p->n == p->room) {
		p->room = p->room ? 2 * p->room : 64;
		if (!(p->fds = realloc(p->fds, p->room * sizeof *p->fds))) die("memory");
	}
	p->fds[p->n++] = fd;
	at_byte[fd] = 0;
	recite(fd);
}

// poem_over forgets fd.
static void poem_over(int fd) {
	for (long i = 0; i < places; i++)
		for (int k = 0; k < wheel[i].n; k++)
			if (wheel[i].fds[k] == fd) { wheel[i].fds[k] = wheel[i].fds[--wheel[i].n]; return; }
}

// turn serves one millisecond that is due, and tells whether another is.
static int turn(void) {
	if (turned >= now_ms()) return 0;
	struct place *p = &wheel[++turned % places];
	for (int k = p->n - 1; k >= 0; k--) recite(p->fds[k]);
	return turned < now_ms();
}

// until_turn is how long to wait for the next millisecond.
static struct timespec until_turn(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	long left = (turned + 1) * 1000000 - (t.tv_sec * 1000000000 + t.tv_nsec);
	return (struct timespec){0, left > 0 ? left : 0};
}

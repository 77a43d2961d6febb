// The control protocol of the measured programs: one JSON line that tells the
// port, then one JSON line of usage for each line on standard input; the end of
// standard input ends the program.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static int die(const char *what) {
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

// flag is the number that follows name on the command line, or def.
__attribute__((unused)) static long flag(int argc, char **argv, const char *name, long def) {
	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], name)) return atol(argv[i + 1]);
	return def;
}

static void report(long crossings) {
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	long size = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	if (f) {
		if (fscanf(f, "%ld %ld", &size, &resident) != 2) resident = 0;
		fclose(f);
	}
	printf("{\"user_us\":%lld,\"system_us\":%lld,\"rss_bytes\":%ld,\"crossings\":%ld,\"voluntary_switches\":%ld,\"involuntary_switches\":%ld}\n",
	       u.ru_utime.tv_sec * 1000000LL + u.ru_utime.tv_usec, u.ru_stime.tv_sec * 1000000LL + u.ru_stime.tv_usec,
	       resident * sysconf(_SC_PAGESIZE), crossings, u.ru_nvcsw, u.ru_nivcsw);
	fflush(stdout);
}

// answer writes a report for each line in p[:n].
static void answer(const char *p, long n, long crossings) {
	for (long i = 0; i < n; i++)
		if (p[i] == '\n') report(crossings);
}

static int listen_loopback(int flags) {
	struct rlimit files; // as many as may be, which Go's runtime sees to for all others
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof a;
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) || listen(fd, 4096) || getsockname(fd, (struct sockaddr *)&a, &n))
		die("listen");
	printf("{\"port\":%d}\n", ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

static void nodelay(int fd) {
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

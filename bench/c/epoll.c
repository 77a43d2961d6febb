// A server on epoll, as small as an honest one can be: level-triggered,
// registered once, one read and one write per event. It echoes, or recites slow
// poems. It is the limit that the epoll engine is measured against.
#define _GNU_SOURCE
#include "control.h"
#include "poems.h"
#include <sys/epoll.h>

enum { chunk = 64 << 10, max_fds = 1 << 17 };

struct left { char *p; long at, n; };       // what the peer has not taken yet
static struct left left[max_fds];
static char buf[chunk];
static long crossings;
static int ep, reciting;

static void watch(int op, int fd, unsigned events) {
	struct epoll_event e = {.events = events, .data.fd = fd};
	crossings++;
	if (epoll_ctl(ep, op, fd, &e)) die("epoll_ctl");
}

static void end(int fd) {
	free(left[fd].p);
	left[fd] = (struct left){0};
	if (reciting) poem_over(fd);
	crossings++;
	close(fd);
}

// put writes p[:n]; it returns the number taken, or -1 where the connection is over.
static long put(int fd, const char *p, long n) {
	crossings++;
	long w = send(fd, p, n, MSG_NOSIGNAL);
	return w >= 0 ? w : errno == EAGAIN ? 0 : -1;
}

// recite ends a poem that is not taken.
static void recite(int fd) {
	if (put(fd, chunk_of(fd), chunk_bytes) != chunk_bytes) end(fd);
}

static void readable(int fd) {
	crossings++;
	long n = recv(fd, buf, chunk, 0);
	if (n < 0 && errno == EAGAIN) return;
	if (reciting && n > 0) return; // nobody asked
	long w = n > 0 ? put(fd, buf, n) : -1;
	if (w < 0) { end(fd); return; }
	if (w == n) return;
	char *p = malloc(n - w);
	if (!p) die("malloc");
	memcpy(p, buf + w, n - w);
	left[fd] = (struct left){p, 0, n - w};
	watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void writable(int fd) {
	struct left *l = &left[fd];
	long w = put(fd, l->p + l->at, l->n - l->at);
	if (w < 0) { end(fd); return; }
	if ((l->at += w) < l->n) return;
	free(l->p);
	*l = (struct left){0};
	watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

int main(int argc, char **argv) {
	reciting = poems_init(argc, argv, max_fds);
	if ((ep = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
	int listener = listen_loopback(SOCK_NONBLOCK);
	watch(EPOLL_CTL_ADD, listener, EPOLLIN);
	watch(EPOLL_CTL_ADD, 0, EPOLLIN);
	static struct epoll_event events[512];
	for (;;) {
		struct timespec pause = {0, 0}, *limit = 0;
		if (reciting) {
			limit = &pause;
			if (!turn()) pause = until_turn();
		}
		crossings++;
		int n = epoll_pwait2(ep, events, 512, limit, 0);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd == 0) {
				char line[256];
				long r = read(0, line, sizeof line);
				if (r <= 0) return 0;
				answer(line, r, crossings);
			} else if (fd == listener) {
				for (int c; crossings++, (c = accept4(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
					if (c >= max_fds) { close(c); continue; }
					nodelay(c);
					watch(EPOLL_CTL_ADD, c, EPOLLIN);
					if (reciting) poem(c);
				}
			} else if (left[fd].p) {
				writable(fd);
			} else {
				readable(fd);
			}
		}
	}
}

// A server on io_uring, as small as an honest one can be: multishot accept and
// receive, a ring of provided buffers that are sent back as they are, one call
// per turn, DEFER_TASKRUN. It echoes, or recites slow poems. It is the limit that
// the io_uring engine is measured against. It builds with liburing 2.3.
#define _GNU_SOURCE
#include "control.h"
#include "poems.h"
#include <liburing.h>

enum { max_fds = 1 << 17 };
enum kind { accepted = 1, received, sent, recited, control };

// conn is one connection: the received buffers that wait to go back, in order.
struct conn { int head, tail, receiving, open, reciting; };
struct piece { int at, n, next; };

static struct io_uring ring;
static struct io_uring_buf_ring *buffers;
static struct conn conns[max_fds];
static struct piece *pieces;
static char *memory, line[256];
static int *hungry, nhungry;   // connections whose receive found no buffer
static int count, size;
static long crossings;

static struct io_uring_sqe *entry(enum kind kind, int fd, int buffer) {
	struct io_uring_sqe *e;
	while (!(e = io_uring_get_sqe(&ring))) { crossings++; io_uring_submit(&ring); }
	memset(e, 0, sizeof *e);
	e->user_data = (unsigned long long)kind << 56 | (unsigned long long)buffer << 32 | (unsigned)fd;
	return e;
}

#define SUBMIT(kind, fd, buffer, prep, ...) do { \
	struct io_uring_sqe *e_ = entry(kind, fd, buffer); \
	unsigned long long d_ = e_->user_data; \
	prep(e_, __VA_ARGS__); \
	e_->user_data = d_; \
} while (0)

static void receive(int fd) {
	struct io_uring_sqe *e = entry(received, fd, 0);
	unsigned long long d = e->user_data;
	io_uring_prep_recv_multishot(e, fd, 0, 0, 0);
	e->flags |= IOSQE_BUFFER_SELECT;
	e->buf_group = 0;
	e->user_data = d;
	conns[fd].receiving = 1;
}

static void give_back(int b) {
	io_uring_buf_ring_add(buffers, memory + (long)b * size, size, b, count - 1, 0);
	io_uring_buf_ring_advance(buffers, 1);
}

static void send_head(int fd) {
	int b = conns[fd].head;
	struct piece *p = &pieces[b];
	SUBMIT(sent, fd, b, io_uring_prep_send, fd, memory + (long)b * size + p->at, p->n, MSG_NOSIGNAL);
}

// end closes fd once nothing is in flight on it.
static void end(int fd) {
	struct conn *c = &conns[fd];
	if (c->open) {
		c->open = 0;
		shutdown(fd, SHUT_RDWR);
		crossings++;
		if (wheel) poem_over(fd);
	}
	if (c->receiving || c->reciting || c->head >= 0) return;
	close(fd);
	crossings++;
}

static void on_received(int fd, int res, unsigned flags) {
	struct conn *c = &conns[fd];
	if (!(flags & IORING_CQE_F_MORE)) c->receiving = 0;
	if (flags & IORING_CQE_F_BUFFER) {
		int b = flags >> IORING_CQE_BUFFER_SHIFT;
		if (res <= 0 || !c->open || wheel) {
			give_back(b);
		} else {
			pieces[b] = (struct piece){0, res, -1};
			if (c->head < 0) { c->head = c->tail = b; send_head(fd); }
			else { pieces[c->tail].next = b; c->tail = b; }
		}
	}
	if (res == -ENOBUFS) { hungry[nhungry++] = fd; c->receiving = 1; return; }
	if (res <= 0 || !c->open) { end(fd); return; }
	if (!c->receiving) receive(fd);
}

static void on_sent(int fd, int b, int res) {
	struct conn *c = &conns[fd];
	struct piece *p = &pieces[b];
	if (res > 0 && res < p->n) { p->at += res; p->n -= res; send_head(fd); return; }
	c->head = p->next;
	give_back(b);
	if (res <= 0)
		while (c->head >= 0) { int next = pieces[c->head].next; give_back(c->head); c->head = next; }
	if (c->head >= 0) send_head(fd);
	else if (res <= 0 || !c->open) end(fd);
}

// recite sends a chunk; on_recited ends a poem that is not taken.
static void recite(int fd) {
	struct conn *c = &conns[fd];
	if (c->reciting) { end(fd); return; }
	c->reciting = 1;
	SUBMIT(recited, fd, 0, io_uring_prep_send, fd, chunk_of(fd), chunk_bytes, MSG_NOSIGNAL);
}

static void on_recited(int fd, int res) {
	struct conn *c = &conns[fd];
	c->reciting = 0;
	if (res != chunk_bytes || !c->open) end(fd);
}

int main(int argc, char **argv) {
	int reciting = poems_init(argc, argv, max_fds);
	long message = flag(argc, argv, "--size", 64) * flag(argc, argv, "--depth", 1);
	long connections = flag(argc, argv, "--connections", 64);
	size = message <= 2048 ? 2048 : message <= 65536 ? message : 65536;
	for (count = 64; count < connections && count < 4096; count *= 2) {}
	if (size > 16384) count = 32;

	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
		.cq_entries = 32768,
	};
	int err = io_uring_queue_init_params(4096, &ring, &params);
	if (err) { errno = -err; die("io_uring_setup"); }
	void *shared;
	if (posix_memalign(&shared, 4096, count * sizeof(struct io_uring_buf)) || posix_memalign((void **)&memory, 4096, (long)count * size)) die("memory");
	pieces = calloc(count, sizeof *pieces);
	hungry = calloc(max_fds, sizeof *hungry);
	buffers = shared;
	io_uring_buf_ring_init(buffers);
	struct io_uring_buf_reg reg = {.ring_addr = (unsigned long)shared, .ring_entries = count};
	if ((err = io_uring_register_buf_ring(&ring, &reg, 0))) { errno = -err; die("register_buf_ring"); }
	for (int b = 0; b < count; b++) give_back(b);

	int listener = listen_loopback(0);
	SUBMIT(accepted, listener, 0, io_uring_prep_multishot_accept, listener, 0, 0, SOCK_CLOEXEC);
	SUBMIT(control, 0, 0, io_uring_prep_read, 0, line, sizeof line, 0);
	for (;;) {
		struct io_uring_cqe *cqe;
		crossings++;
		if (reciting) {
			struct __kernel_timespec pause = {0, 0};
			if (!turn()) pause.tv_nsec = until_turn().tv_nsec;
			err = io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &pause, 0);
		} else {
			err = io_uring_submit_and_wait(&ring, 1);
		}
		if (err < 0 && err != -EINTR && err != -ETIME) { errno = -err; die("io_uring_enter"); }
		unsigned head, n = 0;
		io_uring_for_each_cqe(&ring, head, cqe) {
			int fd = (int)(unsigned)cqe->user_data, b = cqe->user_data >> 32 & 0xffff, res = cqe->res;
			n++;
			switch (cqe->user_data >> 56) {
			case accepted:
				if (res >= 0 && res < max_fds) {
					nodelay(res);
					crossings++;
					conns[res] = (struct conn){.head = -1, .tail = -1, .open = 1};
					receive(res);
					if (reciting) poem(res);
				}
				if (!(cqe->flags & IORING_CQE_F_MORE))
					SUBMIT(accepted, listener, 0, io_uring_prep_multishot_accept, listener, 0, 0, SOCK_CLOEXEC);
				break;
			case received: on_received(fd, res, cqe->flags); break;
			case sent: on_sent(fd, b, res); break;
			case recited: on_recited(fd, res); break;
			case control:
				if (res <= 0) return 0;
				answer(line, res, crossings);
				SUBMIT(control, 0, 0, io_uring_prep_read, 0, line, sizeof line, 0);
			}
		}
		io_uring_cq_advance(&ring, n);
		for (int i = 0; i < nhungry; i++) receive(hungry[i]);
		nhungry = 0;
	}
}

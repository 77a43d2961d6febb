package classic

import "couplet"

// queue is what a connection has yet to send: owned copies and shared Buffers,
// in order. The first segment is not touched while a system call sends from it.
type queue struct {
	segments []segment
	first    int
	size     int               // bytes queued
	sending  bool              // the first segment, or a copy, is in the hands of a system call
	over     []*couplet.Buffer // see sent
}

// segment is a run of bytes; shared is nil where they are owned.
type segment struct {
	p      []byte
	shared *couplet.Buffer
}

const (
	// chunk is how far an owned segment grows, so that small writes leave in
	// one system call.
	chunk = 64 << 10
	// mostSent is the most that one system call is given, so that progress is
	// seen.
	mostSent = 1 << 20
)

func (q *queue) empty() bool { return q.first == len(q.segments) }

// add queues a copy of p.
func (q *queue) add(p []byte) {
	q.size += len(p)
	if i := len(q.segments) - 1; i > q.first || i == q.first && !q.sending {
		if s := &q.segments[i]; s.shared == nil && len(s.p)+len(p) <= chunk {
			s.p = append(s.p, p...)
			return
		}
	}
	q.push(segment{p: append([]byte(nil), p...)})
}

// share queues b, with a reference of its own.
func (q *queue) share(b *couplet.Buffer) {
	b.Retain() // or it panics, with nothing queued yet
	q.size += b.Len()
	q.push(segment{p: b.Bytes(), shared: b})
}

func (q *queue) push(s segment) {
	if q.first == len(q.segments) {
		q.segments, q.first = q.segments[:0], 0
	} else if q.first > 64 && q.first > len(q.segments)/2 {
		n := copy(q.segments, q.segments[q.first:])
		clear(q.segments[n:])
		q.segments, q.first = q.segments[:n], 0
	}
	q.segments = append(q.segments, s)
}

// head is what to send next.
func (q *queue) head() []byte {
	p := q.segments[q.first].p
	return p[:min(len(p), mostSent)]
}

// scattered reports whether the first segments are small: they should leave together.
func (q *queue) scattered() bool {
	return q.first+1 < len(q.segments) && len(q.segments[q.first].p)+len(q.segments[q.first+1].p) <= chunk
}

// gather copies the first segments into p, as far as there is room.
func (q *queue) gather(p []byte) []byte {
	n := 0
	for _, s := range q.segments[q.first:] {
		if n += copy(p[n:], s.p); n == len(p) {
			break
		}
	}
	return p[:n]
}

// sent takes n bytes off the front. owned is how many of them were copies; what is in
// done, until the next call, is to be released.
func (q *queue) sent(n int) (owned int, done []*couplet.Buffer) {
	q.size -= n
	q.over = trimmed(q.over)
	for n > 0 {
		s := &q.segments[q.first]
		k := min(n, len(s.p))
		n -= k
		s.p = s.p[k:]
		if s.shared == nil {
			owned += k
		}
		if len(s.p) > 0 {
			break
		}
		if s.shared != nil {
			q.over = append(q.over, s.shared)
		}
		*s = segment{}
		q.first++
	}
	return owned, q.over
}

// drop forgets the bytes but keeps the references for release, when the
// kernel is done with them. It returns how many bytes were owned.
func (q *queue) drop() (owned int) {
	for i := q.first; i < len(q.segments); i++ {
		s := &q.segments[i]
		if s.shared == nil {
			owned += len(s.p)
		}
		s.p = nil
	}
	q.size = 0
	return owned
}

// release empties the queue and returns the references it held.
func (q *queue) release() (shared []*couplet.Buffer) {
	for _, s := range q.segments[q.first:] {
		if s.shared != nil {
			shared = append(shared, s.shared)
		}
	}
	*q = queue{}
	return shared
}

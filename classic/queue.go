package classic

import "couplet"

// queue is what a connection has yet to send: owned copies and shared Buffers,
// in order. The first segment is not touched while a system call sends from it.
type queue struct {
	segments []segment
	first    int
	size     int  // bytes queued
	sending  bool // the first segment is in the hands of a system call
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
	q.size += b.Len()
	q.push(segment{p: b.Bytes(), shared: b.Retain()})
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

// sent takes n bytes off the head. owned is how many of them were copies; done
// is to be released, if it is not nil, off the loop.
func (q *queue) sent(n int) (owned int, done *couplet.Buffer) {
	s := &q.segments[q.first]
	s.p = s.p[n:]
	q.size -= n
	if s.shared == nil {
		owned = n
	}
	if len(s.p) == 0 {
		done = s.shared
		*s = segment{}
		q.first++
	}
	return owned, done
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

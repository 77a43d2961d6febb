package classic

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"couplet"
)

// A queue is a byte stream: what goes in comes out, in order, whatever is
// queued while a send is under way.
func TestQueueAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var (
			q              queue
			want, got      []byte
			owned, charged int
			shared         []*couplet.Buffer
			inFlight       []byte // what a send has in its hands
			copied         []byte
		)
		next := byte(0)
		fresh := func() []byte {
			p := make([]byte, 1+rng.IntN(1<<rng.IntN(13)))
			if rng.IntN(100) == 0 {
				p = make([]byte, chunk+1+rng.IntN(chunk))
			}
			for i := range p {
				p[i] = next
				next++
			}
			return p
		}
		send := func() {
			if inFlight == nil {
				q.sending, inFlight = true, q.head()
				if q.scattered() && rng.IntN(4) > 0 {
					inFlight = q.gather(make([]byte, chunk))
				}
				copied = bytes.Clone(inFlight)
				return
			}
			if !bytes.Equal(inFlight, copied) {
				t.Fatalf("seed %d: a segment in flight was changed", seed)
			}
			n := 1 + rng.IntN(len(inFlight))
			got = append(got, inFlight[:n]...)
			k, done := q.sent(n)
			charged += k
			for _, b := range done {
				b.Release()
			}
			q.sending, inFlight = false, nil
		}
		for range 200 {
			switch rng.IntN(4) {
			case 0:
				p := fresh()
				want = append(want, p...)
				owned += len(p)
				q.add(p)
				clear(p) // the caller may
			case 1:
				p := fresh()
				want = append(want, p...)
				b := couplet.NewBuffer(p, nil)
				shared = append(shared, b)
				q.share(b)
			default:
				if !q.empty() {
					send()
				}
			}
			if q.size != len(want)-len(got) {
				t.Fatalf("seed %d: size is %d of %d", seed, q.size, len(want)-len(got))
			}
		}
		if seed%2 == 0 {
			if k := q.drop(); charged+k != owned || q.size != 0 {
				t.Fatalf("seed %d: %d of %d owned bytes are accounted for", seed, charged+k, owned)
			}
			for _, b := range q.release() {
				b.Release()
			}
		} else {
			for !q.empty() || inFlight != nil {
				send()
			}
			if !bytes.Equal(got, want) || charged != owned {
				t.Fatalf("seed %d: the bytes differ, or %d of %d owned", seed, charged, owned)
			}
		}
		for _, b := range shared {
			if b.Shared() {
				t.Fatalf("seed %d: a reference was kept", seed)
			}
		}
	}
}

// A queue that was empty began to grow where it had ended, with each that was sent.
func TestAQueueBeginsAnew(t *testing.T) {
	var q queue
	for range 10_000 {
		q.add([]byte{1})
		if _, done := q.sent(1); len(done) > 0 || !q.empty() {
			t.Fatal("what was sent is still there")
		}
	}
	if n := cap(q.segments); n > 8 {
		t.Errorf("it has room for %d segments", n)
	}
}

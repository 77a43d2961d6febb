//go:build linux

package loop

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"couplet"
)

// TestShortSendsOfEveryLength has the kernel take 0 to all of the bytes at each
// send, in every combination, with more written while a send is in flight: what
// is sent next begins where the last one ended.
func TestShortSendsOfEveryLength(t *testing.T) {
	b := newBench(t, couplet.Config{})
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }))
	sequences := 0
	// run plays one sequence: taken is what each send takes, appendAt the send
	// during which one byte more is written.
	run := func(taken []int, appendAt int) {
		sequences++
		fd := b.fd()
		b.turn(func() { b.loop.Accepted(ln, fd, 0) })
		c := b.conn(fd)
		want := []byte{0, 1, 2, 3, 4, 5, 6}
		released, sent := false, 0
		c.Write(want[:2])
		shared := couplet.NewBuffer(want[2:5], func() { released = true })
		c.WriteBuffer(shared)
		shared.Release()
		c.Write(want[5:7])
		b.turn()
		for i, k := range taken {
			var got []byte
			for s := c.Head(); s != nil; s = s.Next() {
				got = append(got, s.Bytes()...)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("takes %v: send %d has %v, not %v", taken, i, got, want)
			}
			if released != (sent >= 5) {
				t.Fatalf("takes %v: at send %d, with %v left, the Buffer is released: %v", taken, i, want, released)
			}
			if i == appendAt {
				c.Write([]byte{7})
				want = append(want, 7)
			}
			want = want[k:]
			sent += k
			b.turn(b.sent(c, k, 0))
			if c.Buffered() != len(want) {
				t.Fatalf("takes %v: after send %d %d bytes are queued, not %d", taken, i, c.Buffered(), len(want))
			}
		}
		if len(want) > 0 {
			b.turn(b.sent(c, len(want), 0))
		}
		if c.Buffered() != 0 || c.head != nil || c.tail != nil || c.sending || !released || c.owned != 0 {
			t.Fatalf("takes %v: %d bytes are queued at the end, released %v", taken, c.Buffered(), released)
		}
		c.Abort()
		b.turn(b.closed(c))
	}
	var try func(taken []int, left int)
	try = func(taken []int, left int) {
		if left == 0 {
			for at := -1; at < len(taken); at++ {
				run(taken, at)
			}
			return
		}
		for k := range left + 1 {
			if k > 0 || len(taken) == 0 || taken[len(taken)-1] > 0 {
				try(append(slices.Clone(taken), k), left-k)
			}
		}
	}
	try(nil, 7)
	t.Logf("%d sequences", sequences)
}

// TestAStaleHandleReachesNobody gives a slot to one connection after another.
// What was posted to the one before, even in the turn in which the slot changes
// hands, is not for the next.
func TestAStaleHandleReachesNobody(t *testing.T) {
	b := newBench(t, couplet.Config{})
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }))
	var c *Conn
	accept := func() {
		fd := b.fd()
		b.loop.Accepted(ln, fd, 0)
		c = b.conn(fd)
	}
	b.turn(accept)
	var old []couplet.Handle
	for i := range 100 {
		h := c.Handle()
		if slices.Contains(old, h) {
			t.Fatal("a Handle is like that of an earlier connection")
		}
		old = append(old, h)
		released := false
		buffer := couplet.NewBuffer([]byte("stale"), func() { released = true })
		c.Abort()
		if err := h.WriteBuffer(buffer); err != nil {
			t.Fatalf("WriteBuffer before the connection is closed: %v", err)
		}
		buffer.Release()
		if _, err := h.Write([]byte("stale")); err != nil {
			t.Fatalf("Write before the connection is closed: %v", err)
		}
		if err := h.Post(func(couplet.Transport) { t.Error("a posted function reached somebody") }); err != nil {
			t.Fatalf("Post before the connection is closed: %v", err)
		}
		before := c
		b.turn(b.closed(c), accept)
		switch {
		case c.Slot() != before.Slot():
			t.Fatal("the slot was not used again: this test tests nothing")
		case c.Buffered() != 0:
			t.Fatal("a write reached a stranger")
		case !released:
			t.Fatal("the Buffer of a write that reached nobody was not released")
		case c.Generation() == before.Generation() || b.loop.slab.at(c.Slot()).conn != c:
			t.Fatal("a stale completion would find a stranger")
		}
		for _, h := range old {
			if _, err := h.Write([]byte("stale")); !errors.Is(err, net.ErrClosed) {
				t.Fatalf("round %d: Write of a stale Handle: %v", i, err)
			}
			if err := h.Abort(); !errors.Is(err, net.ErrClosed) {
				t.Fatalf("round %d: Abort of a stale Handle: %v", i, err)
			}
		}
		if n, err := before.Write([]byte("stale")); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Fatalf("Write of a lost Transport: %d, %v", n, err)
		}
	}
	if c.state != open {
		t.Error("the last connection did not survive the others' Handles")
	}
}

// A connection that has had its share of a turn is not received for until it has been
// given what it had sent beyond that.
func TestOneBehindIsNotReceivedFor(t *testing.T) {
	b := newBench(t, couplet.Config{BytesPerTurn: 8})
	p := &notes{}
	c := b.accept(p)
	b.accept(&notes{})
	b.want("receive")
	b.want("receive")
	chunk := func() { b.loop.Received(c, []byte("12345"), fakeLent("12345")) }
	b.turn(chunk, chunk, chunk, chunk, chunk, chunk)
	b.want("stop receive")
	if len(p.got) != 1+4 || b.called("receive") { // a share of what came, and one of what waits
		t.Errorf("in one turn %q; calls of the driver %q", p.got, b.calls)
	}
	b.turn()
	b.want("receive")
	if len(p.got) != 1+6 {
		t.Errorf("a turn later %q", p.got)
	}
}

// The wait for the peer's acknowledgement ends with it, with the peer's FIN, or with
// LingerTimeout, which the reason tells.
func TestHowLingeringEnds(t *testing.T) {
	const limit = time.Second
	for _, try := range []struct {
		how    string
		reason func(error) bool
	}{
		{"acknowledged", func(err error) bool { return err == net.ErrClosed }},
		{"FIN", func(err error) bool { return err == net.ErrClosed }},
		{"FIN before", func(err error) bool { return err == io.EOF }},
		{"timeout", func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }},
	} {
		b := newBench(t, couplet.Config{})
		b.unacked = true
		p := &notesHalf{}
		c := b.accept(p, couplet.LingerTimeout(limit))
		if try.how == "FIN before" {
			b.turn(b.ended(c, 0))
		}
		c.Close()
		b.turn()
		if try.how != "FIN before" {
			b.want("close write")
			b.now += limit - 1
			b.turn()
			if b.called("close graceful") {
				t.Fatalf("%s: it is closed already", try.how)
			}
		}
		switch try.how {
		case "acknowledged":
			b.unacked = false
			b.now++
			b.turn()
		case "FIN":
			b.turn(b.ended(c, 0))
		case "timeout":
			b.now++
			b.turn()
		}
		b.want("close graceful")
		b.turn(b.closed(c))
		if !try.reason(p.reason) || b.loop.Timers() != 0 {
			t.Errorf("%s: the reason is %v, %d timers are left", try.how, p.reason, b.loop.Timers())
		}
	}
}

// What came before a send failed is delivered, also where the peer's FIN is behind it
// and it waits for a turn.
func TestAFailedSendWaitsForWhatCame(t *testing.T) {
	b := newBench(t, couplet.Config{BytesPerTurn: 8})
	p := &notes{}
	c := b.accept(p)
	b.accept(&notes{})
	c.Write([]byte("lost"))
	b.turn()
	chunk := func() { b.loop.Received(c, []byte("12345"), fakeLent("12345")) }
	b.turn(chunk, chunk, chunk, chunk, chunk, chunk, b.ended(c, 0), b.sent(c, 0, syscall.EPIPE))
	for range 2 {
		b.turn()
	}
	b.want("close reset")
	b.turn(b.closed(c))
	if n := len(p.got); n != 1+6+1 || !errors.Is(p.reason, syscall.ECONNRESET) {
		t.Errorf("callbacks %q, the reason is %v", p.got, p.reason)
	}
}

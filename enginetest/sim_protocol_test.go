//go:build linux

package enginetest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"couplet"
	"couplet/internal/loop"
)

// noise is what everybody sends: slices of it, each from a place of its own.
var noise = func() []byte {
	p := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(p)
	return p
}()

// simPeer is a protocol that acts by chance, and what it has seen.
type simPeer struct {
	w      *world
	name   string
	rng    *rand.Rand
	server bool
	dial   *simDial
	loop   int

	half, buffered, drains bool
	nervous                int // how apt it is to end things badly, in a thousand

	t        couplet.Transport
	h        couplet.Handle
	id, pair int // of its socket, of its connection
	made     bool
	lost     int
	inside   bool
	reason   error
	touched  int // turns since its queue is over the mark

	sent     [][]byte // what was accepted, in order
	taken    int
	handed   int // written by the Handle and still under way
	read     int // bytes received
	at       int // piece of the other's sent ...
	off      int // ... and place in it
	paused   bool
	wpaused  bool
	low      int
	high     int
	halfShut bool // CloseWrite was called
	closed   bool // Close was called
	aborted  bool // Abort was called, in time
	panicked bool
	rclosed  bool
	wclosed  bool
	draining bool
	wouldEOF bool // Close was called after ReadClosed

	// What the trace tells.
	closing  bool
	wasCut   bool
	endTold  bool
	finTold  bool // without an error
	endErrno syscall.Errno
	sendErr  syscall.Errno
	lastMove time.Duration // of what it sends
	lastRead time.Duration
	closedAt time.Duration
	deaf     bool // the other end had no reason to read when it was closed
}

// other is the protocol at the other end, or nil if there is none yet.
func (p *simPeer) other() *simPeer {
	pair := p.w.pairs[p.pair]
	if p.server {
		return pair[0]
	}
	return pair[1]
}

// The callbacks.

func (p *simPeer) enter(t couplet.Transport, what string) func() {
	w := p.w
	w.logf("%s: %s", p.name, what)
	switch {
	case p.inside:
		w.fail("%s: %s inside another callback", p.name, what)
	case p.lost > 0:
		w.fail("%s: %s after ConnectionLost", p.name, what)
	case !p.made && what != "made":
		w.fail("%s: %s before ConnectionMade", p.name, what)
	case p.made && t != p.t:
		w.fail("%s: %s with another Transport", p.name, what)
	case p.closed && what != "lost":
		w.fail("%s: %s after Close", p.name, what)
	case p.aborted && what != "lost":
		w.fail("%s: %s after Abort", p.name, what)
	case p.panicked && what != "lost":
		w.fail("%s: %s after a panic", p.name, what)
	}
	p.inside = true
	return func() { p.inside = false }
}

func (p *simPeer) ConnectionMade(t couplet.Transport) {
	if p.made {
		p.w.fail("%s: ConnectionMade again", p.name)
	}
	defer p.enter(t, "made")()
	p.made, p.t, p.h = true, t, t.Handle()
	p.w.byConn[t] = p
	for k, l := range p.w.loops {
		if t.Loop() == couplet.Loop(l) {
			p.loop = k
		}
	}
	p.lastMove = p.turn()
	p.w.link(p)
	p.act("made")
}

func (p *simPeer) DataReceived(t couplet.Transport, data []byte) {
	defer p.enter(t, "data")()
	if p.buffered {
		p.w.fail("%s: DataReceived where BufferReceived is there", p.name)
	}
	p.data(data)
	p.maybe("data")
}

func (p *simPeer) data(data []byte) {
	w := p.w
	o := p.other()
	switch {
	case len(data) == 0:
		w.fail("%s: empty data", p.name)
	case p.paused:
		w.fail("%s: data while paused", p.name)
	case p.rclosed:
		w.fail("%s: data after ReadClosed", p.name)
	case o == nil:
		w.fail("%s: data, and nobody at the other end", p.name)
	}
	if w.broken != "" {
		return
	}
	for len(data) > 0 {
		if p.at == len(o.sent) {
			w.fail("%s: %d bytes more than were sent", p.name, len(data))
			return
		}
		want := o.sent[p.at][p.off:]
		k := min(len(want), len(data))
		if !bytes.Equal(want[:k], data[:k]) {
			w.fail("%s: byte %d or one of the %d after it is wrong", p.name, p.read, k)
			return
		}
		data = data[k:]
		p.read += k
		if p.off += k; p.off == len(o.sent[p.at]) {
			p.at, p.off = p.at+1, 0
		}
	}
}

func (p *simPeer) ConnectionLost(t couplet.Transport, reason error) {
	defer p.enter(t, "lost")()
	p.w.logf("%s: reason %v", p.name, reason)
	p.lost++
	p.reason = reason
	if n, err := t.Write([]byte("late")); n != 0 || !errors.Is(err, net.ErrClosed) {
		p.w.fail("%s: Write in ConnectionLost gives %d, %v", p.name, n, err)
	}
	if err := p.h.Post(func(couplet.Transport) { p.w.fail("%s: a function posted after the end runs", p.name) }); !errors.Is(err, net.ErrClosed) {
		p.w.fail("%s: Handle.Post in ConnectionLost gives %v", p.name, err)
	}
	t.Close()
	t.Abort()
	t.PauseReading()
	t.ResumeReading()
	if p.nervous > 0 && p.rng.IntN(20) == 0 {
		p.inside = false
		panic("in ConnectionLost")
	}
}

func (p *simPeer) WritePaused(t couplet.Transport) {
	defer p.enter(t, "writePaused")()
	if p.wpaused {
		p.w.fail("%s: WritePaused twice", p.name)
	}
	if t.Buffered() <= p.high {
		p.w.fail("%s: WritePaused with %d queued and a mark of %d", p.name, t.Buffered(), p.high)
	}
	p.wpaused = true
	p.maybe("writePaused")
}

func (p *simPeer) WriteResumed(t couplet.Transport) {
	defer p.enter(t, "writeResumed")()
	if !p.wpaused {
		p.w.fail("%s: WriteResumed without WritePaused", p.name)
	}
	if t.Buffered() > p.low {
		p.w.fail("%s: WriteResumed with %d queued and a mark of %d", p.name, t.Buffered(), p.low)
	}
	p.wpaused = false
	p.maybe("writeResumed")
}

func (p *simPeer) WriteClosed(t couplet.Transport) {
	defer p.enter(t, "writeClosed")()
	if p.wclosed || !p.halfShut || t.Buffered() > 0 || p.sendErr != 0 {
		p.w.fail("%s: WriteClosed out of place", p.name)
	}
	p.wclosed = true
	p.maybe("writeClosed")
}

type simHalf struct{ p *simPeer }

func (x simHalf) ReadClosed(t couplet.Transport) {
	p := x.p
	defer p.enter(t, "readClosed")()
	if p.rclosed || p.paused {
		p.w.fail("%s: ReadClosed again or while paused", p.name)
	}
	if !p.w.net.socket(t.(*loop.Conn).FD()).eof {
		p.w.fail("%s: ReadClosed, and no FIN has come", p.name)
	}
	p.rclosed = true
	if p.rng.IntN(3) > 0 { // most protocols end now
		p.finish()
		return
	}
	p.maybe("readClosed")
}

type simBuffered struct{ p *simPeer }

func (x simBuffered) BufferReceived(t couplet.Transport, b *couplet.Buffer) {
	p := x.p
	defer p.enter(t, "buffer")()
	p.data(b.Bytes())
	if p.rng.IntN(4) == 0 { // keep it for a while
		b.Retain()
		copied := bytes.Clone(b.Bytes())
		p.w.retained++
		id := p.w.retained
		letGo := func() {
			delete(p.w.retains, id)
			if !bytes.Equal(copied, b.Bytes()) {
				p.w.fail("%s: a Buffer that was retained has changed", p.name)
			}
			b.Release()
		}
		p.w.retains[id] = letGo
		t.Loop().AfterFunc(time.Duration(p.rng.IntN(1000))*time.Microsecond, letGo)
	}
	p.maybe("buffer")
}

type simDraining struct{ p *simPeer }

func (x simDraining) Draining(t couplet.Transport) {
	p := x.p
	defer p.enter(t, "draining")()
	if p.draining || !p.w.stopped {
		p.w.fail("%s: Draining out of place", p.name)
	}
	p.draining = true
	p.finish()
}

// protocol is p with the optional callbacks that it has.
func (p *simPeer) protocol() couplet.Protocol {
	h, b, d := simHalf{p}, simBuffered{p}, simDraining{p}
	type (
		half   = simHalf
		buf    = simBuffered
		drains = simDraining
	)
	switch [3]bool{p.half, p.buffered, p.drains} {
	case [3]bool{true, false, false}:
		return struct {
			*simPeer
			half
		}{p, h}
	case [3]bool{false, true, false}:
		return struct {
			*simPeer
			buf
		}{p, b}
	case [3]bool{true, true, false}:
		return struct {
			*simPeer
			half
			buf
		}{p, h, b}
	case [3]bool{false, false, true}:
		return struct {
			*simPeer
			drains
		}{p, d}
	case [3]bool{true, false, true}:
		return struct {
			*simPeer
			half
			drains
		}{p, h, d}
	case [3]bool{false, true, true}:
		return struct {
			*simPeer
			buf
			drains
		}{p, b, d}
	case [3]bool{true, true, true}:
		return struct {
			*simPeer
			half
			buf
			drains
		}{p, h, b, d}
	}
	return p
}

// What a protocol does.

// maybe acts in some of the callbacks.
func (p *simPeer) maybe(where string) {
	if p.rng.IntN(6) == 0 {
		p.act(where)
	}
}

// open reports whether the model says that the connection can be written to.
func (p *simPeer) open() bool {
	return p.made && p.lost == 0 && !p.closed && !p.aborted && !p.panicked && !p.halfShut
}

// refused checks that a write was refused for a reason.
func (p *simPeer) refused(err error, size int) {
	w := p.w
	switch {
	case errors.Is(err, couplet.ErrOutboundFull):
		if p.t.Buffered()+p.handed+size <= 100<<10 {
			w.fail("%s: the queue is full with %d and %d more", p.name, p.t.Buffered()+p.handed, size)
		}
	case !errors.Is(err, net.ErrClosed):
		w.fail("%s: a write says %v", p.name, err)
	case p.open() && !p.endTold && p.sendErr == 0 && !p.closing && !p.stopping():
		w.fail("%s: a write is refused for no reason", p.name)
	}
}

// stopping reports whether the engine's end has reached p.
func (p *simPeer) stopping() bool { return p.w.stopped && !p.drains || p.failing() }

// piece is something to send.
func (p *simPeer) piece(n int) []byte {
	at := p.rng.IntN(len(noise) - n)
	return noise[at : at+n]
}

// size is how much to write: seldom much, and less where it travels in crumbs.
func (p *simPeer) size() int {
	large := min(300<<10, p.w.crumb*40)
	if p.taken > 2*large {
		large = 0
	}
	switch p.rng.IntN(16) {
	case 0, 1:
		return p.rng.IntN(1 + large)
	case 2, 3, 4:
		return p.rng.IntN(1 + large/16)
	}
	return p.rng.IntN(100)
}

func (p *simPeer) accepted(b []byte) {
	if !p.open() {
		p.w.fail("%s: a write was accepted", p.name)
	}
	if len(b) > 0 {
		p.sent = append(p.sent, b)
		p.taken += len(b)
	}
}

func (p *simPeer) write() {
	want := p.piece(p.size())
	scratch := bytes.Clone(want)
	n, err := p.t.Write(scratch)
	spoil(scratch)
	if err != nil {
		p.refused(err, len(want))
		return
	}
	if n != len(want) {
		p.w.fail("%s: Write of %d gives %d", p.name, len(want), n)
	}
	p.accepted(want)
}

func (p *simPeer) writev() {
	var bufs, wants [][]byte
	total := 0
	for range p.rng.IntN(5) {
		want := p.piece(p.size() / 3)
		total += len(want)
		wants = append(wants, want)
		bufs = append(bufs, bytes.Clone(want))
	}
	n, err := p.t.Writev(bufs)
	for _, b := range bufs {
		spoil(b)
	}
	if err != nil {
		p.refused(err, total)
		return
	}
	if n != total {
		p.w.fail("%s: Writev of %d gives %d", p.name, total, n)
	}
	for _, want := range wants {
		p.accepted(want)
	}
}

// buffer makes a Buffer that spoils its bytes when it is released.
func (p *simPeer) buffer(want []byte) *couplet.Buffer {
	b := bytes.Clone(want)
	p.w.buffers++
	return couplet.NewBuffer(b, func() {
		spoil(b)
		p.w.buffers--
	})
}

func (p *simPeer) writeBuffer() {
	want := p.piece(p.size())
	b := p.buffer(want)
	defer b.Release()
	for range 1 + p.rng.IntN(2) {
		if err := p.t.WriteBuffer(b); err != nil {
			p.refused(err, len(want))
			return
		}
		p.accepted(want)
	}
}

// handleWrite writes as another goroutine would, and learns from the queue's
// length what became of it.
func (p *simPeer) handleWrite() {
	if p.w.small { // others could come in between
		return
	}
	want := p.piece(p.size())
	before := 0
	if p.h.Post(func(t couplet.Transport) { before = t.Buffered() }) != nil {
		return
	}
	var err error
	if p.rng.IntN(2) == 0 {
		_, err = p.h.Write(want)
	} else {
		b := p.buffer(want)
		err = p.h.WriteBuffer(b)
		b.Release()
	}
	if err != nil {
		p.refused(err, len(want))
		return
	}
	p.handed += len(want)
	p.h.Post(func(t couplet.Transport) {
		p.handed -= len(want)
		switch t.Buffered() - before {
		case 0:
		case len(want):
			p.accepted(want)
		default:
			p.w.fail("%s: Handle.Write of %d has queued %d", p.name, len(want), t.Buffered()-before)
		}
	})
}

func (p *simPeer) pause() {
	p.t.PauseReading()
	if p.lost == 0 {
		p.paused = true
	}
	if p.rng.IntN(12) > 0 {
		p.t.Loop().AfterFunc(time.Duration(p.rng.IntN(5000))*time.Microsecond, func() {
			if p.lost == 0 {
				p.resume()
			}
		})
	}
}

func (p *simPeer) resume() {
	p.paused = false // from the next turn on, but nothing may come inside this call
	p.inside = true
	p.t.ResumeReading()
	p.inside = false
}

func (p *simPeer) closeWrite() {
	if p.open() {
		p.halfShut = true
	}
	p.t.CloseWrite()
}

func (p *simPeer) close() {
	if !p.closed && !p.aborted && !p.panicked && p.lost == 0 {
		p.wouldEOF = p.rclosed
	}
	p.closed = true
	p.t.Close()
}

func (p *simPeer) abort() {
	if !p.closing {
		p.aborted = true
	}
	p.t.Abort()
}

// finish ends p's part in an orderly way.
func (p *simPeer) finish() {
	if p.rng.IntN(3) == 0 {
		p.write()
	}
	if p.half && p.rng.IntN(2) == 0 && !p.draining {
		p.closeWrite()
	} else {
		p.close()
	}
}

// act does something by chance. where is a callback, or "post" or "timer".
func (p *simPeer) act(where string) {
	r := p.rng
	if p.lost > 0 {
		return
	}
	callback := p.inside
	for range 1 + r.IntN(3) {
		x := r.IntN(100)
		p.w.logf("%s:   act %d in %s, %d written, %d queued", p.name, x, where, p.taken, p.t.Buffered())
		switch {
		case x < 25:
			p.write()
		case x < 35:
			p.writev()
		case x < 45:
			p.writeBuffer()
		case x < 50:
			if n, err := p.t.Write(nil); n != 0 || err != nil && p.open() && !p.endTold && p.sendErr == 0 && !p.closing && !p.stopping() {
				p.w.fail("%s: an empty write gives %d, %v", p.name, n, err)
			}
		case x < 58:
			p.pause()
		case x < 66:
			if !callback || where != "data" {
				inside := p.inside
				p.resume()
				p.inside = inside
			}
		case x < 74:
			at := p.w.now + time.Duration(r.IntN(3000))*time.Microsecond
			p.t.AfterFunc(at-p.w.now, func() {
				if p.w.now < at {
					p.w.fail("%s: a timer is early", p.name)
				}
				defer p.enter(p.t, "timer")()
				p.act("timer")
			})
		case x < 79: // SetWatermarks
			p.low, p.high = r.IntN(100<<10), r.IntN(200<<10)
			p.t.SetWatermarks(p.low, p.high)
			p.low = min(p.low, p.high)
			p.touched = 0
		case x < 85:
			p.handleWrite()
		case x < 88:
			if p.t.Loop().Post(func() { p.w.promised--; p.act("post") }) {
				p.w.promised++
			}
		case x < 90 && r.IntN(8) == 0:
			p.closeWrite()
		case x < 92 && r.IntN(8) == 0:
			p.close()
		case x < 93 && r.IntN(1000) < p.nervous:
			p.h.Post(func(couplet.Transport) { p.abort() })
		case x < 96 && r.IntN(1000) < p.nervous:
			p.abort()
		case r.IntN(1000) < p.nervous && callback:
			if r.IntN(4) == 0 {
				p.abort()
			}
			p.panicked = true
			p.inside = false
			panic("by chance")
		}
	}
}

// turn is when the present turn of p's loop began, which is what a loop goes by.
func (p *simPeer) turn() time.Duration { return p.t.Loop().Now().Sub(p.w.base[p.loop]) }

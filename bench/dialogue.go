package bench

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"

	"couplet"
)

// A request of a Custom begins with a header of 12 bytes, three numbers of 32 bits,
// little-endian: the bytes of the request with its header, the bytes of the answer
// that it asks for, and a place in the pattern. The rest of the request is the
// pattern from there on, and so is the answer, which has no header. bench/peers
// has the same.

// putHeader writes the header of a request whose place in the pattern is off.
func putHeader(p []byte, request, response, off int64) {
	binary.LittleEndian.PutUint32(p, uint32(request))
	binary.LittleEndian.PutUint32(p[4:], uint32(response))
	binary.LittleEndian.PutUint32(p[8:], uint32(off%patternPeriod))
}

// readHeader takes a header apart; ok is false where no generator wrote it.
func readHeader(p []byte) (request, response, off int64, ok bool) {
	request = int64(binary.LittleEndian.Uint32(p))
	response = int64(binary.LittleEndian.Uint32(p[4:]))
	off = int64(binary.LittleEndian.Uint32(p[8:]))
	ok = request >= requestBytes.least && request <= requestBytes.most &&
		response >= responseBytes.least && response <= responseBytes.most && off < patternPeriod
	return request, response, off, ok
}

// An answerer is the server of a Custom. It compares each request with the
// pattern, and resets a connection on which a byte is wrong. What it owes it holds
// as numbers, writes a few pieces of it at a time, and reads nothing more until it
// owes nothing.
type answerer struct {
	t      couplet.Transport
	header [header]byte
	have   int   // bytes of header
	left   int64 // bytes of the request after them
	off    int64 // of the next of those
	asked  debt  // by this request
	owed   []debt
	one    [1]debt // where owed begins: most clients ask one thing at a time
	first  int     // of owed
	paused bool
	held   bool // reading is paused
	next   couplet.Timer
}

// A debt is bytes of the pattern that a client is to get.
type debt struct{ off, left int64 }

var _ couplet.WriteFlow = (*answerer)(nil)

func newAnswerer(net.Addr) couplet.Protocol { return new(answerer) }

func (a *answerer) ConnectionMade(t couplet.Transport) {
	a.t, a.owed = t, a.one[:0]
	t.SetWatermarks(piece, 2*piece)
}

func (a *answerer) ConnectionLost(couplet.Transport, error) { a.owed, a.first = nil, 0 }

func (a *answerer) DataReceived(t couplet.Transport, data []byte) {
	for len(data) > 0 {
		if a.have < header {
			n := copy(a.header[a.have:], data)
			a.have, data = a.have+n, data[n:]
			if a.have < header {
				break
			}
			request, response, off, ok := readHeader(a.header[:])
			if !ok {
				t.Abort()
				return
			}
			a.left, a.off, a.asked = request-header, off, debt{off, response}
		}
		n := min(len(data), int(a.left), span)
		if !bytes.Equal(data[:n], at(a.off, n)) {
			t.Abort()
			return
		}
		a.off, a.left, data = a.off+int64(n), a.left-int64(n), data[n:]
		if a.left == 0 {
			a.have = 0
			a.owed = append(a.owed, a.asked)
		}
	}
	a.more()
}

// more writes what is owed as long as the queue is short, and comes again in the
// next turn if by then the kernel has taken enough of it.
func (a *answerer) more() {
	for !a.paused && a.first < len(a.owed) && a.t.Buffered() < 4*piece {
		d := &a.owed[a.first]
		p := at(d.off, int(min(d.left, span)))
		if writePattern(a.t, p) != nil {
			a.t.Abort()
			return
		}
		d.off, d.left = d.off+int64(len(p)), d.left-int64(len(p))
		if d.left == 0 {
			a.first++
		}
	}
	if a.first == len(a.owed) {
		a.owed, a.first = a.owed[:0], 0
	}
	owes := len(a.owed) > 0
	switch hold := owes || a.paused; {
	case hold && !a.held:
		a.t.PauseReading()
	case !hold && a.held:
		a.t.ResumeReading()
	}
	a.held = owes || a.paused
	switch {
	case !owes || a.paused:
	case a.next == nil:
		a.next = a.t.AfterFunc(0, a.more)
	default:
		a.next.Reset(0)
	}
}

func (a *answerer) WritePaused(couplet.Transport) {
	a.paused = true
	a.more()
}

func (a *answerer) WriteResumed(couplet.Transport) {
	a.paused = false
	a.more()
}

// A sheet is a Buffer of the pattern that comes back when it was sent.
type sheet struct {
	couplet.Buffer
	back func()
}

var sheets sync.Pool

// writePattern writes a part of the pattern. Much of it is not copied: the pattern
// outlives every connection. Little is copied, which costs less.
func writePattern(t couplet.Transport, p []byte) error {
	if len(p) < 2<<10 {
		_, err := t.Write(p)
		return err
	}
	s, _ := sheets.Get().(*sheet)
	if s == nil {
		s = new(sheet)
		s.back = func() { sheets.Put(s) }
	}
	s.Reset(p, s.back)
	err := t.WriteBuffer(&s.Buffer)
	s.Release()
	return err
}

package poetry

import (
	"errors"
	"net"
	"sync/atomic"

	"couplet"
)

// sharedChunk is the size from which a chunk is sent as a shared Buffer; below
// it a copy into the outbound queue costs less than a segment of its own.
const sharedChunk = 4096

var _ couplet.Factory = (*Server)(nil)

// A Server sends one poem to everybody who connects: slowly, by its [Pace], or
// all at once. It is the Factory of any number of listeners and connections, on
// any number of loops; all share one copy of the poem, and no send allocates.
//
// What a client sends is read and ignored, so the end is a clean FIN whatever it
// sent. A client that takes nothing pauses its own poem and no other. When the
// engine stops, a poem that has begun is recited to its end; what the deadline
// of Shutdown cuts is reset, and so is what a death of the process cuts. Only who was accepted
// and not told of yet, since their loop was held up, then sees a poem of no bytes: the option
// for it is set by ConnectionMade.
//
// Set the hooks before the Server is given to Listen.
type Server struct {
	// OnStart, if not nil, is called on a connection's loop when its poem
	// begins.
	OnStart func(client net.Addr)
	// OnEnd, if not nil, is called on the connection's loop when it is gone.
	// sent is what was written, of which, of a poem that was cut, not all need have left.
	// err is nil if the whole poem and the FIN were taken, by our kernel, and not cut
	// there by the end of Shutdown's patience.
	OnEnd func(client net.Addr, sent int, err error)

	text    []byte
	pace    Pace
	whole   *couplet.Buffer
	chunks  []*couplet.Buffer // of a slow poem in large pieces
	served  atomic.Int64
	cut     atomic.Int64
	started atomic.Int64
}

// NewServer makes a Server of text, which must not be changed afterwards. The
// error says what is wrong with the pace.
func NewServer(text []byte, pace Pace) (*Server, error) {
	if err := pace.check(); err != nil {
		return nil, err
	}
	s := &Server{text: text, pace: pace, whole: couplet.NewBuffer(text, nil)}
	if pace.Delay > 0 && pace.NumBytes >= sharedChunk {
		for rest := text; len(rest) > 0; {
			n := min(pace.NumBytes, len(rest))
			s.chunks = append(s.chunks, couplet.NewBuffer(rest[:n], nil))
			rest = rest[n:]
		}
	}
	return s, nil
}

// NewFastServer makes a Server that sends all of text at once.
func NewFastServer(text []byte) *Server {
	s, _ := NewServer(text, AllAtOnce)
	return s
}

// Len is the poem's size in bytes.
func (s *Server) Len() int { return len(s.text) }

// Pace is how fast the Server recites.
func (s *Server) Pace() Pace { return s.pace }

// Served tells how many poems began, how many were taken whole, and how many
// ended early. It may be called from any goroutine.
func (s *Server) Served() (began, whole, cut int64) {
	return s.started.Load(), s.served.Load(), s.cut.Load()
}

// Build implements couplet.Factory.
func (s *Server) Build(net.Addr) couplet.Protocol { return &recital{server: s} }

// A recital is one connection of a Server.
type recital struct {
	server *Server
	timer  couplet.Timer
	t      couplet.Transport
	at     int // bytes written
	over   bool
	whole  bool
}

var (
	_ couplet.ReadClosedHandler  = (*recital)(nil)
	_ couplet.WriteClosedHandler = (*recital)(nil)
	_ couplet.WriteFlow          = (*recital)(nil)
	_ couplet.DrainHandler       = (*recital)(nil)
)

// ConnectionMade begins the poem: the first bytes go out at once.
func (r *recital) ConnectionMade(t couplet.Transport) {
	r.t = t
	r.server.started.Add(1)
	resetOnDeath(t, true) // before the first code that is not ours
	if f := r.server.OnStart; f != nil {
		f(t.RemoteAddr())
	}
	if r.server.pace.Delay <= 0 {
		if t.WriteBuffer(r.server.whole) == nil {
			r.at = len(r.server.text)
		}
		r.finish()
		return
	}
	if !r.send(1) {
		r.finish()
		return
	}
	r.timer = t.Loop().Every(r.server.pace.Delay, r.tick)
}

// tick sends the next bytes, or ends a poem that has been sent. What a loop that
// was held up has missed is sent too, in one piece: the poem keeps its schedule, and
// to catch up costs no more than to be on time.
func (r *recital) tick() {
	if !r.over && !r.send(1+r.timer.Missed()) {
		r.finish()
	}
}

// send writes the next pieces; it reports false where there are none. What a
// full queue refuses is tried again with the next tick.
func (r *recital) send(pieces int) bool {
	s := r.server
	rest, size := len(s.text)-r.at, s.pace.NumBytes
	if rest == 0 {
		return false
	}
	if s.chunks == nil {
		n := rest
		if pieces <= rest/size {
			n = pieces * size
		}
		if _, err := r.t.Write(s.text[r.at : r.at+n]); err == nil {
			r.at += n
		}
		return true
	}
	for ; pieces > 0 && r.at < len(s.text); pieces-- {
		b := s.chunks[r.at/size]
		if r.t.WriteBuffer(b) != nil {
			break
		}
		r.at += b.Len()
	}
	return true
}

// finish closes our half; WriteClosed goes on when that has happened.
func (r *recital) finish() {
	r.stop()
	if r.at < len(r.server.text) || r.t.CloseWrite() != nil {
		r.t.Abort()
	}
}

func (r *recital) stop() {
	r.over = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

// WriteClosed comes when the poem and its FIN are with the kernel, which from
// now on delivers them even if this process dies.
func (r *recital) WriteClosed(t couplet.Transport) {
	r.whole = true
	resetOnDeath(t, false)
	t.Close()
}

// WritePaused halts the poem of a client that takes nothing.
func (r *recital) WritePaused(couplet.Transport) {
	if r.timer != nil {
		r.timer.Stop()
	}
}

// WriteResumed goes on with it, a delay after the client took all of it.
func (r *recital) WriteResumed(couplet.Transport) {
	if r.timer != nil && !r.over {
		r.timer.Reset(r.server.pace.Delay)
	}
}

// DataReceived ignores what a client says.
func (r *recital) DataReceived(couplet.Transport, []byte) {}

// ReadClosed goes on reciting: a client may close its half at once and still
// want the poem.
func (r *recital) ReadClosed(couplet.Transport) {}

// Draining goes on reciting, to the end or to the deadline of Shutdown.
func (r *recital) Draining(couplet.Transport) {}

// ConnectionLost ends the recital.
func (r *recital) ConnectionLost(t couplet.Transport, reason error) {
	r.stop()
	s := r.server
	if failed := (*couplet.EngineError)(nil); r.whole && !errors.Is(reason, couplet.ErrShutdown) && !errors.As(reason, &failed) {
		s.served.Add(1)
		reason = nil
	} else {
		s.cut.Add(1)
	}
	if s.OnEnd != nil {
		s.OnEnd(t.RemoteAddr(), r.at, reason)
	}
}

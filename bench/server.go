package bench

import (
	"net"
	"sync"
	"time"

	"couplet"
	"couplet/poetry"
)

// poemBytes is how long the poem of w is: a minute or so of the largest chunks, and hours
// of the usual ones. All connections share its memory.
func (w Workload) poemBytes() int { return max(1<<20, 512*w.Size) }

// poemLasts is how long it takes to recite it.
func (w Workload) poemLasts() time.Duration { return time.Duration(w.poemBytes()/w.Size) * w.Delay }

// Serve makes e serve w on a free port of 127.0.0.1. w must come from
// WithDefaults.
func Serve(e couplet.Engine, w Workload) (couplet.Listener, error) {
	return ServeAt(e, w, "127.0.0.1:0")
}

// ServeAt is Serve on an address of one's own, as Engine.Listen takes it.
func ServeAt(e couplet.Engine, w Workload, address string) (couplet.Listener, error) {
	var f couplet.Factory = poetry.Echo{}
	switch w.Kind {
	case Poems:
		text := make([]byte, w.poemBytes())
		for i := 0; i < len(text); {
			i += copy(text[i:], at(int64(i), span))
		}
		s, err := poetry.NewServer(text, poetry.Pace{NumBytes: w.Size, Delay: w.Delay})
		if err != nil {
			return nil, err
		}
		f = s
	case Stream:
		share := w.Total / int64(w.Connections)
		f = couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &streamer{left: share} })
	case Custom:
		f = couplet.FactoryFunc(newAnswerer)
	case Broadcast:
		r := &room{size: w.Size, members: map[couplet.Transport]bool{}}
		f = couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &member{room: r} })
	}
	return e.Listen("tcp", address, f)
}

// piece is what a streamer writes at a time: whole periods, so that every piece
// begins alike.
const piece = span / patternPeriod * patternPeriod

// A streamer writes left bytes, holding at most a few pieces in the queue.
type streamer struct {
	left   int64
	paused bool
	t      couplet.Transport
	next   couplet.Timer
}

var _ couplet.WriteFlow = (*streamer)(nil)

// whole is a piece for everybody to write.
var whole = sync.OnceValue(func() *couplet.Buffer { return couplet.NewBuffer(at(0, piece), nil) })

func (s *streamer) ConnectionMade(t couplet.Transport) {
	s.t = t
	t.SetWatermarks(piece, 2*piece)
	s.next = t.AfterFunc(0, s.more)
}

// more fills the queue, and comes again in the next turn if by then the kernel
// has taken enough of it.
func (s *streamer) more() {
	if s.paused {
		return
	}
	for s.left > 0 && s.t.Buffered() < 4*piece {
		var err error
		if s.left >= piece {
			err = s.t.WriteBuffer(whole())
			s.left -= piece
		} else {
			_, err = s.t.Write(at(0, int(s.left)))
			s.left = 0
		}
		if err != nil {
			return
		}
	}
	if s.left == 0 {
		s.t.Close()
		return
	}
	s.next.Reset(0)
}

func (s *streamer) WritePaused(couplet.Transport) { s.paused = true }

func (s *streamer) WriteResumed(couplet.Transport) {
	s.paused = false
	s.more()
}

func (s *streamer) DataReceived(couplet.Transport, []byte)           {}
func (s *streamer) ConnectionLost(_ couplet.Transport, reason error) { s.left = 0 }

// A room is the members of a broadcast. All live on one loop.
type room struct {
	size    int
	members map[couplet.Transport]bool
}

type member struct {
	room *room
	part []byte
}

func (m *member) ConnectionMade(t couplet.Transport)          { m.room.members[t] = true }
func (m *member) ConnectionLost(t couplet.Transport, _ error) { delete(m.room.members, t) }

func (m *member) DataReceived(_ couplet.Transport, data []byte) {
	m.part = append(m.part, data...)
	for len(m.part) >= m.room.size {
		b := couplet.NewBuffer(m.part[:m.room.size:m.room.size], nil)
		for t := range m.room.members {
			if t.WriteBuffer(b) != nil {
				t.Abort()
			}
		}
		b.Release()
		m.part = append([]byte(nil), m.part[m.room.size:]...)
	}
}

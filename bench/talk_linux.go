package bench

import (
	"math"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"couplet/internal/timers"
)

// A talk is one connection of a Custom, and those that take its place. It has
// sources of chance of its own, one for each purpose, so that what it draws does
// not depend on who answers how fast.
type talk struct {
	sizes, thinks, lives *rand.Rand

	asked   []message       // on this connection, in the order of sending and of answers
	first   int             // the oldest that is not answered
	unsent  int             // the first that is not all written ...
	wrote   int64           // ... and how much of it is
	due     int64           // bytes that answer all that was asked
	owed    int64           // bytes that answer what is written
	left    int64           // requests that the connection still lives for
	waiting []time.Duration // when messages were to be sent that wait for the next connection

	idle []*timers.Timer // of those that think, when they do not
	end  timers.Timer    // of a connection that lives for a time
}

// A message is a request in flight.
type message struct {
	at                time.Duration // when it was to be sent
	request, response int64
	end               int64 // bytes received on the connection when it is answered
}

// launchTalks begins all talks anew, each somewhere in the middle of its think time
// and of its connection's life, as they are in a load that has lasted.
func (g *generator) launchTalks() {
	phase := uint64(0)
	if g.counting {
		phase = 1
	}
	source := rand.New(rand.NewPCG(g.w.Seed, phase))
	draw := func() *rand.Rand { return rand.New(rand.NewPCG(source.Uint64(), source.Uint64())) }
	g.timers = timers.Queue{}
	now := g.now()
	for i := range g.conns {
		c := &g.conns[i]
		t := &talk{sizes: draw(), thinks: draw(), lives: draw(), due: c.received, owed: c.received}
		c.talk = t
		t.end.F = func() { g.expire(i) }
		g.live(t, now, t.lives.Float64())
		if g.w.Rate > 0 || c.fd == 0 {
			continue
		}
		for range g.w.Depth {
			if g.w.Spec.Think.IsZero() {
				g.want(t, now)
				continue
			}
			w := new(timers.Timer)
			w.F = func() {
				t.idle = append(t.idle, w)
				if g.conns[i].fd != 0 {
					g.want(t, w.At())
					g.send(i)
				}
			}
			g.timers.Add(w, now+time.Duration(t.thinks.Float64()*float64(g.think(t))))
		}
		g.send(i)
	}
}

// live gives a connection its life, or what is left of it.
func (g *generator) live(t *talk, now time.Duration, share float64) {
	t.left = math.MaxInt64
	switch s := g.w.Spec; {
	case !s.Requests.IsZero():
		t.left = max(1, int64(math.Ceil(share*float64(s.Requests.draw(t.lives, &lifeRequests)))))
	case !s.Life.IsZero():
		g.timers.Add(&t.end, now+time.Duration(share*float64(s.Life.draw(t.lives, &lifeTime))))
	}
}

func (g *generator) think(t *talk) time.Duration {
	return time.Duration(g.w.Spec.Think.draw(t.thinks, &thinkTime))
}

// fire lets those go on who have thought enough, and ends connections whose time is
// over. It reports whether there were any.
func (g *generator) fire(now time.Duration) bool {
	before := g.timers.Seq()
	fired := false
	for w := g.timers.PopDue(now, before); w != nil; w = g.timers.PopDue(now, before) {
		w.F()
		fired = true
	}
	return fired
}

// want has a message sent on t that was to be sent at the time at: now, or on the
// next connection where this one has lived.
func (g *generator) want(t *talk, at time.Duration) {
	g.inFlight++
	if t.left == 0 {
		t.waiting = append(t.waiting, at)
		return
	}
	g.ask(t, at)
}

func (g *generator) ask(t *talk, at time.Duration) {
	s := g.w.Spec
	m := message{at: at, request: s.Request.draw(t.sizes, &requestBytes)}
	m.response = s.response(m.request, s.Response.draw(t.sizes, &responseBytes))
	t.left--
	t.due += m.response
	m.end = t.due
	t.asked = append(t.asked, m)
}

// expire ends connection i, whose time is over, at once or with its last answer.
func (g *generator) expire(i int) {
	t := g.conns[i].talk
	t.left = 0
	if g.conns[i].fd != 0 && t.first == len(t.asked) {
		g.renew(i)
	}
}

// renew puts a new connection in the place of i, on which nothing is in flight, and
// so nothing is lost where it ends by a reset.
func (g *generator) renew(i int) {
	g.close(i, !manySources(g.server))
	if err := g.connect(i); err != nil {
		g.Errors[err.Error()]++
		return
	}
	t := g.conns[i].talk
	t.asked, t.first, t.unsent, t.due, t.owed = t.asked[:0], 0, 0, 0, 0
	g.live(t, g.now(), 1)
	n := 0
	for ; n < len(t.waiting) && t.left > 0; n++ {
		g.ask(t, t.waiting[n])
	}
	t.waiting = append(t.waiting[:0], t.waiting[n:]...)
}

func (g *generator) gotTalk(i int, c *client, n int) {
	t := c.talk
	if t == nil {
		g.Errors["bytes unasked"] += int64(n) // before the first request
		return
	}
	c.received += int64(n)
	if c.received > t.owed {
		g.Errors["bytes unasked"] += c.received - t.owed
		g.close(i, true)
		return
	}
	now := g.now()
	answered := 0
	for t.first < t.unsent && c.received >= t.asked[t.first].end {
		m := &t.asked[t.first]
		g.count(now - m.at)
		if g.counting {
			g.Bytes += m.request + m.response
		}
		t.first++
		answered++
	}
	if answered == 0 {
		return
	}
	g.inFlight -= answered
	t.tidy()
	if t.left == 0 && len(t.asked) == 0 {
		g.renew(i)
	}
	if c.fd == 0 {
		return
	}
	for range answered {
		switch {
		case g.draining || g.w.Rate > 0:
		case g.w.Spec.Think.IsZero():
			g.want(t, now)
		default:
			last := len(t.idle) - 1
			w := t.idle[last]
			t.idle = t.idle[:last]
			g.timers.Add(w, now+g.think(t))
		}
	}
	g.send(i)
}

// tidy forgets what is answered, all at once or when it is the greater part.
func (t *talk) tidy() {
	if t.first < len(t.asked) && (t.first < 64 || 2*t.first < len(t.asked)) {
		return
	}
	t.asked = append(t.asked[:0], t.asked[t.first:]...)
	t.first, t.unsent = 0, t.unsent-t.first
}

// sendTalk writes what was asked on connection i, as much as the socket takes.
func (g *generator) sendTalk(i int) {
	c := &g.conns[i]
	t := c.talk
	for t.unsent < len(t.asked) {
		n, err := write(c.fd, t.fill(c.base, g.out[:0]))
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			g.Errors[err.Error()]++
			g.close(i, true)
			return
		}
		t.written(int64(n))
		g.moved += int64(n)
	}
	g.watch(i, t.unsent < len(t.asked))
}

// fill appends the next bytes of what is to be written, up to the capacity of p.
// The place of a request in the pattern is that of its answer, and answers follow
// one another in it.
func (t *talk) fill(base int64, p []byte) []byte {
	done := t.wrote
	for k := t.unsent; k < len(t.asked) && len(p) < cap(p); k++ {
		m := &t.asked[k]
		off := base + m.end - m.response
		var h [header]byte
		if done < header {
			putHeader(h[:], m.request, m.response, off)
			part := h[done:min(header, done+int64(cap(p)-len(p)))]
			p = append(p, part...)
			if done += int64(len(part)); done < header {
				break // p is full
			}
		}
		p = append(p, at(off+done-header, min(int(m.request-done), cap(p)-len(p)))...)
		done = 0
	}
	return p
}

// written takes n bytes off what is to be written.
func (t *talk) written(n int64) {
	for n > 0 {
		m := &t.asked[t.unsent]
		step := min(n, m.request-t.wrote)
		n, t.wrote = n-step, t.wrote+step
		if t.wrote == m.request {
			t.wrote, t.owed = 0, m.end
			t.unsent++
		}
	}
}

package enginetest

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"couplet"
)

var (
	modelSeed = flag.Uint64("enginetest.seed", 0, "the first `seed` of the model test; 0 draws one")
	modelRuns = flag.Int("enginetest.iterations", 0, "how many `scripts` the model test runs; 0 is as many as fit into its time")
)

// modelTime is how long each half of the model test of one network goes on by default.
func modelTime() time.Duration {
	if testing.Short() {
		return 150 * time.Millisecond
	}
	return 600 * time.Millisecond
}

// An opKind is something that a script does to one end of its connection.
type opKind int

const (
	opWrite      opKind = iota // arg bytes by Write
	opWritev                   // arg bytes by Writev, in three parts
	opBuffer                   // arg bytes by WriteBuffer
	opHandle                   // arg bytes by Handle.Write, from another goroutine
	opTimer                    // arg%1000 bytes in a millisecond
	opPause                    // PauseReading
	opResume                   // ResumeReading
	opTurn                     // a few turns pass
	opCloseWrite               // CloseWrite
	opClose                    // Close
	opAbort                    // Abort
)

var opNames = [...]string{
	"Write", "Writev", "WriteBuffer", "Handle.Write", "AfterFunc+Write", "PauseReading", "ResumeReading",
	"turn", "CloseWrite", "Close", "Abort",
}

// An op is one step of a script.
type op struct {
	end  int // 0 the server's, 1 the client's
	kind opKind
	arg  int
}

func (o op) String() string {
	return fmt.Sprintf("%s.%s(%d)", [2]string{"server", "client"}[o.end], opNames[o.kind], o.arg)
}

// script draws the steps of a seed. Ends are rare, so that much happens before.
func script(seed uint64) []op {
	r := rand.New(rand.NewPCG(seed, seed))
	gentle := r.IntN(2) == 0 // neither Close nor Abort: everything must arrive
	ops := make([]op, 1+r.IntN(30))
	for i := range ops {
		o := op{end: r.IntN(2)}
		switch n := r.IntN(100); {
		case n < 50:
			o.kind = opKind(r.IntN(int(opTimer) + 1))
			o.arg = 1 + r.IntN(1<<r.IntN(18))
			if n < 3 {
				o.arg = 1 << 20 // more than a socket takes at once
			}
		case n < 62:
			o.kind = opPause
		case n < 76:
			o.kind = opResume
		case n < 90:
			o.kind = opTurn
			o.arg = 1 + r.IntN(4)
		case n < 94 || gentle:
			o.kind = opCloseWrite
		case n < 98:
			o.kind = opClose
		default:
			o.kind = opAbort
		}
		ops[i] = o
	}
	return ops
}

// Model runs random scripts on connections of s, server to client, and compares
// what comes out with the plain model of two byte streams: what Write took
// arrives in order, all of it where the reason is clean, and nothing else. First one
// script after the other: one that fails is made shorter before it is printed, with its
// seed, which the flag -enginetest.seed takes. Then in crowds, each on engines that are
// given little of everything.
func Model(t *testing.T, s Suite) {
	for _, network := range s.Networks {
		t.Run(network, func(t *testing.T) {
			seed := *modelSeed
			if seed == 0 {
				seed = rand.Uint64() >> 16
			}
			warmUp(t)
			before := takeSnapshot()
			e := newEnv(t, &s, network, couplet.Config{})
			e.cancel() // each script has its own deadline
			scripts := repeat(seed, func(seed uint64) bool {
				ops := script(seed)
				faults := runScript(e, ops)
				if len(faults) > 0 {
					ops, faults = shrink(e, ops, faults)
					t.Errorf("seed %d:\n  %s\n%s", seed, joinOps(ops), strings.Join(faults, "\n"))
				}
				return len(faults) == 0
			})
			e.close()
			crowds := 0
			if t.Failed() {
				e.explain()
			} else {
				crowds = repeat(seed, func(seed uint64) bool { return crowd(t, &s, network, seed) })
			}
			t.Logf("%d scripts and %d crowds from seed %d", scripts, crowds, seed)
			before.check(t)
		})
	}
}

// repeat calls f with one seed after the other, for as long as it says so and the time
// of the model test lasts, and tells how often.
func repeat(seed uint64, f func(seed uint64) bool) (n int) {
	end := time.Now().Add(modelTime())
	for *modelRuns > 0 && n < *modelRuns || *modelRuns == 0 && time.Now().Before(end) {
		n++
		if !f(seed + uint64(n) - 1) {
			break
		}
	}
	return n
}

// A crowd is so many scripts at a time, and each connection after so many others.
const (
	crowdWidth  = 16
	crowdLength = 4
)

// crowd runs scripts beside each other on fresh engines. It reports whether all was well.
func crowd(t *testing.T, s *Suite, network string, seed uint64) bool {
	cfg := tight(seed)
	e := newEnv(t, s, network, cfg)
	e.cancel()
	defer e.close()
	var all sync.WaitGroup
	var mu sync.Mutex
	var faults []string
	for i := range uint64(crowdWidth) {
		all.Go(func() {
			for j := range uint64(crowdLength) {
				ops := script((seed*crowdWidth+i)*crowdLength + j)
				if found := runScript(e, ops); len(found) > 0 {
					mu.Lock()
					faults = append(faults, fmt.Sprintf("  %s\n%s", joinOps(ops), strings.Join(found, "\n")))
					mu.Unlock()
					return
				}
			}
		})
	}
	all.Wait()
	if len(faults) > 0 {
		t.Errorf("a crowd, seed %d, %+v:\n%s", seed, cfg, strings.Join(faults, "\n"))
		e.explain()
	}
	return len(faults) == 0
}

// tight is a Config by which everything runs out soon.
func tight(seed uint64) couplet.Config {
	r := rand.New(rand.NewPCG(seed, 1))
	return couplet.Config{
		Loops:             1 + r.IntN(2),
		RingEntries:       4 << r.IntN(4),
		CompletionEntries: 32 << r.IntN(4),
		RingBuffers:       1 << r.IntN(5),
		RingBufferSize:    2 << (10 + r.IntN(7)),
		BytesPerTurn:      1 << (11 + r.IntN(10)),
		PostsPerTurn:      1 + r.IntN(32),
	}
}

func joinOps(ops []op) string {
	words := make([]string, len(ops))
	for i, o := range ops {
		words[i] = o.String()
	}
	return strings.Join(words, "\n  ")
}

// shrink drops steps of a script that fails for as long as it fails without
// them. A fault that comes and goes gets three tries.
func shrink(e *Env, ops []op, faults []string) ([]op, []string) {
	end := time.Now().Add(20 * time.Second)
	for size := len(ops) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(ops) && time.Now().Before(end); {
			shorter := slices.Concat(ops[:at], ops[at+size:])
			var found []string
			for try := 0; try < 3 && found == nil; try++ {
				found = runScript(e, shorter)
			}
			if found == nil {
				at += size
				continue
			}
			ops, faults = shorter, found
		}
	}
	return ops, faults
}

// An end is one side of a script's connection, and the model of it.
type end struct {
	run  *run
	name string
	peer *end

	mu       sync.Mutex
	changed  chan struct{}
	t        couplet.Transport
	handle   couplet.Handle
	loop     couplet.Loop
	lost     bool
	reason   error
	paused   bool  // as the model has it
	sent     int64 // bytes that writes took: what the peer may receive
	received int64
	halved   bool // CloseWrite was called
	closed   bool // Close was called
	aborted  bool
	ending   atomic.Bool // either was; the other end asks
	timers   int         // that may still write
	flow     bool        // WritePaused was the last of its kind
}

// run is one run of one script.
type run struct {
	mu     sync.Mutex
	faults []string
}

func (r *run) fault(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, "  "+fmt.Sprintf(format, args...))
}

func (x *end) update(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f()
	close(x.changed)
	x.changed = make(chan struct{})
}

// await waits until cond, called with x.mu held, is true.
func (x *end) await(deadline <-chan time.Time, cond func() bool) bool {
	for {
		x.mu.Lock()
		ok, changed := cond(), x.changed
		x.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-deadline:
			return false
		}
	}
}

// The end is a protocol of its own, with every optional callback about flow.

func (x *end) ConnectionMade(t couplet.Transport) {
	x.update(func() { x.t, x.handle, x.loop = t, t.Handle(), t.Loop() })
}

func (x *end) DataReceived(_ couplet.Transport, p []byte) {
	x.update(func() {
		switch {
		case x.paused:
			x.run.fault("%s: data while paused", x.name)
		case x.closed || x.aborted || x.lost:
			x.run.fault("%s: data after the end", x.name)
		}
		if bad := checkPattern(x.received, p); bad >= 0 {
			x.run.fault("%s: byte %d received is wrong", x.name, x.received+int64(bad))
		}
		x.received += int64(len(p))
	})
}

func (x *end) ReadClosed(couplet.Transport) {
	x.update(func() {
		if x.paused {
			x.run.fault("%s: ReadClosed while paused", x.name)
		}
	})
}

func (x *end) WriteClosed(couplet.Transport) {
	if !x.halved || x.closed {
		x.run.fault("%s: WriteClosed, CloseWrite called: %v, Close called: %v", x.name, x.halved, x.closed)
	}
}

func (x *end) WritePaused(couplet.Transport)  { x.turn(true) }
func (x *end) WriteResumed(couplet.Transport) { x.turn(false) }

func (x *end) turn(paused bool) {
	if x.flow == paused {
		x.run.fault("%s: WritePaused and WriteResumed out of turn", x.name)
	}
	x.flow = paused
}

func (x *end) ConnectionLost(_ couplet.Transport, reason error) {
	x.update(func() {
		if x.lost {
			x.run.fault("%s: ConnectionLost again", x.name)
		}
		x.lost, x.reason = true, reason
	})
}

// wrote compares a write with the model and adds what it took to the stream.
func (x *end) wrote(what string, want int, got int, err error) {
	x.update(func() {
		if x.halved || x.closed || x.aborted || x.lost {
			if got != 0 || !errors.Is(err, net.ErrClosed) {
				x.run.fault("%s: %s after the end answers %d, %v", x.name, what, got, err)
			}
			return
		}
		if got == 0 && errors.Is(err, net.ErrClosed) && x.peer.ending.Load() {
			return // the end of the peer has been met, and ConnectionLost is on its way
		}
		if got != want || err != nil {
			x.run.fault("%s: %s of %d bytes answers %d, %v", x.name, what, want, got, err)
			return
		}
		x.sent += int64(got)
	})
}

// on runs f on the end's loop and waits for it.
func (x *end) on(deadline <-chan time.Time, f func()) bool {
	done := make(chan struct{})
	if !x.loop.Post(func() { defer close(done); f() }) {
		x.run.fault("%s: Post is refused", x.name)
		return false
	}
	select {
	case <-done:
		return true
	case <-deadline:
		x.run.fault("%s: a posted function does not run", x.name)
		return false
	}
}

// do does one step.
func (x *end) do(deadline <-chan time.Time, o op) bool {
	x.mu.Lock()
	quiet := x.timers == 0
	x.mu.Unlock()
	switch {
	case o.kind == opHandle && !quiet:
		o.kind = opWrite // the model could not tell which comes first
	case o.kind == opHandle:
		n, err := x.handle.Write(pattern(x.sent, o.arg))
		return x.on(deadline, func() {
			if err == nil && (x.halved || x.closed || x.aborted || x.lost) {
				return // taken, and dropped by the loop
			}
			x.update(func() {
				if err == nil {
					x.sent += int64(n)
				}
			})
		})
	}
	return x.on(deadline, func() {
		t := x.t
		switch o.kind {
		case opWrite:
			n, err := t.Write(pattern(x.sent, o.arg))
			x.wrote("Write", o.arg, n, err)
		case opWritev:
			p := pattern(x.sent, o.arg)
			n, err := t.Writev([][]byte{p[:o.arg/3], p[o.arg/3 : o.arg/2], p[o.arg/2:]})
			x.wrote("Writev", o.arg, n, err)
		case opBuffer:
			b := couplet.NewBuffer(pattern(x.sent, o.arg), nil)
			n, err := o.arg, t.WriteBuffer(b)
			if err != nil {
				n = 0
			}
			b.Release()
			x.wrote("WriteBuffer", o.arg, n, err)
		case opTimer:
			x.update(func() { x.timers++ })
			t.AfterFunc(time.Millisecond, func() {
				defer x.update(func() { x.timers-- })
				if x.closed || x.aborted || x.lost {
					x.run.fault("%s: a timer of the connection fired after the end", x.name)
				}
				n, err := t.Write(pattern(x.sent, o.arg%1000+1))
				x.wrote("Write in a timer", o.arg%1000+1, n, err)
			})
		case opPause:
			x.update(func() { x.paused = true })
			t.PauseReading()
		case opResume:
			x.update(func() { x.paused = false })
			t.ResumeReading()
		case opTurn:
			var again func()
			n := o.arg
			again = func() {
				if n--; n > 0 {
					t.Loop().Post(again)
				}
			}
			again()
		case opCloseWrite:
			x.update(func() { x.halved = true })
			t.CloseWrite()
		case opClose:
			x.ending.Store(true)
			x.update(func() { x.closed = true })
			t.Close()
		case opAbort:
			x.ending.Store(true)
			x.update(func() { x.aborted = x.aborted || !x.lost })
			t.Abort()
		}
	})
}

// runScript runs one script on a fresh connection and returns what is wrong.
func runScript(e *Env, ops []op) []string {
	deadline := make(chan time.Time)
	timer := time.AfterFunc(caseTime()/2, func() { close(deadline) })
	defer timer.Stop()
	r := &run{}
	s := &end{run: r, name: "server", changed: make(chan struct{})}
	c := &end{run: r, name: "client", changed: make(chan struct{}), peer: s}
	s.peer = c
	l := e.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return s }))
	defer l.Close()
	err := e.Client.Dial(e.t.Context(), e.network, l.Addr().String(), couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return c }))
	if err != nil {
		return []string{"Dial: " + err.Error()}
	}
	ends := [2]*end{s, c}
	for _, x := range ends {
		if !x.await(deadline, func() bool { return x.t != nil }) {
			return append(r.faults, "  "+x.name+": no ConnectionMade")
		}
	}
	for _, o := range ops {
		if !ends[o.end].do(deadline, o) {
			return r.faults
		}
	}
	// Both go on reading and end cleanly, if they have not ended yet.
	for _, kind := range []opKind{opResume, opCloseWrite} {
		for _, x := range ends {
			if !x.do(deadline, op{kind: kind}) {
				return r.faults
			}
		}
	}
	for _, x := range ends {
		if !x.await(deadline, func() bool { return x.lost }) {
			r.fault("%s: no ConnectionLost; %d of %d bytes received", x.name, x.received, x.peer.sent)
			s.handle.Abort()
			c.handle.Abort()
			return r.faults
		}
	}
	for _, x := range ends {
		x.compare(e)
	}
	return r.faults
}

// compare compares what became of the end with the model.
func (x *end) compare(e *Env) {
	p := x.peer
	if x.received > p.sent {
		x.run.fault("%s: received %d bytes of %d", x.name, x.received, p.sent)
	}
	got := class(x.reason)
	var may []string
	switch {
	case x.aborted && !x.closed:
		may = []string{"aborted"}
	case x.aborted:
		may = []string{"aborted", "closed", "eof"} // Close may have been done by then
	case x.closed:
		may = []string{"closed", "eof"}
	default:
		may = []string{"eof"}
	}
	if x.halved && p.halved {
		may = append(may, "eof") // it had ended by itself before it was told to
	}
	if p.aborted || p.closed {
		may = append(may, "reset", "eof") // what was sent to it is refused
	}
	if !slices.Contains(may, got) {
		x.run.fault("%s: the reason is %v (%s), not %s", x.name, x.reason, got, strings.Join(may, " or "))
	}
	// A clean end has brought everything, unless we did not want it; an abort
	// looks clean on unix sockets.
	if got == "eof" && !x.closed && !x.aborted && !(p.aborted && e.unix()) && x.received != p.sent {
		x.run.fault("%s: the end is clean, and %d of %d bytes came", x.name, x.received, p.sent)
	}
}

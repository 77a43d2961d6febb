//go:build linux

package enginetest

import (
	"errors"
	"slices"
	"time"

	"couplet"
	"couplet/internal/loop"
)

// What must hold.

// afterTurn is called after each turn of p's loop.
func (p *simPeer) afterTurn() {
	if p.closed || p.endTold || p.sendErr != 0 || p.stopping() {
		return
	}
	if p.wpaused || p.t.Buffered() <= p.high {
		p.touched = 0
		return
	}
	if p.touched++; p.touched > 2 && !p.wpaused {
		p.w.fail("%s: %d bytes are queued, the mark is %d, and WritePaused does not come", p.name, p.t.Buffered(), p.high)
	}
}

// checkIdle is called when nothing more happens without time passing.
func (w *world) checkIdle() {
	if w.frozen || w.cutting {
		return
	}
	for _, p := range w.ends {
		o := p.other()
		if !p.made || p.lost > 0 || p.closing || p.closed || p.stopping() || p.endTold && p.endErrno != 0 || p.sendErr != 0 {
			continue
		}
		if p.wpaused && p.t.Buffered() == 0 {
			w.fail("%s: nothing is queued and WriteResumed has not come", p.name)
		}
		if o == nil || !o.made || p.paused {
			continue
		}
		fact, over := w.facts[o.id]
		healthy := o.lost == 0 && !o.closing && o.sendErr == 0 && o.t.Buffered() == 0 || over && class(o.reason) == "closed" && !fact.Reset
		if healthy && p.read != o.taken && !p.rclosed && !p.endTold {
			w.fail("%s: %d bytes were written at the other end, %d have come, and nothing moves", p.name, o.taken, p.read)
		}
		if healthy && o.halfShut && p.half && !p.rclosed {
			w.fail("%s: the other end has closed its half, and ReadClosed does not come", p.name)
		}
	}
}

// finally checks what every schedule must come to.
func (w *world) finally() {
	for i, l := range w.loops {
		if left := l.Leftovers(); left != "" {
			w.fail("loop %d still has %s", i, left)
		}
	}
	for w.net.Step() {
	}
	if n := w.net.Files(); n != 0 {
		w.fail("%d descriptors are left: %s", n, w.state())
	}
	for _, letGo := range w.retains { // their timers went with the engine
		letGo()
	}
	if n := w.net.Kept(); n != 0 {
		w.fail("%d received Buffers are left", n)
	}
	if w.promised != 0 {
		w.fail("%d functions were promised to run, and did not", w.promised)
	}
	if w.buffers != 0 && w.failing == nil { // what a loop was sending when it failed stays
		w.fail("%d Buffers of WriteBuffer are left", w.buffers)
	}
	for i, d := range w.dials {
		if d.outcomes != 1 {
			w.fail("dial %d has %d outcomes", i+1, d.outcomes)
		}
	}
	for _, e := range []*loop.Engine{w.server, w.client} {
		select {
		case <-e.Done():
		default:
			w.fail("Done of the %s is not closed", e.Name())
		}
		if err := e.Err(); err != nil && (e != w.failing || !errors.Is(err, errBroken)) {
			w.fail("Err of the %s is %v", e.Name(), err)
		}
		if s := e.Stats(); s.Open != 0 || s.Listening != 0 {
			w.fail("Stats of the %s: %+v", e.Name(), s)
		}
	}
	select {
	case <-w.listener.Closed():
	default:
		w.fail("the listener's Closed is not closed")
	}
	for _, p := range w.ends {
		p.verdict()
	}
}

// verdict checks the reason of ConnectionLost against what has happened, and
// what it promises.
func (p *simPeer) verdict() {
	w := p.w
	if !p.made {
		w.fail("%s: Build without ConnectionMade", p.name)
		return
	}
	if p.lost != 1 {
		w.fail("%s: made, and lost %d times", p.name, p.lost)
		return
	}
	got := class(p.reason)
	fact, known := w.facts[p.id]
	if !known {
		w.fail("%s: the network does not know its socket", p.name)
		return
	}
	told := p.sendErr != 0 || p.endTold && p.endErrno != 0
	var want []string
	switch {
	case p.panicked:
		want = []string{"panic"}
	case p.aborted:
		want = []string{"aborted"}
	case p.wasCut:
		want = []string{"shutdown"}
	case told:
		want = []string{"reset"}
		if p.sendErr == 0 { // a timeout may have been first
			want = append(want, "timeout")
		}
	case p.closed && p.wouldEOF:
		want = []string{"eof", "timeout"}
	case p.closed && p.endTold:
		want = []string{"closed", "eof", "timeout"}
	case p.closed:
		want = []string{"closed", "timeout"}
	case p.endTold:
		want = []string{"eof", "timeout"}
	default:
		want = []string{"timeout"}
	}
	if fact.Reset && p.endTold { // an end that was told while a send was in flight is not believed
		want = append(want, "reset")
	}
	if w.stopped && !p.drains && !p.wasCut {
		want = append(want, "shutdown")
	}
	if p.failing() && !p.panicked {
		want = append(want, "engine")
	}
	if !slices.Contains(want, got) {
		w.fail("%s: the reason is %v, not one of %v", p.name, p.reason, want)
	}
	if got == "timeout" {
		p.checkTimeout()
	}
	clean := got == "eof" || got == "closed" || got == "shutdown" && !p.wasCut
	switch {
	case fact.Sent > int64(p.taken):
		w.fail("%s: %d bytes were written and %d sent", p.name, p.taken, fact.Sent)
	case clean && fact.Sent != int64(p.taken):
		w.fail("%s: ended with %v, and of %d bytes written %d were sent", p.name, p.reason, p.taken, fact.Sent)
	case clean && !fact.FinReceived && (fact.Acked != fact.Sent):
		w.fail("%s: ended with %v, and of %d bytes %d were acknowledged", p.name, p.reason, fact.Sent, fact.Acked)
	case !clean && !fact.Unclean && !p.lingered() && got != "engine":
		w.fail("%s: ended with %v, and not by a reset", p.name, p.reason)
	case got == "eof" && !fact.FinReceived:
		w.fail("%s: ended with %v, and no FIN was seen", p.name, p.reason)
	case got == "reset" && !fact.Reset && !fact.ErrorTold:
		w.fail("%s: ended with %v, and there was no reset", p.name, p.reason)
	}
	p.checkDelivery(fact)
}

// failing reports whether p's engine has failed.
func (p *simPeer) failing() bool {
	return p.w.failing != nil && p.server == (p.w.failing == p.w.server)
}

// lingered reports whether waiting for the peer's acknowledgement took too long.
func (p *simPeer) lingered() bool {
	var e *couplet.TimeoutError
	return errors.As(p.reason, &e) && e.Op == "linger"
}

// checkTimeout checks that the time was up.
func (p *simPeer) checkTimeout() {
	var e *couplet.TimeoutError
	if !errors.As(p.reason, &e) {
		p.w.fail("%s: %v is no TimeoutError", p.name, p.reason)
		return
	}
	limit := map[string]time.Duration{"flush": p.w.flush, "linger": p.w.linger, "idle": p.w.idle}[e.Op]
	if limit == 0 || e.Op == "linger" && p.closedAt < limit || e.Op == "flush" && p.closedAt-p.lastMove < limit ||
		e.Op == "idle" && p.closedAt-max(p.lastMove, p.lastRead) < limit {
		p.w.fail("%s: %v, %v after something moved; the limit is %v", p.name, p.reason, p.closedAt-p.lastMove, limit)
	}
	if e.Op == "flush" && !p.deaf {
		p.w.fail("%s: %v, and the other end was reading", p.name, p.reason)
	}
}

// checkDelivery checks that what a clean reason promises has reached the other
// end's protocol, unless that has itself to blame.
func (p *simPeer) checkDelivery(fact SimEnd) {
	w, o := p.w, p.other()
	if o == nil || !o.made {
		return
	}
	if o.read > p.taken {
		w.fail("%s: has read %d bytes of %d", o.name, o.read, p.taken)
	}
	if o.rclosed && !o.finTold {
		w.fail("%s: ReadClosed without an end", o.name)
	}
	if w.network == "unix" && fact.Unclean {
		return // there it looks like an end
	}
	if got := class(o.reason); got == "eof" && !o.closed && !o.paused && o.read != p.taken && !w.stopped {
		w.fail("%s: ended with io.EOF, and has read %d of %d bytes", o.name, o.read, p.taken)
	}
}

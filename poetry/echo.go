package poetry

import (
	"net"
	"sync"

	"couplet"
)

// Echo is the Factory of an echo server: it sends back what it gets. It stops
// reading from a client that does not take its echo, so a connection costs at
// most the high watermark and what it may deliver in a turn (Config.BytesPerTurn).
// When the client closes its half, what
// is owed is sent and the connection closed. When the engine stops it goes on until
// its clients close; the deadline of Shutdown cuts, by a reset, those who do not.
type Echo struct {
	// Upper sends ASCII letters back in upper case. Other bytes stay, so that
	// characters split across two deliveries come back unharmed.
	Upper bool
}

var _ couplet.Factory = Echo{}

// Build implements couplet.Factory.
func (e Echo) Build(net.Addr) couplet.Protocol {
	if e.Upper {
		return upperEcho{}
	}
	return echo{}
}

// flow is what both kinds of echo do beside answering.
type flow struct{}

func (flow) ConnectionMade(couplet.Transport) {}

func (flow) ConnectionLost(couplet.Transport, error) {}

func (flow) WritePaused(t couplet.Transport) { t.PauseReading() }

func (flow) WriteResumed(t couplet.Transport) { t.ResumeReading() }

// Draining goes on: what the client has sent, or will send, is still to come back.
func (flow) Draining(couplet.Transport) {}

type echo struct{ flow }

var (
	_ couplet.WriteFlow      = echo{}
	_ couplet.BufferReceiver = echo{}
	_ couplet.DrainHandler   = echo{}
)

func (echo) DataReceived(t couplet.Transport, data []byte) { answer(t, data) }

// BufferReceived sends much back from where it was received; little is copied,
// which costs less than to hold memory for it.
func (echo) BufferReceived(t couplet.Transport, b *couplet.Buffer) {
	if b.Len() < 2<<10 {
		answer(t, b.Bytes())
		return
	}
	t.WriteBuffer(b) // fails only where the connection is closing anyway
}

type upperEcho struct{ flow }

// scratch holds buffers for upper-casing, so that an idle connection has none.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

func (upperEcho) DataReceived(t couplet.Transport, data []byte) {
	b := scratch.Get().(*[]byte)
	*b = append((*b)[:0], data...)
	for i, c := range *b {
		if 'a' <= c && c <= 'z' {
			(*b)[i] = c - ('a' - 'A')
		}
	}
	answer(t, *b)
	scratch.Put(b)
}

// answer writes back p. An echo with a hole in it would be a lie, so where the
// queue is full the connection is reset.
func answer(t couplet.Transport, p []byte) {
	if _, err := t.Write(p); err == couplet.ErrOutboundFull {
		t.Abort()
	}
}

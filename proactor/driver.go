//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"fmt"
	"time"
	"unsafe"

	"couplet"
	"couplet/internal/loop"
	"couplet/proactor/ring"
)

// New starts the engine "uring". It fails with a *ring.SetupError, which says
// what is in the way and what removes it, where io_uring cannot be used, or not
// with the features that config asks for.
func New(config couplet.Config) (couplet.Engine, error) {
	config, err := config.WithDefaults()
	if err != nil {
		return nil, err
	}
	features, err := granted(config.Features)
	if err != nil {
		return nil, err
	}
	config.Features = features
	e, err := loop.NewEngine("uring", config, loop.Kernel{}, newDriver)
	if err != nil {
		return nil, err
	}
	without := ""
	if config.Ablation.OneShot {
		without = ", one-shot"
	}
	if config.Ablation.Batched {
		without += ", batched"
	}
	if config.Ablation.RegisteredRing {
		without += ", registered ring"
	}
	if config.Ablation.ZeroCopy {
		without += ", zero-copy"
	}
	e.SetDescription(fmt.Sprintf("io_uring tier %s (%s)%s, %s binding, loops %d",
		features.Tier(), ring.Caps(features), without, ring.Binding, len(e.Loops())))
	return e, nil
}

// The features of the contract are the capabilities of the probe, bit by bit.
const _ = -uint(ring.Caps(couplet.FeatureMultishot) ^ ring.CapMultishot |
	ring.Caps(couplet.FeatureDeferTaskrun) ^ ring.CapDeferTaskrun |
	ring.Caps(couplet.FeatureIncremental) ^ ring.CapIncremental)

// granted is what is to be used of what the kernel has now: a sandbox may have
// taken it away since the last time.
func granted(want couplet.Features) (couplet.Features, error) {
	caps, err := ring.Probe()
	if err != nil {
		return 0, err
	}
	have := couplet.Features(caps)
	switch {
	case want == 0:
		return have, nil
	case want&^have != 0:
		return 0, fmt.Errorf("couplet: this kernel's io_uring lacks %s; it has %s. Take fewer Config.Features, the epoll engine, or a newer kernel",
			ring.Caps(want&^have), ring.Caps(have))
	}
	return want | couplet.FeatureMultishot, nil
}

var _ loop.Driver = (*driver)(nil)

// driver maps each call to a submission entry, and each completion entry to a
// report. All of it belongs to its loop's thread.
type driver struct {
	loop      *loop.Loop
	oneShot   bool // see couplet.Ablation
	batched   bool // likewise
	zeroCopy  bool // likewise
	ring      *ring.Ring
	waker     *loop.Waker
	conns     loop.Slab[conn]
	listeners map[uint32]*listener
	nextID    uint32

	reports []key    // connections that closed at once, to be reported in the next Wait
	buffers *buffers // that the kernel receives into
	starved []key    // whose receive found no buffer
	brought int      // bytes, by the multishot receives of one wait

	bulky     []key       // connections that are received from one by one and have something
	served    int         // of these, the ones whose turn has begun in this wait
	turn      key         // whose turn goes on, or 0
	delivered int         // in that turn
	memory    loop.Memory // what that is received into
	reading   int         // how much of it is the kernel's; 0: no such receive is in flight

	renewed []key // operations to be armed anew, or cancelled, once everything is reaped

	gathers  []*loop.Gather // of sends queued since the last enter
	gathered int            // how many of them are in use

	loans []loan   // Buffers that are sent from where they are
	free  []uint32 // of these

	woken   *[8]byte // what the eventfd is read into
	waking  bool     // that read is in flight
	leaving bool     // and is the last
	enters  uint64   // of those counted as crossings
	acted   uint32   // completions of the batch at hand that were acted on
	inWait  bool     // still true in Shutdown if a callback never came back
	err     error    // the ring failed
}

// conn is what the driver keeps of a connection.
type conn struct {
	c          *loop.Conn
	generation uint32

	inFlight   operations // whose last completion has not come
	receiving  bool       // the loop wants to receive
	cancelling bool       // the receive, or the poll for data, in flight is being cancelled
	ended      bool       // the peer's FIN came; the watch is for errors
	copies     bool       // sending without a copy was refused
	room       room       // for what is sent, where the kernel does not wait for it
	bulk       bool       // received from when its turn comes: see bulk.go
	listed     bool       // in driver.bulky
	little     uint8      // receives in a row that brought little
	behind     bool       // the end is behind what there is to receive
	closing    bool
	how        loop.CloseMode
	size       int32 // of the send in flight
}

// listener is what the driver keeps of a listening socket.
type listener struct {
	l        *loop.Listener
	id       uint32
	shared   bool // others accept on the socket, too
	single   bool // each accept is armed by itself
	armed    bool // an accept is in flight
	stopping bool
}

// key says what a completion is for; it is the entry's user data.
type key uint64

type kind uint8

const (
	connectOp kind = iota
	receiveOp
	sendOp
	zeroCopyOp // a send; its key has the place of the loan for a slot
	watchOp
	roomOp
	pollOp
	readOp
	wakeOp
	acceptOp
)

// names are the kinds' in a trace; see driver.name.
var names = [...]string{"connect", "recv multishot", "send", "send without a copy", "poll for the end", "poll for room", "poll for data", "recv", "read wake-ups", "accept multishot"}

// operations is a set of kinds of a connection.
type operations uint8

const _ = 7 - uint(readOp) // the last of them has a bit

func (o operations) has(k kind) bool { return o&(1<<k) != 0 }

// cancellation, in a key, is the cancellation of the operation that the rest of it tells.
const cancellation key = 1 << 63

func newKey(k kind, generation, slot uint32) key {
	return key(k)<<56 | key(generation&loop.GenerationMask)<<32 | key(slot)
}

func (k key) kind() kind         { return kind(k >> 56) }
func (k key) generation() uint32 { return uint32(k>>32) & loop.GenerationMask }
func (k key) slot() uint32       { return uint32(k) }

// newDriver runs on the loop's thread, which the ring then belongs to.
func newDriver(l *loop.Loop) (loop.Driver, error) {
	config := l.Config()
	r, err := ring.OpenForCaps(uint32(config.RingEntries), uint32(config.CompletionEntries), ring.Caps(config.Features))
	if err != nil {
		return nil, err
	}
	d := &driver{
		loop:      l,
		oneShot:   config.Ablation.OneShot,
		batched:   config.Ablation.Batched || config.Ablation.OneShot,
		zeroCopy:  config.Ablation.ZeroCopy,
		ring:      r,
		listeners: make(map[uint32]*listener),
		woken:     new([8]byte),
	}
	if config.Ablation.RegisteredRing {
		err = r.RegisterFD()
	}
	if err == nil {
		d.buffers, err = newBuffers(r, config)
	}
	if err == nil {
		d.waker, err = loop.NewWaker()
	}
	if err != nil {
		d.Shutdown()
		return nil, err
	}
	d.armWaker()
	l.Count().Held = d.buffers.held()
	return d, nil
}

// of is what the driver keeps of c.
func (d *driver) of(c *loop.Conn) *conn {
	s := d.conns.At(c.Slot())
	if s.c != c {
		*s = conn{c: c, generation: c.Generation()}
	}
	return s
}

// living is the connection of a key, or nil if that is gone.
func (d *driver) living(k key) *conn {
	if s := d.conns.At(k.slot()); s.c != nil && s.generation == k.generation() {
		return s
	}
	return nil
}

// known is the connection that a completion is for, or nil if that is gone.
func (d *driver) known(k key) *conn {
	s := d.living(k)
	if s == nil {
		d.loop.Count().Stale++
	}
	return s
}

func (s *conn) key(k kind) key { return newKey(k, s.generation, s.c.Slot()) }

// start is the entry of a new operation of s.
func (d *driver) start(s *conn, k kind) *ring.SQE {
	s.inFlight |= 1 << k
	return d.entry(s.key(k))
}

// entry is the next submission entry. A full queue is submitted first. Where the kernel
// takes nothing of it for a thousand times the shortage, the ring has failed.
func (d *driver) entry(k key) *ring.SQE {
	for range 1000 {
		if e := d.ring.SQE(); e != nil {
			e.UserData = uint64(k)
			return e
		}
		d.entering()
		if err := d.ring.Submit(); err != nil {
			d.err = err
			break
		}
		d.submitted()
	}
	if d.err == nil {
		d.err = fmt.Errorf("couplet: the kernel takes no submissions (%d queued)", d.ring.Queued())
	}
	return new(ring.SQE) // goes nowhere: the next Wait fails
}

// queued tells of an entry, for n bytes (-1: of none, or of as many as come).
func (d *driver) queued(k key, n int) {
	if d.loop.Traced() {
		d.loop.Tell(loop.Entry, d.name(k), n, 0)
	}
}

// name is what a trace calls the operation of a key.
func (d *driver) name(k key) string {
	n := d.listeners[k.slot()]
	switch {
	case k&cancellation != 0:
		return "cancel"
	case k.kind() == receiveOp && d.oneShot:
		return "recv"
	case k.kind() == acceptOp && n != nil && n.shared:
		return "poll for connections"
	case k.kind() == acceptOp && n != nil && n.single:
		return "accept"
	}
	return names[k.kind()]
}

// entering tells of the call that is about to be made.
func (d *driver) entering() {
	if d.loop.Traced() {
		d.loop.Tell(loop.Enter, "io_uring_enter", int(d.ring.Queued()), 0)
	}
}

// shortage is for how long a kernel is left alone that had no memory for an entry.
const shortage = time.Millisecond

// submitted takes note of what the kernel has taken.
func (d *driver) submitted() {
	if d.ring.Queued() == 0 {
		for _, g := range d.gathers[:d.gathered] {
			g.Clear()
		}
		d.gathered = 0
	}
	if d.ring.Short() {
		time.Sleep(shortage)
	}
	n := d.ring.Enters()
	d.loop.Count().Crossings += int64(n - d.enters)
	d.enters = n
	if d.loop.Traced() {
		d.loop.Tell(loop.Call, "io_uring_enter", int(d.ring.Ready()), 0)
	}
}

func (d *driver) armWaker() {
	d.waking = true
	d.entry(newKey(wakeOp, 0, 0)).Read(d.waker.FD(), unsafe.Pointer(d.woken), 8)
	d.queued(newKey(wakeOp, 0, 0), -1)
}

// Shutdown implements loop.Driver.
func (d *driver) Shutdown() error {
	failed := d.err != nil || d.inWait || d.holds()
	if !failed && d.waking {
		d.leaving = true
		d.waker.Wake() // ends the read, so that the kernel holds nothing of ours
		for i := 0; (d.waking || d.lending()) && d.err == nil && i < 100; i++ {
			d.err = d.ring.Wait(10*time.Millisecond, 1)
			d.reap()
		}
	}
	if failed || d.waking || d.lending() {
		d.keep()
		d.resetAccepted()
		d.conns.Each(func(s *conn) {
			if s.closing && s.inFlight != 0 {
				d.closeFD(s) // its last completion will not come
			}
		})
	} else {
		d.memory.Release()
	}
	if d.waker != nil {
		d.waker.Close()
	}
	err := d.buffers.close()
	if e := d.ring.Close(); err == nil {
		err = e
	}
	return err
}

// keep keeps what the kernel may still write into or send from, and no more: not the loop
// with all that its users have, nor the rest of a queue.
func (d *driver) keep() {
	loop.Keep(d.woken)
	if d.buffers != nil {
		loop.Keep(d.buffers.blocks)
	}
	loop.Keep(d.memory) // a copy
	d.conns.Each(func(s *conn) {
		if !s.inFlight.has(sendOp) {
			return
		}
		left := int(s.size)
		for seg := s.c.Head(); seg != nil && left > 0; seg = seg.Next() {
			left -= len(seg.Bytes())
			loop.Keep(seg.Bytes())
			if b := seg.Shared(); b != nil {
				b.Retain() // for ever: its memory must not be used again
			}
		}
	})
	for _, l := range d.loans {
		if l.buffer != nil {
			loop.Keep(l.buffer.Bytes()) // whose reference is ours for ever
		}
	}
}

// resetAccepted resets those who were accepted by completions that nobody acts on any
// more: their descriptors are in no other place. The accepts are cancelled first, for
// they go on behind each call that this thread makes.
func (d *driver) resetAccepted() {
	armed := 0
	for id, n := range d.listeners {
		if n.armed && d.err == nil {
			d.cancel(newKey(acceptOp, 0, id))
			armed++
		}
	}
	for begin := time.Now(); ; {
		armed -= d.resetReady()
		if armed <= 0 && !d.ring.Overflowed() || time.Since(begin) > time.Second || d.ring.Wait(10*time.Millisecond, 1) != nil {
			return
		}
	}
}

// resetReady does so for the completions that are there, and counts the accepts whose
// last was among them.
func (d *driver) resetReady() (ended int) {
	for n := d.ring.Ready(); n > 0; n = d.ring.Ready() {
		for i := d.acted; i < n; i++ {
			e := d.ring.CQE(i)
			k := key(e.UserData)
			l := d.listeners[k.slot()]
			if k.kind() != acceptOp || l == nil {
				continue
			}
			if e.Res >= 0 && !l.shared {
				loop.Kernel{}.Reset(int(e.Res))
			}
			if e.Flags&ring.CQEFMore == 0 {
				ended++
			}
		}
		d.ring.Advance(n)
		d.acted = 0
	}
	return ended
}

// holds reports whether an operation is in flight: only when a loop failed.
func (d *driver) holds() bool {
	busy := len(d.listeners) > 0
	d.conns.Each(func(s *conn) { busy = busy || s.inFlight != 0 })
	return busy
}

package couplet

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"
)

// Config configures an engine. The zero value is ready to use.
type Config struct {
	// Loops is the number of loops, 1 by default and 256 at most. Each is a thread of
	// its own (a mutex on the goroutine engine), and runs its callbacks there:
	// runtime.NumCPU() uses all CPUs. With more than one, callbacks of several
	// connections run at a time, a Factory's Build too: what they share wants a lock, or
	// a loop that it belongs to, which the others reach by Post.
	Loops int

	// Logger takes the engine's few messages: panics in callbacks, accept
	// errors. slog.Default() if nil.
	Logger *slog.Logger

	// OnPanic says what a panic in a callback does.
	OnPanic PanicPolicy

	// Spread says how accepted connections reach the loops, if there are
	// several.
	Spread Spread

	// CPUs pins loop i to CPU CPUs[i % len(CPUs)]. None: not pinned. The goroutine
	// engine ignores it.
	CPUs []int

	// Features limits what the io_uring engine uses: one of the tiers, or any
	// mask, and always FeatureMultishot. Zero takes all that a probe finds. A mask that the kernel cannot
	// meet is an error. Other engines ignore it.
	Features Features

	// RingEntries and CompletionEntries size the io_uring queues of each loop
	// (powers of two; 1024 and 8192 by default).
	RingEntries, CompletionEntries int

	// RingBuffers and RingBufferSize are the receive buffers of each io_uring
	// loop (a power of two up to 4096; bytes up to 1 MiB). Where RingBuffers is zero
	// their number follows the load: 16 to 256, of 64 KiB by default, with
	// FeatureIncremental, else 64 to 4096, of 16 KiB.
	RingBuffers, RingBufferSize int

	// BytesPerTurn is what one connection may deliver before others have their
	// turn (1 MiB by default). WritePaused comes between turns, so it is also what a
	// protocol that obeys it may have queued beyond its high watermark, for each
	// connection that it is written from.
	BytesPerTurn int

	// PostsPerTurn is how many posted functions run before I/O has its turn
	// (4096 by default).
	PostsPerTurn int

	// Ablation has an engine do without something, to measure what that is worth.
	Ablation Ablation
}

// Ablation takes away, or exchanges, one by one what an engine has by its own
// choice. Nothing of the contract changes by it, and nobody needs it but who
// measures. The features of io_uring that come with releases of the kernel are
// not here: see Features.
type Ablation struct {
	// OneShot has io_uring accept and receive once per entry, and arm anew each
	// time, instead of once and for all.
	OneShot bool
	// Batched has io_uring leave bulk, too, to receives that bring the bytes of many
	// connections before the first of them is answered, instead of receiving it one
	// connection at a time. OneShot does so anyway.
	Batched bool
	// EdgeTriggered has epoll tell of changes instead of states: registered once,
	// for everything, and read until there is no more.
	EdgeTriggered bool
	// RegisteredRing has io_uring entered by an index that is registered with the
	// loop's thread, instead of by the ring's descriptor (Linux 5.18, and 6.3
	// with giouring). Where that is refused there is no engine.
	RegisteredRing bool
	// ZeroCopy has io_uring send what WriteBuffer was given from where it is, if
	// that is 16 KiB or more: the network takes it from there, and lets go of the
	// Buffer when the peer has acknowledged it. It can pay only with a network card:
	// over loopback the kernel copies all the same. The memory that is lent counts
	// against RLIMIT_MEMLOCK. Where such a send is refused, as on unix sockets, the bytes
	// are sent as always. See Stats.ZeroCopies.
	ZeroCopy bool
}

// PanicPolicy says what a panic in a callback does.
type PanicPolicy int

const (
	// PanicCloses logs the panic with its stack and loses that connection with
	// a *PanicError. The engine goes on.
	PanicCloses PanicPolicy = iota
	// PanicCrashes lets the panic end the process.
	PanicCrashes
)

// Spread says how accepted connections reach the loops.
type Spread int

const (
	// ReusePort gives each loop a listening socket of its own (SO_REUSEPORT);
	// the kernel spreads connections by their hash. Unix sockets use
	// RoundRobin.
	ReusePort Spread = iota
	// RoundRobin accepts on one loop and deals connections out in turn.
	RoundRobin
	// LeastConnections accepts on one loop and gives each connection to the
	// loop that has the fewest.
	LeastConnections
)

// Features is a set of io_uring features that are used where the kernel has
// them.
type Features uint32

const (
	// FeatureMultishot is multishot accept and receive into a provided buffer
	// ring (Linux 6.0): the least the io_uring engine runs on.
	FeatureMultishot Features = 1 << iota
	// FeatureDeferTaskrun runs completion work only in the loop's own wait
	// (Linux 6.1).
	FeatureDeferTaskrun
	// FeatureIncremental lets several receives share one buffer (Linux 6.12).
	FeatureIncremental

	// TierU2 is what Linux 6.0 has.
	TierU2 = FeatureMultishot
	// TierU3 is what Linux 6.1 has, and the least that engine "auto" takes.
	TierU3 = TierU2 | FeatureDeferTaskrun
	// TierU5 is what Linux 6.12 has.
	TierU5 = TierU3 | FeatureIncremental
)

// Tier names the highest tier that f holds: "U5", "U3", "U2" or "none".
func (f Features) Tier() string {
	switch {
	case f&TierU5 == TierU5:
		return "U5"
	case f&TierU3 == TierU3:
		return "U3"
	case f&TierU2 == TierU2:
		return "U2"
	}
	return "none"
}

// bad says which field or option cannot be right, and what would be.
func bad(name string, v any, want string) error {
	return fmt.Errorf("couplet: %s is %v; it must be %s", name, v, want)
}

// WithDefaults returns c with every zero field at its default, or an error
// that names the field that cannot be right. It is for engines.
func (c Config) WithDefaults() (Config, error) {
	for _, f := range []struct {
		name     string
		v        *int
		def, max int
		power    bool
	}{
		{"Loops", &c.Loops, 1, 256, false},
		{"RingEntries", &c.RingEntries, 1024, 32768, true},
		{"CompletionEntries", &c.CompletionEntries, 8192, 65536, true},
		{"RingBuffers", &c.RingBuffers, 0, 4096, true},
		{"RingBufferSize", &c.RingBufferSize, 0, 1 << 20, false},
		{"BytesPerTurn", &c.BytesPerTurn, 1 << 20, 1 << 30, false},
		{"PostsPerTurn", &c.PostsPerTurn, 4096, 1 << 30, false},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
		if *f.v < 0 || *f.v > f.max || f.power && *f.v&(*f.v-1) != 0 {
			want := fmt.Sprintf("from 1 to %d", f.max)
			if f.power {
				want = "a power of two " + want
			}
			return c, bad("Config."+f.name, *f.v, want)
		}
	}
	if c.CompletionEntries < c.RingEntries {
		return c, bad("Config.CompletionEntries", c.CompletionEntries, "at least RingEntries")
	}
	if c.OnPanic < PanicCloses || c.OnPanic > PanicCrashes {
		return c, bad("Config.OnPanic", int(c.OnPanic), "PanicCloses or PanicCrashes")
	}
	if c.Spread < ReusePort || c.Spread > LeastConnections {
		return c, bad("Config.Spread", int(c.Spread), "ReusePort, RoundRobin or LeastConnections")
	}
	for i, cpu := range c.CPUs {
		if cpu < 0 {
			return c, bad(fmt.Sprintf("Config.CPUs[%d]", i), cpu, "the number of a CPU, from 0")
		}
	}
	if unknown := c.Features &^ TierU5; unknown != 0 {
		return c, fmt.Errorf("couplet: Config.Features has unknown bits %#x; take a tier, such as TierU3, or Feature constants", uint32(unknown))
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Options are what Listen and Dial can be told about their connections; each
// is set by the Option of its name, File by FromFile and Loop by OnLoop. A value
// that cannot be right, such as a ConnectTimeout of zero, is their error.
type Options struct {
	// NoDelay sets TCP_NODELAY (on by default).
	NoDelay bool
	// KeepAlive is the TCP keep-alive period, rounded up to seconds (15 s by
	// default; zero or negative: off). Beyond 32767 s, Linux's limit, it is that.
	KeepAlive time.Duration
	// Backlog is the listen backlog (4096 by default, bounded by
	// net.core.somaxconn). Dial ignores it, and a Listen that adopts File.
	Backlog int
	// ReceiveBuffer and SendBuffer are the socket's buffers in bytes (zero:
	// the system's own). The connections of a unix listener keep the system's.
	ReceiveBuffer, SendBuffer int
	// ConnectTimeout bounds a Dial (30 s by default), the look-up of a name and
	// all its addresses together: each that is tried has a share of what is
	// left. Listen ignores it.
	ConnectTimeout time.Duration
	// IdleTimeout ends a connection on which nothing was received or sent for
	// so long (zero: never): by a reset, and what is queued is dropped. A peer
	// that takes nothing of what is queued is noticed after twice that at most. Who has
	// spoken is not idle, though the loop was held up and has not heard of it yet.
	// While reading is paused nothing is received, whatever the peer sends: who
	// pauses for longer than this, as a proxy may, takes a timer of its own instead. So
	// does who wants a polite end: AfterFunc and Close.
	IdleTimeout time.Duration
	// FlushTimeout ends a closing connection whose peer takes nothing for so
	// long (60 s by default), by a reset; twice that at most, since it is looked at
	// now and then.
	FlushTimeout time.Duration
	// LingerTimeout bounds the wait after our FIN for the peer's
	// acknowledgement (5 s by default).
	LingerTimeout time.Duration
	// MaxConns is the most connections a listener has open at once; more wait
	// in the backlog (zero: no limit). Dial ignores it.
	MaxConns int
	// MaxOutbound is the most bytes that Write and Writev queue on one connection
	// (256 MiB by default): what they copied counts, and Buffers do not. A write of a
	// Handle, of a Buffer too, fails where it, all others on their way from Handles
	// and everything queued, Buffers included, would exceed it.
	MaxOutbound int
	// Control is called with each socket before bind or connect: inside Listen, but
	// not for File, and of a Dial on the loop or a goroutine of the engine's. It must
	// not block. Its error, or the *PanicError of a panic, ends Listen or that attempt
	// to connect.
	Control func(fd uintptr) error
	// File is a listening socket to adopt instead of making one; its backlog stays as
	// it is. Dial ignores it.
	File *os.File
	// Loop is the loop that a dialled connection lives on (nil: the engine
	// picks one). Listen ignores it; see Config.Spread.
	Loop Loop

	err error // of an Option that refused what it was given
}

// An Option sets one of the Options.
type Option func(*Options)

// NoDelay sets or clears TCP_NODELAY.
func NoDelay(on bool) Option { return func(o *Options) { o.NoDelay = on } }

// KeepAlive sets the TCP keep-alive period; zero or negative switches it off.
func KeepAlive(d time.Duration) Option { return func(o *Options) { o.KeepAlive = d } }

// Backlog sets the listen backlog. It has no effect on Dial, nor with FromFile.
func Backlog(n int) Option { return func(o *Options) { o.Backlog = n } }

// ReceiveBuffer sets SO_RCVBUF in bytes. It has no effect on what a unix listener accepts.
func ReceiveBuffer(n int) Option { return func(o *Options) { o.ReceiveBuffer = n } }

// SendBuffer sets SO_SNDBUF in bytes. It has no effect on what a unix listener accepts.
func SendBuffer(n int) Option { return func(o *Options) { o.SendBuffer = n } }

// ConnectTimeout bounds a Dial. It has no effect on Listen.
func ConnectTimeout(d time.Duration) Option { return func(o *Options) { o.ConnectTimeout = d } }

// IdleTimeout ends connections on which nothing moves, by a reset.
func IdleTimeout(d time.Duration) Option { return func(o *Options) { o.IdleTimeout = d } }

// FlushTimeout ends closing connections whose peer takes nothing.
func FlushTimeout(d time.Duration) Option { return func(o *Options) { o.FlushTimeout = d } }

// LingerTimeout bounds the wait after our FIN.
func LingerTimeout(d time.Duration) Option { return func(o *Options) { o.LingerTimeout = d } }

// MaxConns bounds a listener's open connections. It has no effect on Dial.
func MaxConns(n int) Option { return func(o *Options) { o.MaxConns = n } }

// MaxOutbound bounds the bytes that Write, Writev and Handles queue on one
// connection; what Transport.WriteBuffer lends is not counted.
func MaxOutbound(n int) Option { return func(o *Options) { o.MaxOutbound = n } }

// Control is called with the socket's descriptor before bind or connect.
func Control(f func(fd uintptr) error) Option { return func(o *Options) { o.Control = f } }

// FromFile adopts a socket that was handed over. It must listen: one that is only
// bound is an error. Its backlog stays as it is. Listen's network must fit it, and
// Listen's address is not used. The file is duplicated, not consumed. It has no effect
// on Dial.
func FromFile(f *os.File) Option {
	return func(o *Options) {
		if o.File = f; f == nil {
			o.err = errors.New("couplet: FromFile was given no file; give it the socket to listen on, or leave it out")
		}
	}
}

// OnLoop puts a dialled connection on a given loop of the same engine. It has no
// effect on Listen.
func OnLoop(l Loop) Option { return func(o *Options) { o.Loop = l } }

const maxKeepAlive = 32767 * time.Second // MAX_TCP_KEEPIDLE of Linux's net/tcp.h

// NewOptions applies opts to the defaults, or returns an error that names the
// option that cannot be right. It is for engines.
func NewOptions(opts ...Option) (Options, error) {
	o := Options{
		NoDelay:        true,
		KeepAlive:      15 * time.Second,
		Backlog:        4096,
		ConnectTimeout: 30 * time.Second,
		FlushTimeout:   60 * time.Second,
		LingerTimeout:  5 * time.Second,
		MaxOutbound:    256 << 20,
	}
	for i, f := range opts {
		if f == nil {
			return o, fmt.Errorf("couplet: option %d of %d is nil; leave it out", i+1, len(opts))
		}
		f(&o)
	}
	for _, f := range [...]struct {
		name     string
		v, least int
	}{
		{"Backlog", o.Backlog, 1},
		{"MaxOutbound", o.MaxOutbound, 1},
		{"ReceiveBuffer", o.ReceiveBuffer, 0},
		{"SendBuffer", o.SendBuffer, 0},
		{"MaxConns", o.MaxConns, 0},
	} {
		if f.v < f.least {
			return o, bad(f.name, f.v, fmt.Sprintf("at least %d", f.least))
		}
	}
	for _, f := range [...]struct {
		name string
		v    time.Duration
	}{
		{"ConnectTimeout", o.ConnectTimeout},
		{"FlushTimeout", o.FlushTimeout},
		{"LingerTimeout", o.LingerTimeout},
	} {
		if f.v <= 0 {
			return o, bad(f.name, f.v, "more than 0")
		}
	}
	if o.IdleTimeout < 0 {
		return o, bad("IdleTimeout", o.IdleTimeout, "at least 0, which is never")
	}
	o.KeepAlive = min(o.KeepAlive, maxKeepAlive)
	if f := o.Control; f != nil {
		o.Control = func(fd uintptr) (err error) {
			defer func() {
				if v := recover(); v != nil {
					err = &PanicError{Value: v, Stack: debug.Stack()}
				}
			}()
			return f(fd)
		}
	}
	return o, o.err
}

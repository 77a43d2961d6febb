package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"couplet/internal/timers"
)

// Measure puts the load w on the server at port of 127.0.0.1: for warm without
// counting, then for d. A Stream lasts as long as it takes. mark is called at
// the beginning and at the end of what is counted. w must come from
// WithDefaults. Measure holds a thread for itself.
func Measure(w Workload, port int, warm, d time.Duration, mark func() (Report, error)) (Figures, error) {
	return measure(context.Background(), w, netip.AddrPortFrom(loopback, uint16(port)), warm, d, mark)
}

// measure is Measure for a server anywhere, until ctx ends: then its error is that
// of ctx.
func measure(ctx context.Context, w Workload, server netip.AddrPort, warm, d time.Duration, mark func() (Report, error)) (Figures, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g, err := newGenerator(ctx, w, server, mark)
	if err != nil {
		return Figures{}, err
	}
	defer g.shut()
	if err := g.prepare(warm); err != nil {
		return Figures{}, err
	}
	if err := g.slice(0, d); err != nil {
		return Figures{}, err
	}
	return g.finish(d)
}

// newGenerator makes a generator, which is to be shut. Its thread is the caller's own.
func newGenerator(ctx context.Context, w Workload, server netip.AddrPort, mark func() (Report, error)) (*generator, error) {
	if err := ctx.Err(); err != nil {
		return nil, err // AfterFunc tells of it only soon
	}
	family, to, err := sockaddr(server)
	if err != nil {
		return nil, err
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	g := &generator{
		ctx: ctx, w: w, server: server, family: family, to: to, ep: ep, mark: mark,
		alone: runtime.GOMAXPROCS(0) == 1,
		buf:   make([]byte, span),
		out:   make([]byte, 64<<10),
		conns: make([]client, w.Connections),
		limit: w.backlog(), periods: w.periods(),
		Figures: Figures{
			Latency: hdrhistogram.New(1, int64(greatest), 3),
			Errors:  map[string]int64{},
		},
	}
	g.deaf = context.AfterFunc(ctx, func() { g.over.Store(true) })
	pattern()
	return g, nil
}

// shut closes everything.
func (g *generator) shut() {
	g.deaf()
	for i := range g.conns {
		g.close(i, true)
	}
	unix.Close(g.ep)
}

// A generator is a loop on epoll in one thread: closed, so that an answer is what
// lets the next message go, or open, so that the clock is. It prepares, counts in one or
// several slices between which it does nothing, and finishes.
type generator struct {
	Figures
	ctx      context.Context
	over     atomic.Bool                   // ctx is: to ask that is cheap
	deaf     func() bool                   // to ctx
	used     func() (time.Duration, error) // the server's CPU time, or nil where its reports do
	w        Workload
	server   netip.AddrPort
	family   int
	to       unix.Sockaddr // the server
	ep       int
	mark     func() (Report, error)
	buf      []byte
	out      []byte // requests of a Custom, as they are written
	conns    []client
	events   [512]unix.EpollEvent
	got      func(i int, c *client, n int)
	counting bool
	draining bool          // nothing new is sent
	inFlight int           // messages
	moved    int64         // bytes, both ways
	timers   timers.Queue  // of a Custom
	paced    int           // messages that an open loop has sent since it began ...
	pacing   time.Duration // ... then
	limit    int           // of what is in flight in an open loop
	periods  [][]int64     // client.ends of the connections, in turn
	follower *follower     // of a surge, or nil
	open     int
	sources  int
	start    time.Time
	idle     time.Duration
	alone    bool          // on the one processor there is: the server may need it
	begun    bool          // to count, now or in a slice that is over
	rested   time.Duration // idle, in what is counted
	cpu      int64         // of this process
	busy     int64         // of the machine
	tasks    int64         // ... without interrupts
	finished int           // of a broadcast: who has the message
	stamped  stamped
	since    time.Duration // 1970, at start: what the kernel's times of arrival count from
	came     time.Duration // when what was read last came
}

// client is one connection.
type client struct {
	fd             int // 0: none
	base           int64
	ends           []int64 // where the messages of its period end; then it begins again
	sent, received int64
	due            int64 // bytes that may be sent, up to here
	times          []time.Duration
	writing        bool
	anchor         time.Duration
	talk           *talk
}

func (g *generator) now() time.Duration { return time.Since(g.start) }

// prepare connects, generates load for warm without counting, and begins.
func (g *generator) prepare(warm time.Duration) error {
	g.start = time.Now()
	switch g.w.Kind {
	case Stream:
		g.got = func(i int, c *client, n int) { c.received += int64(n) }
		return g.begin()
	case Idle:
		return g.prepareIdle()
	case Churn:
		g.got = g.gotChurn
	case Poems:
		g.got = g.gotPoem
	case Broadcast:
		g.got = g.gotBroadcast
	case Custom:
		g.got = g.gotTalk
	default:
		g.got = g.gotEcho
	}
	if err := g.connectAll(0, len(g.conns)); err != nil {
		return err
	}
	switch g.w.Kind {
	case Poems:
		if err := g.runUntilAll(func(c *client) bool { return c.received > 0 }); err != nil {
			return err
		}
	case Broadcast:
		// A member that is not there yet would miss the first message.
		if err := g.awaitOpen(); err != nil {
			return err
		}
		if err := g.run(20*time.Millisecond + time.Duration(len(g.conns))*50*time.Microsecond); err != nil {
			return err
		}
		g.allow(0, 1, g.now())
	case Echo, Mixed, Custom, Churn:
		g.launch()
	}
	if err := g.run(warm); err != nil {
		return err
	}
	if err := g.settle(); err != nil || len(g.Errors) > 0 {
		return err // it is no sample
	}
	return g.begin()
}

// slice generates load, and counts for d. Where something went wrong before it does nothing.
// One of several begins with lead, for the server to be at work again: what a turn begins with
// is dear for all, and for the runtime of Go above all, whose monitor begins to look often.
func (g *generator) slice(lead, d time.Duration) error {
	switch {
	case len(g.Errors) > 0:
		return nil
	case g.w.Kind == Idle:
		return g.fill()
	}
	if lead > 0 {
		if err := g.work(lead); err != nil || len(g.Errors) > 0 {
			return err
		}
	}
	server, err := g.serverCPU()
	if err != nil {
		return err
	}
	began, idle := g.now(), g.idle
	g.counting = true
	if g.w.Kind == Stream {
		err = g.stream()
	} else {
		err = g.work(d)
	}
	g.counting = false
	g.Wall, g.rested = g.Wall+g.now()-began, g.rested+g.idle-idle
	if err == nil {
		var now time.Duration
		now, err = g.serverCPU()
		g.CPU += now - server
	}
	return err
}

// work generates load for d, and then until nothing is in flight.
func (g *generator) work(d time.Duration) error {
	if g.w.echoes() {
		g.launch()
	}
	if err := g.run(d); err != nil {
		return err
	}
	return g.settle()
}

// serverCPU is the CPU time of the server, which has nothing to do, or 0 where only its reports
// tell that. What runs is charged at ticks and when it sleeps, so it is given time to fall
// asleep.
func (g *generator) serverCPU() (time.Duration, error) {
	if g.used == nil {
		return 0, nil
	}
	for end := g.now() + 200*time.Microsecond; g.now() < end; {
		if g.alone {
			runtime.Gosched()
		}
	}
	return g.used()
}

// finish gives the figures of what was counted, for d in all.
func (g *generator) finish(d time.Duration) (Figures, error) {
	if g.begun {
		if err := g.end(); err != nil {
			return Figures{}, err
		}
		if g.w.Surge > 0 && g.Units > 0 && len(g.Errors) == 0 {
			if err := g.overload(d); err != nil {
				return Figures{}, err
			}
		}
	}
	if g.Units == 0 && g.w.Kind != Idle {
		g.Errors["nothing happened"]++
	}
	return g.Figures, nil
}

// launch lets the first messages go, or starts the clock of an open loop.
func (g *generator) launch() {
	if g.w.Kind == Custom {
		g.launchTalks()
	}
	g.paced, g.pacing = 0, g.now()
	if g.w.Rate > 0 || g.w.Kind == Custom {
		return
	}
	for i := range g.conns {
		g.allow(i, g.w.Depth, g.now())
	}
}

// pace sends what the clock says was to be sent by now. Each message counts from
// the time at which it was to be sent, however late it is. It reports whether there
// were any.
func (g *generator) pace(now time.Duration) bool {
	due := int((now - g.pacing).Seconds() * g.w.Rate)
	before := g.paced
	for ; g.paced < due; g.paced++ {
		at := g.pacing + time.Duration(float64(g.paced+1)/g.w.Rate*float64(time.Second))
		i := g.paced % len(g.conns)
		c := &g.conns[i]
		if c.fd == 0 {
			continue
		}
		sent := g.inFlight < g.limit
		if g.follower != nil {
			g.follower.due(at, sent)
		}
		switch {
		case !sent:
			if g.counting {
				g.Unsent++
			}
		case c.talk != nil:
			g.want(c.talk, at)
			g.send(i)
		default:
			g.allow(i, 1, at)
		}
	}
	return g.paced > before
}

// begin and end are the edges of what is counted.
func (g *generator) begin() (err error) {
	g.Before, err = g.mark()
	g.begun, g.All = true, 0
	g.cpu, g.busy, g.tasks = cpuTime(), busyTime(), taskTime()
	return err
}

func (g *generator) end() (err error) {
	mine, busy, tasks := cpuTime()-g.cpu, busyTime()-g.busy, taskTime()-g.tasks
	g.After, err = g.mark()
	if g.Wall > 0 {
		server := 1000 * (g.After.CPU() - g.Before.CPU())
		g.GeneratorBusy = 1 - float64(g.rested)/float64(g.Wall)
		g.Others = max(0, float64(busy-mine-server)/float64(g.Wall))
		if g.After.MachineUS > 0 { // there are two machines
			g.GeneratorOthers = max(0, float64(tasks-mine)/float64(g.Wall))
			g.Others = max(0, float64(1000*(g.After.MachineUS-g.Before.MachineUS)-server)/float64(g.Wall))
		}
	}
	return err
}

// lostAfter is for how long nothing may move before what is in flight is lost:
// longer than the kernel takes to send again what a full receiver dropped.
var lostAfter = 10 * time.Second

// settle waits until every message is back, so that at both edges of
// what is counted nothing is in flight: CPU time and messages are then of the
// same work.
func (g *generator) settle() error {
	if !g.w.echoes() {
		return nil
	}
	g.draining = true
	if err := g.runWhile(5*time.Millisecond, func() bool { return g.inFlight > 0 && g.open > 0 }); err != nil {
		return err
	}
	g.draining = false
	if g.inFlight > 0 {
		g.Errors["messages lost"] += int64(g.inFlight)
		g.inFlight = 0
	}
	return nil
}

// runWhile generates load while there is something to wait for, until no byte moves any
// more. That is decided by how often the generator has looked, not by the clock:
// who was held up himself for so long has lost nothing.
func (g *generator) runWhile(look time.Duration, waiting func() bool) error {
	for before, idle := g.moved, time.Duration(0); waiting() && idle < lostAfter; idle += look {
		if err := g.run(look); err != nil {
			return err
		}
		if g.moved > before {
			before, idle = g.moved, 0
		}
	}
	return nil
}

// runUntilAll generates load until every connection is as it should be.
func (g *generator) runUntilAll(ready func(*client) bool) error {
	i := 0
	for end := g.now() + 20*time.Second; g.now() < end; {
		for i < len(g.conns) && ready(&g.conns[i]) {
			i++
		}
		if i == len(g.conns) {
			return nil
		}
		if err := g.run(time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("connection %d of %d was not served within 20 s", i+1, len(g.conns))
}

// awaitOpen waits until the server has all connections, if it tells how many it has. What
// a network loses can make that a second later than they are here.
func (g *generator) awaitOpen() error {
	for end := g.now() + 20*time.Second; ; {
		r, err := g.mark()
		if err != nil || r.Stats == nil || r.Stats.Open >= int64(len(g.conns)) {
			return err
		}
		if g.now() > end {
			return fmt.Errorf("the server had %d of %d connections within 20 s", r.Stats.Open, len(g.conns))
		}
		if err := g.run(time.Millisecond); err != nil {
			return err
		}
	}
}

// streamLimit is how long a stream may take.
var streamLimit = 5 * time.Minute

// stream has the whole of a Stream sent.
func (g *generator) stream() error {
	share := g.w.Total / int64(len(g.conns))
	began := g.now()
	if err := g.connectAll(0, len(g.conns)); err != nil {
		return err
	}
	over := func() bool { return g.now()-began > streamLimit }
	if err := g.runWhile(time.Millisecond, func() bool { return g.open > 0 && !over() }); err != nil {
		return err
	}
	if g.open > 0 && over() {
		return fmt.Errorf("%s was not over within %v", g.w, streamLimit)
	}
	for i := range g.conns {
		if n := share - g.conns[i].received; n != 0 {
			g.Errors["bytes lost"] += n
		}
	}
	delete(g.Errors, "end of stream") // which is how a stream ends
	g.Units = float64(share*int64(len(g.conns))) / (1 << 20)
	return nil
}

// prepareIdle has Before tell the memory without connections, after a few have been
// there.
func (g *generator) prepareIdle() error {
	g.got = func(_ int, c *client, n int) { c.received += int64(n) }
	some := min(few, len(g.conns))
	if err := g.greet(some); err != nil {
		return err
	}
	for i := range some {
		g.close(i, false)
	}
	time.Sleep(100 * time.Millisecond)
	return g.begin()
}

// fill makes all connections of an Idle, whose memory After tells.
func (g *generator) fill() error {
	if err := g.greet(len(g.conns)); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond)
	return nil
}

// greet has n connections echo one message each. They come a few at a time: the memory
// that a burst needs is not that of idleness.
func (g *generator) greet(n int) error {
	for from := 0; from < n; from += few {
		to := min(from+few, n)
		if err := g.connectAll(from, to); err != nil {
			return err
		}
		for i := from; i < to; i++ {
			g.allow(i, 1, g.now())
		}
		err := g.runUntilAll(func(c *client) bool { return c.received == c.due })
		if err != nil {
			return err
		}
	}
	return nil
}

// perSource is how many connections come from one source address on loopback: the
// ports of one would not do for more.
const perSource = 20_000

// few is how many connections are made at a time.
const few = 16

// connectAll makes the connections from one to another, the latter excluded, and waits
// until they are there.
func (g *generator) connectAll(from, to int) error {
	for i := from; i < to+few; i++ {
		if i < to {
			if err := g.connect(i); err != nil {
				return err
			}
		}
		if k := i - few; k >= from && k < to {
			if err := g.connected(k); err != nil {
				return fmt.Errorf("connect: %w", explainConnect(err, g.server, k == 0))
			}
		}
	}
	return nil
}

// connect begins connection i. Until it is there the socket takes no bytes.
func (g *generator) connect(i int) error {
	if g.over.Load() {
		return g.ctx.Err()
	}
	fd, err := unix.Socket(g.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %w; raise the limit of open files (ulimit -n)", err)
	}
	if manySources(g.server) {
		source := byte(1 + i/perSource)
		if g.w.Kind == Churn || g.conns[i].talk != nil {
			g.sources++
			source = byte(2 + g.sources%200)
		}
		if source > 1 {
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, source}})
		}
	}
	if err == nil {
		if err = unix.Connect(fd, g.to); err == unix.EINPROGRESS {
			err = nil
		}
		err = explainConnect(err, g.server, i == 0)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil && g.w.Kind == Poems {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	}
	if err == nil {
		err = unix.EpollCtl(g.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)})
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("connect: %w", err)
	}
	c := client{fd: fd, base: int64(i) * 9973, ends: g.periods[i%len(g.periods)]}
	switch g.w.Kind {
	case Custom:
		c.talk = g.conns[i].talk
	case Echo, Mixed, Churn, Idle:
		c.times = g.conns[i].times
		if c.times == nil {
			c.times = make([]time.Duration, g.w.Depth)
		}
	case Broadcast:
		c.base, c.times = 0, make([]time.Duration, 1)
	default:
		c.base = 0
	}
	g.conns[i] = c
	g.open++
	return nil
}

// connected waits until connection i is. Over a network a firewall might answer with silence;
// then its error is EINPROGRESS, after connectLimit.
func (g *generator) connected(i int) error {
	const look = 5 // ms, for ctx
	fd := g.conns[i].fd
	for end := time.Now().Add(connectLimit); !g.over.Load(); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, look)
		switch {
		case n > 0:
			errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && errno != 0 {
				err = unix.Errno(errno)
			}
			return err
		case err != nil && err != unix.EINTR: // which the runtime's signals cause
			return err
		case time.Now().After(end) && !manySources(g.server):
			return unix.EINPROGRESS
		}
	}
	return g.ctx.Err()
}

// close ends connection i, by a reset where there is no more to learn from it:
// that leaves nothing behind in the kernel.
func (g *generator) close(i int, reset bool) {
	c := &g.conns[i]
	if c.fd == 0 {
		return
	}
	if reset {
		unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	unix.Close(c.fd)
	c.fd = 0
	g.open--
}

// run generates load for d. It asks for events without ever sleeping: to wake a
// CPU that sleeps is dear, on virtual machines above all, and the server that
// wakes the generator would be charged for it. What it finds nothing to do in is
// its idle time. The end of ctx is an error.
func (g *generator) run(d time.Duration) error {
	asked := g.now()
	for end := asked + d; ; {
		if g.over.Load() {
			return g.ctx.Err()
		}
		due := min(asked, end)
		if !g.draining {
			sent := g.w.Rate > 0 && g.pace(due)
			if g.timers.Len() > 0 && g.fire(due) || sent {
				asked = g.now()
			}
		}
		if due == end || g.draining && g.inFlight == 0 {
			return nil
		}
		n, err := unix.EpollWait(g.ep, g.events[:], 0)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		now := g.now()
		if n <= 0 {
			g.idle += now - asked
			asked = now
			if g.alone {
				runtime.Gosched()
			}
			continue
		}
		if g.w.Kind == Poems {
			g.since = time.Duration(time.Now().UnixNano()) - now
		}
		for _, e := range g.events[:max(n, 0)] {
			i := int(e.Fd)
			c := &g.conns[i]
			if e.Events&unix.EPOLLOUT != 0 && c.fd != 0 {
				g.send(i)
			}
			if e.Events&^unix.EPOLLOUT != 0 && c.fd != 0 {
				g.receive(i)
			}
		}
		asked = g.now()
	}
}

func (g *generator) receive(i int) {
	c := &g.conns[i]
	var n int
	var err error
	if g.w.Kind == Poems {
		n, g.came, err = g.stamped.read(c.fd, g.buf)
	} else {
		n, err = read(c.fd, g.buf)
	}
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil:
		g.Errors[err.Error()]++
		g.close(i, true)
	case n == 0:
		g.Errors["end of stream"]++
		g.close(i, false)
	default:
		g.moved += int64(n)
		if !bytes.Equal(g.buf[:n], at(c.base+c.received, n)) {
			g.Errors["bytes wrong"] += int64(n)
		}
		g.got(i, c, n)
	}
}

// messages is how many whole ones there are in the first n bytes.
func (c *client) messages(n int64) int64 {
	period := c.ends[len(c.ends)-1]
	k := n / period * int64(len(c.ends))
	for rest, i := n%period, 0; rest >= c.ends[i]; i++ {
		k++
	}
	return k
}

// end is how many bytes the first k messages have.
func (c *client) end(k int64) int64 {
	n := int64(len(c.ends))
	bytes := k / n * c.ends[n-1]
	if k %= n; k > 0 {
		bytes += c.ends[k-1]
	}
	return bytes
}

// allow lets connection i send n more messages.
func (g *generator) allow(i, n int, now time.Duration) {
	c := &g.conns[i]
	due := c.messages(c.due)
	for flying := int(due - c.messages(c.received)); flying+n > len(c.times); {
		c.grow()
	}
	for k := range n {
		c.times[(int(due)+k)%len(c.times)] = now
	}
	c.due = c.end(due + int64(n))
	g.inFlight += n
	if !c.writing { // else its turn comes when there is room
		g.send(i)
	}
}

// grow makes room to remember twice as many messages in flight.
func (c *client) grow() {
	more := make([]time.Duration, 2*len(c.times))
	for k, end := c.messages(c.received), c.messages(c.due); k < end; k++ {
		more[int(k)%len(more)] = c.times[int(k)%len(c.times)]
	}
	c.times = more
}

func (g *generator) send(i int) {
	c := &g.conns[i]
	if c.talk != nil {
		g.sendTalk(i)
		return
	}
	for c.sent < c.due {
		n, err := write(c.fd, at(c.base+c.sent, int(min(c.due-c.sent, span))))
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			g.Errors[err.Error()]++
			g.close(i, true)
			return
		}
		c.sent += int64(n)
		g.moved += int64(n)
	}
	g.watch(i, c.sent < c.due)
}

// watch has epoll tell when connection i can be written to, or no longer.
func (g *generator) watch(i int, writing bool) {
	if c := &g.conns[i]; writing != c.writing {
		c.writing = writing
		events := uint32(unix.EPOLLIN)
		if writing {
			events |= unix.EPOLLOUT
		}
		unix.EpollCtl(g.ep, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Events: events, Fd: int32(i)})
	}
}

// greatest is the greatest latency that is told from a greater one.
const greatest = time.Hour

func (g *generator) count(latency time.Duration) {
	if g.counting {
		g.Units++
		g.Latency.RecordValue(int64(min(max(latency, 1), greatest)))
	}
}

func (g *generator) gotEcho(i int, c *client, n int) {
	done := c.messages(c.received)
	c.received += int64(n)
	more := int(c.messages(c.received) - done)
	if more == 0 {
		return
	}
	now := g.now()
	for k := range more {
		at := c.times[(int(done)+k)%len(c.times)]
		g.count(now - at)
		if g.follower != nil && at >= g.follower.began {
			g.follower.answered(at, now-at)
		}
	}
	g.inFlight -= more
	g.All += float64(more)
	if !g.draining && g.w.Rate == 0 {
		g.allow(i, more, now)
	}
}

func (g *generator) gotChurn(i int, c *client, n int) {
	if c.received += int64(n); c.received < c.ends[0] {
		return
	}
	now := g.now()
	g.count(now - c.times[0])
	g.close(i, !manySources(g.server))
	if err := g.connect(i); err != nil {
		g.Errors[err.Error()]++
		return
	}
	g.allow(i, 1, now)
}

// gotPoem takes for the beginning of a poem's schedule the one by which its
// chunks came earliest. A chunk has come when the kernel has it: that a busy
// generator reads it later is not the server's lateness.
func (g *generator) gotPoem(_ int, c *client, n int) {
	done := c.messages(c.received)
	c.received += int64(n)
	now := g.now()
	if g.came > 0 {
		now = min(now, g.came-g.since)
	}
	for k, end := done, c.messages(c.received); k < end; k++ {
		began := now - time.Duration(k)*g.w.Delay
		if k == 0 || began < c.anchor {
			c.anchor = began
		}
		g.count(began - c.anchor)
	}
}

func (g *generator) gotBroadcast(_ int, c *client, n int) {
	done := c.messages(c.received)
	c.received += int64(n)
	if c.messages(c.received) == done {
		return
	}
	now := g.now()
	g.count(now - g.conns[0].times[0])
	if g.finished++; g.finished == len(g.conns) {
		g.finished = 0
		g.allow(0, 1, now)
	}
}

// cpuTime is what this process has used, in nanoseconds.
func cpuTime() int64 {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// busyTime is what all processes of the machine have used, in nanoseconds, and what
// other machines of its host have taken from it (steal), as precisely as /proc/stat
// tells (10 ms); 0 where it does not.
func busyTime() int64 {
	tasks, interrupts := machineTime()
	return tasks + interrupts
}

// taskTime is busyTime without interrupts. Those of a network card are the work
// that is measured, though no process is charged for it.
func taskTime() int64 {
	tasks, _ := machineTime()
	return tasks
}

func machineTime() (tasks, interrupts int64) {
	var user, nice, system, idle, wait, irq, softirq, steal int64
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	if _, err := fmt.Sscanf(string(text), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq, &softirq, &steal); err != nil {
		return 0, 0
	}
	const tick = int64(10 * time.Millisecond)
	return (user + nice + system + steal) * tick, (irq + softirq) * tick
}

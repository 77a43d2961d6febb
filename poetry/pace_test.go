package poetry_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/poetry"
)

// A hall is what a Server recites in: a loop with a clock, of which a stage is
// the one connection. What is written is noted with the time, and time passes
// when the test says so.
type hall struct {
	couplet.Loop // nil: what is not below must not be called

	proto  couplet.Protocol
	now    time.Duration
	every  time.Duration // zero: stopped
	due    time.Duration
	tick   func()
	heard  bytes.Buffer
	sends  []string // "10@300ms"
	refuse error    // what Write answers
	skip   int      // ticks that the next one finds missed
	missed int
	ended  string // "fin@1s", "abort@1s", and all that comes then
}

func (h *hall) end(how string) {
	h.ended = strings.TrimPrefix(fmt.Sprintf("%s %s@%v", h.ended, how, h.now), " ")
}

func recite(s *poetry.Server) *hall {
	h := &hall{proto: s.Build(nil)}
	h.proto.ConnectionMade(stage{hall: h})
	return h
}

func (h *hall) note(p []byte) {
	h.heard.Write(p)
	h.sends = append(h.sends, fmt.Sprintf("%d@%v", len(p), h.now))
}

func (h *hall) Every(d time.Duration, f func()) couplet.Timer {
	h.every, h.due, h.tick = d, h.now+d, f
	return h
}

func (h *hall) Stop() bool {
	was := h.every > 0
	h.every = 0
	return was
}

func (h *hall) Reset(d time.Duration) bool {
	was := h.every > 0
	h.every, h.due = d, h.now+d
	return was
}

func (h *hall) Missed() int { return h.missed }

// pass lets time pass until d.
func (h *hall) pass(d time.Duration) {
	for h.every > 0 && h.due <= d {
		h.due += time.Duration(h.skip) * h.every
		h.now, h.missed, h.skip = h.due, h.skip, 0
		h.due += h.every
		h.tick()
	}
	h.now = d
}

// A stage is the hall's connection.
type stage struct {
	couplet.Transport // nil: what is not below must not be called
	hall              *hall
	muted             bool
}

func (s stage) Loop() couplet.Loop                    { return s.hall }
func (s stage) LocalAddr() net.Addr                   { return nil }
func (s stage) RemoteAddr() net.Addr                  { return nil }
func (s stage) SyscallConn() (syscall.RawConn, error) { return nil, couplet.ErrNotSupported }
func (s stage) Close() error                          { return nil }
func (s stage) Abort()                                { s.hall.end("abort") }

func (s stage) CloseWrite() error {
	s.hall.end("fin")
	s.hall.proto.(couplet.WriteClosedHandler).WriteClosed(s)
	return nil
}

func (s stage) Write(p []byte) (int, error) {
	if s.hall.refuse != nil {
		return 0, s.hall.refuse
	}
	if !s.muted {
		s.hall.note(p)
	}
	return len(p), nil
}

func (s stage) WriteBuffer(b *couplet.Buffer) error {
	_, err := s.Write(b.Bytes())
	return err
}

func slow(t *testing.T, text string, n int, d time.Duration) *poetry.Server {
	t.Helper()
	s, err := poetry.NewServer([]byte(text), poetry.Pace{NumBytes: n, Delay: d})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The original sends num-bytes, sleeps, and so on, and sleeps after the last
// send too: the end comes at ceil(n/num-bytes) delays.
func TestSlowServerKeepsTheOriginalsPace(t *testing.T) {
	const d = 100 * time.Millisecond
	for _, c := range []struct {
		bytes, num int
		sends      string
		end        string
	}{
		{0, 10, "", "fin@0s"},
		{1, 10, "1@0s", "fin@100ms"},
		{10, 10, "10@0s", "fin@100ms"},
		{11, 10, "10@0s 1@100ms", "fin@200ms"},
		{25, 10, "10@0s 10@100ms 5@200ms", "fin@300ms"},
		{3, 1, "1@0s 1@100ms 1@200ms", "fin@300ms"},
		{10000, 4096, "4096@0s 4096@100ms 1808@200ms", "fin@300ms"},
	} {
		text := strings.Repeat("poetry ", c.bytes/7+1)[:c.bytes]
		s := slow(t, text, c.num, d)
		h := recite(s)
		h.pass(time.Hour)
		if got := strings.Join(h.sends, " "); got != c.sends || h.ended != c.end || h.heard.String() != text {
			t.Errorf("%d bytes, %d at a time: %s, %s; want %s, %s", c.bytes, c.num, got, h.ended, c.sends, c.end)
		}
		if got := "fin@" + s.Pace().Duration(c.bytes).String(); got != c.end {
			t.Errorf("Pace.Duration says %s, want %s", got, c.end)
		}
	}
}

func TestTutorialsTimes(t *testing.T) {
	var sum time.Duration
	for _, c := range []struct {
		n, num int
		want   time.Duration
	}{{3003, 30, 10100 * time.Millisecond}, {623, 10, 6300 * time.Millisecond}, {653, 10, 6600 * time.Millisecond}} {
		d := poetry.Pace{NumBytes: c.num, Delay: 100 * time.Millisecond}.Duration(c.n)
		if d != c.want {
			t.Errorf("%d bytes take %v, want %v", c.n, d, c.want)
		}
		sum += d
	}
	if sum != 23*time.Second {
		t.Errorf("one after another they take %v, want 23s", sum)
	}
}

func TestFastServerSendsAllAtOnce(t *testing.T) {
	h := recite(poetry.NewFastServer([]byte("a poem")))
	if h.heard.String() != "a poem" || len(h.sends) != 1 || h.ended != "fin@0s" {
		t.Errorf("%v %s", h.sends, h.ended)
	}
}

func TestPausedPoemWaitsAndGoesOn(t *testing.T) {
	h := recite(slow(t, "abcdef", 2, time.Second))
	flow := h.proto.(couplet.WriteFlow)
	h.pass(1500 * time.Millisecond)
	flow.WritePaused(stage{hall: h})
	h.pass(10 * time.Second)
	if h.heard.String() != "abcd" {
		t.Fatalf("a paused poem went on: %v", h.sends)
	}
	flow.WriteResumed(stage{hall: h})
	h.pass(time.Minute)
	if got := strings.Join(h.sends, " "); got != "2@0s 2@1s 2@11s" || h.ended != "fin@12s" {
		t.Errorf("%s, %s", got, h.ended)
	}
}

// What a client takes late is told when the poem is over.
func TestPoemThatIsOverStaysOver(t *testing.T) {
	for name, s := range map[string]*poetry.Server{
		"slow": slow(t, "abcdef", 2, time.Second), "empty": slow(t, "", 2, time.Second), "fast": poetry.NewFastServer([]byte("abcdef")),
	} {
		h := recite(s)
		h.pass(5 * time.Second)
		over := h.ended
		if !strings.HasPrefix(over, "fin@") || h.heard.Len() != s.Len() {
			t.Errorf("%s: %q, %s", name, h.heard.String(), over)
		}
		flow := h.proto.(couplet.WriteFlow)
		flow.WritePaused(stage{hall: h})
		flow.WriteResumed(stage{hall: h})
		h.pass(time.Minute)
		if h.ended != over || h.every != 0 {
			t.Errorf("%s: %s", name, h.ended)
		}
	}
}

// A poem counts as taken if the kernel has it, and nothing cut it there.
func TestWhatCountsAsTaken(t *testing.T) {
	for _, c := range []struct {
		written bool
		reason  error
		taken   bool
	}{
		{true, nil, true},
		{true, io.EOF, true},
		{true, syscall.ECONNRESET, true},
		{true, couplet.ErrShutdown, false},
		{true, &couplet.EngineError{Engine: "uring", Err: syscall.EIO}, false},
		{false, io.EOF, false},
		{false, syscall.ECONNRESET, false},
	} {
		s := slow(t, "abcdef", 2, time.Second)
		var told error
		s.OnEnd = func(_ net.Addr, _ int, err error) { told = err }
		h := recite(s)
		if c.written {
			h.pass(time.Minute)
		}
		h.proto.ConnectionLost(stage{hall: h}, c.reason)
		began, whole, cut := s.Served()
		if taken := whole == 1; began != 1 || whole+cut != 1 || taken != c.taken || taken != (told == nil) {
			t.Errorf("%+v: %d whole, %d cut, and %v is told", c, whole, cut, told)
		}
	}
}

func TestFullQueueIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		text string
		size int
	}{
		{"abcdef", 2},
		{strings.Repeat("a", 4096) + strings.Repeat("b", 4096) + strings.Repeat("c", 4096), 4096},
	} {
		h := recite(slow(t, c.text, c.size, time.Second))
		h.refuse = couplet.ErrOutboundFull
		h.pass(2500 * time.Millisecond)
		h.refuse = nil
		h.pass(time.Minute)
		if h.heard.String() != c.text || h.ended != "fin@5s" {
			t.Errorf("%v, %s", h.sends, h.ended)
		}
	}
}

func TestFastPoemThatIsRefusedLooksCut(t *testing.T) {
	h := &hall{refuse: couplet.ErrOutboundFull}
	h.proto = poetry.NewFastServer([]byte("a poem")).Build(nil)
	h.proto.ConnectionMade(stage{hall: h})
	if h.ended != "abort@0s" {
		t.Errorf("%s, want abort", h.ended)
	}
}

func TestLostClientStopsItsClock(t *testing.T) {
	h := recite(slow(t, "abcdef", 2, time.Second))
	h.pass(time.Second)
	h.proto.ConnectionLost(stage{hall: h}, io.ErrUnexpectedEOF)
	if h.every != 0 {
		t.Error("the timer runs on")
	}
}

func TestChunksAreSentWithoutAllocation(t *testing.T) {
	for _, num := range []int{10, 4096} {
		h := &hall{proto: slow(t, strings.Repeat("x", 8<<20), num, time.Millisecond).Build(nil)}
		h.proto.ConnectionMade(stage{hall: h, muted: true})
		if n := testing.AllocsPerRun(1000, h.tick); n != 0 {
			t.Errorf("%v allocations for a chunk of %d, want none", n, num)
		}
	}
}

func TestPaceIsChecked(t *testing.T) {
	for _, p := range []poetry.Pace{{NumBytes: 0, Delay: 1}, {NumBytes: -1, Delay: 1}, {NumBytes: 10, Delay: -1}} {
		if _, err := poetry.NewServer(nil, p); err == nil {
			t.Errorf("%+v was taken", p)
		}
	}
}

// A poem was late for good by what its loop had missed: a loop that stalls for three
// delays made every poem of its clients three delays longer.
func TestAPoemMakesUpForWhatItsLoopMissed(t *testing.T) {
	text := strings.Repeat("0123456789", 10)
	large := strings.Repeat("x", 10*4096)
	for _, c := range []struct {
		text string
		size int
		want string
	}{
		{text, 10, "10@0s 10@100ms 40@500ms 10@600ms 10@700ms 20@900ms fin@1s"},
		{text[:45], 10, "10@0s 10@100ms 25@500ms fin@600ms"},
		{large, 4096, "4096@0s 4096@100ms 4096@500ms 4096@500ms 4096@500ms 4096@500ms 4096@600ms 4096@700ms 4096@900ms 4096@900ms fin@1s"},
	} {
		h := recite(slow(t, c.text, c.size, 100*time.Millisecond))
		h.pass(100 * time.Millisecond)
		h.skip = 3
		h.pass(700 * time.Millisecond)
		h.skip = 1
		h.pass(2 * time.Second)
		if got := strings.Join(append(h.sends, h.ended), " "); got != c.want {
			t.Errorf("%d bytes by %d:\n%s, want\n%s", len(c.text), c.size, got, c.want)
		}
		if h.heard.String() != c.text {
			t.Errorf("%d bytes by %d: the poem came out as %q", len(c.text), c.size, h.heard.String())
		}
	}
}

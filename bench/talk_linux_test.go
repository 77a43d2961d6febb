package bench_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/bench"
	"couplet/engines"
)

// pattern is what a Custom carries, by the description of its protocol.
var pattern = sync.OnceValue(func() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 65521)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	for len(p) < 2<<20 {
		p = append(p, p[:65521]...)
	}
	return p
})

func spec(request, response int64) *bench.Spec {
	return &bench.Spec{Name: "test", Request: bench.Dist{Constant: request}, Response: bench.Dist{Constant: response}}
}

func custom(t *testing.T, w bench.Workload) bench.Workload {
	t.Helper()
	w.Kind = bench.Custom
	w, err := w.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// An answering is a plain server of Customs that writes down what it was asked:
// for each connection the bytes of every request and answer, and when it came. spoil, where there is
// one, changes the answers.
type answering struct {
	net.Listener
	spoil func([]byte) []byte
	done  sync.WaitGroup

	mu    sync.Mutex
	more  sync.Cond
	conns [][][2]int
	came  [][]time.Time
}

func answer(t *testing.T, spoil func([]byte) []byte) *answering {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &answering{Listener: l, spoil: spoil}
	a.more.L = &a.mu
	a.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			a.mu.Lock()
			i := len(a.conns)
			a.conns, a.came = append(a.conns, nil), append(a.came, nil)
			a.more.Broadcast()
			a.mu.Unlock()
			a.done.Go(func() { a.serve(t, c, i) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		a.done.Wait() // Measure has closed its connections by now
	})
	return a
}

func (a *answering) serve(t *testing.T, c net.Conn, i int) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(c)
	for {
		var h [3]uint32
		if binary.Read(in, binary.LittleEndian, &h) != nil {
			return
		}
		body := make([]byte, h[0]-12)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if !bytes.Equal(body, pattern()[h[2]:][:len(body)]) {
			t.Error("a request has wrong bytes")
		}
		a.mu.Lock()
		a.conns[i], a.came[i] = append(a.conns[i], [2]int{int(h[0]), int(h[1])}), append(a.came[i], time.Now())
		a.mu.Unlock()
		p := slices.Clone(pattern()[h[2]:][:h[1]])
		if a.spoil != nil {
			p = a.spoil(p)
		}
		if _, err := c.Write(p); err != nil {
			return
		}
	}
}

// asked is what each connection was asked, once there were n connections.
func (a *answering) asked(t *testing.T, n int) [][][2]int {
	t.Helper()
	late := time.AfterFunc(patience, a.more.Broadcast)
	defer late.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	for begun := time.Now(); len(a.conns) < n; a.more.Wait() {
		if time.Since(begun) > patience {
			t.Fatalf("%d connections within %v, want %d", len(a.conns), patience, n)
		}
	}
	return slices.Clone(a.conns)
}

func measure(t *testing.T, w bench.Workload, a net.Addr, warm, d time.Duration) bench.Figures {
	t.Helper()
	f, err := bench.Measure(w, a.(*net.TCPAddr).Port, warm, d, func() (bench.Report, error) { return bench.Usage(nil), nil })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// served is w measured on an engine.
func served(t *testing.T, engine string, w bench.Workload, d time.Duration) bench.Figures {
	t.Helper()
	l, err := bench.Serve(opened(t, engine), w)
	if err != nil {
		t.Fatal(err)
	}
	return measure(t, w, l.Addr(), 10*time.Millisecond, d)
}

// Counts, bytes and the ledger come out right on every engine, whatever is thought,
// drawn and renewed meanwhile.
func TestCustomOnEveryEngine(t *testing.T) {
	mixed := bench.Dist{Choices: []bench.Choice{{Value: 1, Weight: 1}, {Value: 512, Weight: 9}, {Value: 300_000, Weight: 1}}}
	for _, engine := range engines.Names() {
		for name, w := range map[string]bench.Workload{
			"constant":     {Connections: 5, Spec: spec(200, 4096)},
			"least":        {Connections: 3, Depth: 50, Spec: spec(12, 1)},
			"large":        {Connections: 3, Depth: 2, Spec: spec(300_000, 400_000)},
			"drawn":        {Connections: 5, Depth: 3, Spec: &bench.Spec{Name: "test", Request: bench.Dist{Median: 200, P99: 90_000}, Response: mixed}},
			"torn header":  {Connections: 1, Depth: 2, Spec: spec(64<<10-5, 1)}, // by the end of what is written at once
			"ratio":        {Connections: 5, Spec: &bench.Spec{Name: "test", Request: bench.Dist{Min: 12, Max: 900}, Ratio: 1.5}},
			"short lives":  {Connections: 5, Spec: &bench.Spec{Name: "test", Request: bench.Dist{Constant: 200}, Response: mixed, Requests: bench.Dist{Min: 1, Max: 4}}},
			"pipelined":    {Connections: 3, Depth: 4, Spec: &bench.Spec{Name: "test", Request: bench.Dist{Constant: 200}, Response: mixed, Requests: bench.Dist{Constant: 6}}},
			"brief":        {Connections: 5, Spec: &bench.Spec{Name: "test", Request: bench.Dist{Constant: 200}, Response: mixed, Life: bench.Dist{Constant: int64(3 * time.Millisecond)}}},
			"thoughtful":   {Connections: 20, Depth: 2, Spec: &bench.Spec{Name: "test", Request: bench.Dist{Constant: 200}, Response: mixed, Think: bench.Dist{Mean: int64(2 * time.Millisecond)}, Requests: bench.Dist{Mean: 5}}},
			"by the clock": {Connections: 5, Rate: 3000, Spec: &bench.Spec{Name: "test", Request: bench.Dist{Constant: 200}, Response: bench.Dist{Constant: 100}, Requests: bench.Dist{Constant: 5}}},
		} {
			t.Run(engine+"/"+name, func(t *testing.T) {
				f := served(t, engine, custom(t, w), 50*time.Millisecond)
				if len(f.Errors) > 0 {
					t.Errorf("errors: %v", f.Errors)
				}
				if f.Units < 1 || f.Latency.TotalCount() != int64(f.Units) {
					t.Errorf("%v messages, %d latencies", f.Units, f.Latency.TotalCount())
				}
				if s := w.Spec; s.Request.Constant > 0 && s.Response.Constant > 0 && f.Bytes != int64(f.Units)*(s.Request.Constant+s.Response.Constant) {
					t.Errorf("%d bytes of %v messages", f.Bytes, f.Units)
				}
				if f.Bytes < int64(f.Units)*13 {
					t.Errorf("%d bytes of %v messages", f.Bytes, f.Units)
				}
				if most := w.Rate*.05 + 1; w.Rate > 0 && (f.Units < most-2 || f.Units > most) {
					t.Errorf("%v messages in 50 ms at %v a second", f.Units, w.Rate)
				}
			})
		}
	}
}

// Who pauses for 5 ms after each answer sends no request sooner than that after the
// one before it came.
func TestThinkTimeIsRespected(t *testing.T) {
	const think = 5 * time.Millisecond
	w := custom(t, bench.Workload{Connections: 1, Spec: spec(20, 30)})
	w.Spec.Think = bench.Dist{Constant: int64(think)}
	a := answer(t, nil)
	for i := 0; ; i++ {
		if f := measure(t, w, a.Addr(), 0, 50*time.Millisecond<<i); f.Errors["nothing happened"] == 0 && len(f.Errors) > 0 {
			t.Fatalf("errors: %v", f.Errors)
		}
		a.asked(t, i+1)
		a.mu.Lock()
		came := slices.Clone(a.came[i])
		a.mu.Unlock()
		if len(came) < 5 {
			continue // this machine has little time
		}
		// The first may be of the time before the measurement, which has pauses anew.
		for k := 2; k < len(came); k++ {
			if gap := came[k].Sub(came[k-1]); gap < think {
				t.Errorf("request %d came %v after the one before it, with a pause of %v", k, gap, think)
			}
		}
		return
	}
}

// No connection carries more requests than it lives for, and every one that has an
// heir has carried as many: but for the first of each phase, which are in the
// middle of their lives.
func TestConnectionsLiveForTheirRequests(t *testing.T) {
	const conns, life = 3, 5
	for _, rate := range []float64{0, 3000} {
		w := custom(t, bench.Workload{Connections: conns, Rate: rate, Spec: spec(20, 30)})
		w.Spec.Requests = bench.Dist{Constant: life}
		a := answer(t, nil)
		f := measure(t, w, a.Addr(), 10*time.Millisecond, 60*time.Millisecond)
		if len(f.Errors) > 0 {
			t.Errorf("errors: %v", f.Errors)
		}
		full, short, sum := 0, 0, 0
		for _, asked := range a.asked(t, conns) {
			switch sum += len(asked); {
			case len(asked) > life+life-1: // what was left of one phase, and what the next gave
				t.Errorf("a connection carried %d requests and lives for %d", len(asked), life)
			case len(asked) == life:
				full++
			default:
				short++
			}
		}
		if short > 4*conns || sum < int(f.Units) {
			t.Errorf("%d connections of %d carried another number than %d, %d requests in all of %v counted", short, short+full, life, sum, f.Units)
		}
	}
}

// A connection on which nothing happens is renewed when its time is over.
func TestConnectionsLiveForTheirTime(t *testing.T) {
	w := custom(t, bench.Workload{Connections: 3, Spec: spec(20, 30)})
	w.Spec.Think, w.Spec.Life = bench.Dist{Constant: int64(time.Hour)}, bench.Dist{Constant: int64(5 * time.Millisecond)}
	a := answer(t, nil)
	f := measure(t, w, a.Addr(), 0, 40*time.Millisecond)
	if f.Units != 0 || len(f.Errors) != 1 || f.Errors["nothing happened"] != 1 {
		t.Errorf("%v messages, errors %v", f.Units, f.Errors)
	}
	if n, most := len(a.asked(t, 6)), 3*(3+int(f.Wall/(5*time.Millisecond))); n > most {
		t.Errorf("%d connections in %v, want at most %d", n, f.Wall, most)
	}
}

// From one seed each connection draws the same, whoever answers and how fast.
func TestDrawsAreThoseOfTheSeed(t *testing.T) {
	sequence := func(seed uint64, slow time.Duration) [][2]int {
		w := custom(t, bench.Workload{Connections: 1, Depth: 2, Spec: &bench.Spec{
			Name: "test", Request: bench.Dist{Min: 12, Max: 1000}, Response: bench.Dist{Median: 100, P99: 5000},
		}})
		w.Seed = seed
		a := answer(t, func(p []byte) []byte {
			time.Sleep(slow)
			return p
		})
		for i := 0; ; i++ {
			measure(t, w, a.Addr(), 0, 20*time.Millisecond<<i)
			if all := a.asked(t, i+1)[i]; len(all) >= 6 {
				return all[:6]
			}
		}
	}
	one := sequence(7, 0)
	if again := sequence(7, time.Millisecond); !slices.Equal(one, again) {
		t.Errorf("from one seed %v and %v", one, again)
	}
	if other := sequence(8, 0); slices.Equal(one, other) {
		t.Errorf("from two seeds %v", one)
	}
}

// A server that lies in its answers is found out.
func TestWrongAnswersAreFound(t *testing.T) {
	for want, spoil := range map[string]func([]byte) []byte{
		"bytes wrong":   func(p []byte) []byte { p[len(p)/2]++; return p },
		"messages lost": func(p []byte) []byte { return p[:len(p)-1] },
		"bytes unasked": func(p []byte) []byte { return slices.Repeat(p, 2) }, // a whole period, so that no byte is wrong
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			w := custom(t, bench.Workload{Connections: 1, Spec: spec(20, 65521)})
			if f := measure(t, w, answer(t, spoil).Addr(), 0, 20*time.Millisecond); f.Errors[want] == 0 {
				t.Errorf("the ledger has %v, want %s", f.Errors, want)
			}
		})
	}
}

// request is one as the generator writes it.
func request(size, response, off uint32) []byte {
	p, _ := binary.Append(nil, binary.LittleEndian, [3]uint32{size, response, off})
	return append(p, pattern()[off:][:max(size, 12)-12]...)
}

// The server answers what is right and resets the connection where it is not.
func TestWrongRequestsAreFound(t *testing.T) {
	spoilt := request(50, 60, 70)
	spoilt[49]++
	for _, engine := range engines.Names() {
		t.Run(engine, func(t *testing.T) {
			e, err := engines.Open(engine, couplet.Config{})
			if err != nil {
				t.Skip(err)
			}
			defer func() {
				e.Stop()
				<-e.Done()
			}()
			l, err := bench.Serve(e, custom(t, bench.Workload{Spec: spec(12, 1)}))
			if err != nil {
				t.Fatal(err)
			}
			for name, bad := range map[string][]byte{
				"a byte": spoilt, "too short": request(11, 1, 0), "no answer": request(50, 0, 0),
				"a great answer": request(50, 1<<24+1, 0), "a place beyond": request(50, 1, 65521),
			} {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(patience))
				// In two parts, so that the header comes in two.
				good := request(100, 5000, 65000)
				c.Write(good[:5])
				c.Write(append(good[5:], request(12, 3, 7)...))
				got := make([]byte, 5003)
				if _, err := io.ReadFull(c, got); err != nil || !slices.Equal(got[:5000], pattern()[65000:][:5000]) || !slices.Equal(got[5000:], pattern()[7:10]) {
					t.Errorf("%s: the answer to a good request is wrong (%v)", name, err)
				}
				c.Write(bad)
				if n, err := c.Read(got); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s: %d bytes and %v, want a reset", name, n, err)
				}
				c.Close()
			}
		})
	}
}

// The examples that ship are what they say, and run.
func TestExampleWorkloads(t *testing.T) {
	files, err := filepath.Glob("workloads/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			w, err := bench.ReadWorkload(path)
			if err != nil {
				t.Fatal(err)
			}
			if w.Spec.Name+".yaml" != filepath.Base(path) {
				t.Errorf("it is called %s", w.Spec.Name)
			}
			w.Connections = min(w.Connections, 20)
			if f := served(t, "epoll", custom(t, w), 50*time.Millisecond); f.Units < 1 || len(f.Errors) > 0 {
				t.Errorf("%v messages, errors %v", f.Units, f.Errors)
			}
		})
	}
}

package poetry_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"couplet"
	"couplet/engines"
	"couplet/poetry"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onEach runs f on every engine that works here.
func onEach(t *testing.T, f func(t *testing.T, e couplet.Engine)) {
	for _, name := range engines.Names() {
		t.Run(name, func(t *testing.T) { f(t, start(t, name)) })
	}
}

// start opens an engine that is shut down, at once, when the test ends.
func start(t *testing.T, name string) couplet.Engine {
	t.Helper()
	e, err := engines.Open(name, couplet.Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e.Shutdown(ctx)
		await(t, "the engine's end", e.Done())
		if err := e.Err(); err != nil {
			t.Error(err)
		}
		if n := e.Stats().Panics; n > 0 && !strings.Contains(t.Name(), "ThatPanicked") {
			t.Errorf("%d panics; the log has them", n)
		}
	})
	return e
}

func await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("no sign of %s within %v", what, patience)
	}
	return v
}

// serve listens on a network, and returns where.
func serve(t *testing.T, e couplet.Engine, network string, f couplet.Factory, opts ...couplet.Option) poetry.Addr {
	t.Helper()
	address := "127.0.0.1:0"
	switch network {
	case "tcp6":
		address = "[::1]:0"
	case "unix":
		address = filepath.Join(t.TempDir(), "poem")
	}
	l, err := e.Listen(network, address, f, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return poetry.AddrOf(l.Addr())
}

// refused is an address where nobody listens, nor can another program's test meanwhile: it
// is that of a client, whose connection lasts as long as the test.
func refused(t *testing.T) poetry.Addr {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, poetry.AddrOf(l.Addr()))
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close(); l.Close() })
	return poetry.AddrOf(c.LocalAddr())
}

// dial is a blocking client's connection.
func dial(t *testing.T, a poetry.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(a.Network, a.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// blockingServer is a server as in the tutorial's first part: for each
// connection it calls f, one at a time, and closes.
func blockingServer(t *testing.T, f func(c net.Conn)) poetry.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		await(t, "the blocking server's end", done)
	})
	return poetry.AddrOf(l.Addr())
}

// text is n bytes to recite, with characters of one to three bytes.
func text(n int) []byte {
	const line = "è 登 poesia\n"
	return bytes.Repeat([]byte(line), n/len(line)+1)[:n]
}

// both ways to fetch poems.
var both = map[string]func(context.Context, couplet.Engine, []poetry.Addr, poetry.FetchOptions) poetry.Report{
	"all": poetry.FetchAll, "each": poetry.FetchEach,
}

func fetchAll(t *testing.T, e couplet.Engine, o poetry.FetchOptions, addrs ...poetry.Addr) poetry.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return poetry.FetchAll(ctx, e, addrs, o)
}

// readPoem is a blocking client as in the tutorial: it reads to the end.
func readPoem(t *testing.T, c net.Conn) []byte {
	t.Helper()
	p, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("after %d bytes: %v; want a clean end", len(p), err)
	}
	return p
}

// turns counts how often the arrivals change from one task to another.
func turns(arrivals []poetry.Arrival) int {
	n := 0
	for i := range arrivals {
		if i > 0 && arrivals[i].Task != arrivals[i-1].Task {
			n++
		}
	}
	return n
}

// checkWhole checks that the poems came whole.
func checkWhole(t *testing.T, r poetry.Report, poems [][]byte) {
	t.Helper()
	if r.Got() != len(poems) {
		t.Errorf("got %d poems, want %d", r.Got(), len(poems))
	}
	sum := 0
	for i, p := range r.Results {
		if p.Err != nil || !bytes.Equal(p.Poem, poems[i]) || p.Task != i+1 || p.Elapsed <= 0 {
			t.Errorf("task %d: %d bytes in %v, %v; want %d", p.Task, len(p.Poem), p.Elapsed, p.Err, len(poems[i]))
		}
		sum += len(p.Poem)
	}
	total := 0
	for _, a := range r.Arrivals {
		total += a.Bytes
	}
	if total != sum && r.Arrivals != nil {
		t.Errorf("arrivals of %d bytes for %d bytes of poems", total, sum)
	}
}

package poetry_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"couplet"
	"couplet/poetry"
)

// dials is an engine whose dials are the test's.
type dials struct {
	couplet.Engine
	dial func(ctx context.Context, network, address string, f couplet.Factory, opts ...couplet.Option) error
	done chan struct{} // nil: the engine's own
	err  error
}

func (e dials) Dial(ctx context.Context, network, address string, f couplet.Factory, opts ...couplet.Option) error {
	return e.dial(ctx, network, address, f, opts...)
}

func (e dials) Done() <-chan struct{} {
	if e.done == nil {
		return e.Engine.Done()
	}
	return e.done
}

func (e dials) Err() error { return e.err }

// An engine that fails tells only some of its users: the others end with its error.
func TestFetchesEndWithTheirEngine(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		broken := errors.New("the engine is broken")
		for _, err := range []error{broken, nil} {
			begun := 0
			failing := dials{Engine: e, done: make(chan struct{}), err: err}
			failing.dial = func(_ context.Context, _, _ string, f couplet.Factory, _ ...couplet.Option) error {
				switch begun++; begun {
				case 1:
					f.(couplet.ConnectFailedHandler).ConnectFailed("", net.ErrClosed)
				case 3:
					close(failing.done)
				}
				return nil
			}
			if err == nil {
				err = couplet.ErrEngineClosed
			}
			nowhere := poetry.Addr{Network: "tcp", Address: "nowhere"}
			for i, r := range fetchAll(t, failing, poetry.FetchOptions{}, nowhere, nowhere, nowhere).Results {
				if want := []error{net.ErrClosed, err, err}[i]; r.Err != want || r.Task != i+1 || r.Addr != nowhere {
					t.Errorf("%+v; want the error %v", r, want)
				}
			}
		}
	})
}

// A dial that is abandoned may come through all the same, and its connection is of no use; or
// fail by itself at that moment.
func TestADialThatWasAbandonedEndsWithTheCause(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		a := serve(t, e, "tcp", slow(t, string(text(1<<20)), 10, time.Hour))
		cause := errors.New("enough")
		for name, then := range map[string]func(network, address string, f couplet.Factory, opts ...couplet.Option){
			"comes through": func(network, address string, f couplet.Factory, opts ...couplet.Option) {
				e.Dial(context.Background(), network, address, f, opts...)
			},
			"fails": func(_, address string, f couplet.Factory, _ ...couplet.Option) {
				e.Loops()[0].Post(func() { f.(couplet.ConnectFailedHandler).ConnectFailed(address, net.ErrClosed) })
			},
		} {
			ctx, cancel := context.WithCancelCause(t.Context())
			late := dials{Engine: e}
			late.dial = func(ctx context.Context, network, address string, f couplet.Factory, opts ...couplet.Option) error {
				go func() {
					<-ctx.Done()
					then(network, address, f, opts...)
				}()
				return nil
			}
			r := poetry.FetchAll(ctx, late, []poetry.Addr{a}, poetry.FetchOptions{OnStart: func(int, poetry.Addr) { cancel(cause) }})
			if err := r.Results[0].Err; !errors.Is(err, cause) {
				t.Errorf("%s: %v; want the cause of the cancellation", name, err)
			}
		}
	})
}

func TestNoPoemsToFetch(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		for name, fetch := range both {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if r := fetch(ctx, e, nil, poetry.FetchOptions{}); len(r.Results) != 0 || r.Elapsed != 0 || ctx.Err() != nil {
				t.Errorf("%s: %+v", name, r)
			}
			cancel()
		}
	})
}

// What cannot be dialled at all is a result like others.
func TestAnAddressThatCannotBeDialled(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		good := serve(t, e, "tcp", poetry.NewFastServer(text(100)))
		r := fetchAll(t, e, poetry.FetchOptions{}, poetry.Addr{Network: "pigeon", Address: "home"}, good)
		if r.Results[0].Err == nil || errors.Is(r.Results[0].Err, context.DeadlineExceeded) || r.Results[1].Err != nil {
			t.Errorf("%v, %v", r.Results[0].Err, r.Results[1].Err)
		}
	})
}

func TestTimesOfFetches(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		a := serve(t, e, "tcp", slow(t, string(text(50)), 10, 2*time.Millisecond))
		for name, fetch := range both {
			began := time.Now()
			r := fetch(t.Context(), e, []poetry.Addr{a, a}, poetry.FetchOptions{Record: true})
			if took := time.Since(began); r.Elapsed <= 0 || r.Elapsed > took+patience {
				t.Errorf("%s: elapsed %v of %v", name, r.Elapsed, took)
			}
			var last time.Duration
			for _, at := range r.Arrivals {
				if at.At < last || at.At > r.Elapsed {
					t.Errorf("%s: at %v behind %v, of %v", name, at.At, last, r.Elapsed)
				}
				last = at.At
			}
			if r := fetch(t.Context(), e, []poetry.Addr{a}, poetry.FetchOptions{OnData: func(poetry.Arrival) {}}); len(r.Arrivals) > 0 {
				t.Errorf("%s: %d arrivals are kept, which nobody asked for", name, len(r.Arrivals))
			}
			if last == 0 {
				t.Errorf("%s: all poems came in no time", name)
			}
			var sum time.Duration
			for _, p := range r.Results {
				if p.Elapsed <= 0 || p.Elapsed > r.Elapsed {
					t.Errorf("%s: poem %d took %v of %v", name, p.Task, p.Elapsed, r.Elapsed)
				}
				sum += p.Elapsed
			}
			if name == "each" && sum > r.Elapsed {
				t.Errorf("one by one %v in %v", sum, r.Elapsed)
			}
		}
	})
}

// timing is an engine that tells of the timers of its first loop.
type timing struct {
	dials
	pending map[couplet.Timer]bool
}

func (e timing) Loops() []couplet.Loop { return []couplet.Loop{timed{e.Engine.Loops()[0], e.pending}} }

type timed struct {
	couplet.Loop
	pending map[couplet.Timer]bool
}

func (l timed) AfterFunc(d time.Duration, f func()) couplet.Timer {
	t := &stopped{l.Loop.AfterFunc(d, f), l.pending}
	l.pending[t] = true
	return t
}

type stopped struct {
	couplet.Timer
	pending map[couplet.Timer]bool
}

func (t *stopped) Stop() bool {
	t.pending[t] = false
	return t.Timer.Stop()
}

// A fetch that has ended leaves no timer behind, which would keep the poem.
func TestAFetchTakesItsTimeoutBack(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		left := timing{dials{Engine: e}, make(map[couplet.Timer]bool)}
		left.dial = func(_ context.Context, _, address string, f couplet.Factory, _ ...couplet.Option) error {
			if address == "refused" {
				f.(couplet.ConnectFailedHandler).ConnectFailed(address, net.ErrClosed)
				return nil
			}
			return errors.ErrUnsupported
		}
		fetchAll(t, left, poetry.FetchOptions{Timeout: patience}, poetry.Addr{Network: "tcp", Address: "refused"}, poetry.Addr{Network: "pigeon"})
		if len(left.pending) != 2 {
			t.Errorf("%d timers", len(left.pending))
		}
		for timer, pending := range left.pending {
			if pending {
				t.Error("a timer is left")
				timer.Stop()
			}
		}
	})
}

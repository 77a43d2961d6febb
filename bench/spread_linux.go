package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"text/tabwriter"
	"time"

	"couplet"
	"couplet/engines"
)

// spreads are the ways to spread connections, by the names that servers know.
var spreads = []struct {
	name string
	way  couplet.Spread
}{
	{"reuseport", couplet.ReusePort},
	{"roundrobin", couplet.RoundRobin},
	{"least", couplet.LeastConnections},
}

// Evenness makes conns connections to an engine with several loops and returns how
// many each loop got.
func Evenness(engine string, spread couplet.Spread, loops, conns int) ([]int, error) {
	e, err := engines.Open(engine, couplet.Config{Loops: loops, Spread: spread})
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e.Shutdown(ctx)
	}()
	made := make(chan int, conns)
	l, err := e.Listen("tcp", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return counted(made) }))
	if err != nil {
		return nil, err
	}
	for range conns {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		defer c.Close()
	}
	per := make([]int, loops)
	late := time.After(20 * time.Second)
	for range conns {
		select {
		case i := <-made:
			per[i]++
		case <-late:
			return nil, fmt.Errorf("of %d connections only %v were served", conns, per)
		}
	}
	return per, nil
}

// counted tells which loop it lives on.
type counted chan<- int

func (c counted) ConnectionMade(t couplet.Transport)      { c <- t.Loop().Index() }
func (c counted) DataReceived(couplet.Transport, []byte)  {}
func (c counted) ConnectionLost(couplet.Transport, error) {}

// WriteEvenness writes, for each engine and each way to spread, what the least and
// the most loaded of several loops got.
func WriteEvenness(out io.Writer, names []string, loops, conns int) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d connections on %d loops\tleast\tmost\tper loop\n", conns, loops)
	for _, name := range names {
		for _, s := range spreads {
			per, err := Evenness(name, s.way, loops, conns)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%s, %s\t%d\t%d\t%v\n", name, s.name, slices.Min(per), slices.Max(per), per)
		}
	}
	return w.Flush()
}

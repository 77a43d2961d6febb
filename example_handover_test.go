package couplet_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"couplet"
	"couplet/engines"
)

// served says who serves, and is done with the connection. A protocol whose conversation
// goes on has Draining, or Shutdown closes it at once.
type served string

func (s served) ConnectionMade(t couplet.Transport) {
	t.Write([]byte(s))
	t.Close()
}
func (s served) DataReceived(couplet.Transport, []byte)        {}
func (s served) ConnectionLost(t couplet.Transport, why error) {}

// A new version takes over while clients come. It would be a child process: what is
// File here is in its exec.Cmd.ExtraFiles, and os.NewFile(3, "listener") there.
func ExampleListener_file() {
	by := func(s string) couplet.Factory {
		return couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return served(s) })
	}
	old, err := engines.Open("auto", couplet.Config{})
	if err != nil {
		panic(err)
	}
	l, err := old.Listen("tcp", "127.0.0.1:0", by("the old version"))
	if err != nil {
		panic(err)
	}
	ask := func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			panic(err)
		}
		defer c.Close()
		answer, err := io.ReadAll(c)
		fmt.Println(string(answer), err)
	}
	ask()

	f, err := l.File()
	if err != nil {
		panic(err)
	}
	heir, err := engines.Open("auto", couplet.Config{})
	if err != nil {
		panic(err)
	}
	defer heir.Shutdown(context.Background())
	if _, err := heir.Listen("tcp", "", by("the new version"), couplet.FromFile(f)); err != nil {
		panic(err)
	}
	f.Close()

	// Only when the heir listens: accept no more, and serve to the end who was accepted.
	l.Close()
	<-l.Closed()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if cut, err := old.Shutdown(ctx); err != nil {
		fmt.Println(cut, err)
	}
	ask()
	// Output:
	// the old version <nil>
	// the new version <nil>
}

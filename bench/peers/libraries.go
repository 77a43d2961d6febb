package main

import (
	"context"
	"net"

	"github.com/cloudwego/netpoll"
	"github.com/lesismal/nbio"
	"github.com/lesismal/nbio/logging"
	"github.com/panjf2000/gnet/v2"
)

// gnetEcho is gnet's own way to echo: what was read is written from its buffer.
type gnetEcho struct {
	gnet.BuiltinEventEngine
	port int
}

func (e *gnetEcho) OnBoot(gnet.Engine) gnet.Action {
	ready(e.port)
	return gnet.None
}

func (e *gnetEcho) OnTraffic(c gnet.Conn) gnet.Action {
	b, err := c.Next(-1)
	if err != nil {
		return gnet.Close
	}
	if _, err := c.Write(b); err != nil {
		return gnet.Close
	}
	return gnet.None
}

func serveGnet(t task, l net.Listener) error {
	address, port := release(l)
	return gnet.Run(&gnetEcho{port: port}, "tcp://"+address, gnet.WithNumEventLoop(1))
}

func serveNbio(t task, l net.Listener) error {
	address, port := release(l)
	logging.SetLevel(logging.LevelError)
	e := nbio.NewEngine(nbio.Config{Network: "tcp", Addrs: []string{address}, NPoller: 1, LockPoller: true})
	// Write copies what the socket does not take at once.
	e.OnData(func(c *nbio.Conn, data []byte) { c.Write(data) })
	if err := e.Start(); err != nil {
		return err
	}
	ready(port)
	select {}
}

func serveNetpoll(t task, l net.Listener) error {
	if err := netpoll.Configure(netpoll.Config{PollerNum: 1}); err != nil {
		return err
	}
	loop, err := netpoll.NewEventLoop(func(_ context.Context, c netpoll.Connection) error {
		r, w := c.Reader(), c.Writer()
		b, err := r.Next(r.Len())
		if err != nil {
			return err
		}
		out, err := w.Malloc(len(b)) // of its own pool
		if err != nil {
			return err
		}
		copy(out, b)
		r.Release()
		return w.Flush()
	})
	if err != nil {
		return err
	}
	ready(l.Addr().(*net.TCPAddr).Port)
	return loop.Serve(l)
}

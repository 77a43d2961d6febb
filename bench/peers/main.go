// Command peers serves the workloads of package bench with other engines: gnet,
// nbio, netpoll, and package net by itself. It is a module of its own so that
// couplet depends on none of them.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"time"
)

// task is what the command line asks for.
type task struct {
	kind  string
	size  int
	depth int
	delay time.Duration
	total int64

	buffer int  // what net reads at a time; zero: all that can be in flight
	splice bool // net leaves the bytes in the kernel
}

func main() {
	var t task
	peer := flag.String("peer", "net", "gnet, nbio, netpoll or net")
	flag.StringVar(&t.kind, "kind", "echo", "what to serve")
	flag.IntVar(&t.size, "size", 64, "bytes per message or chunk")
	flag.IntVar(&t.depth, "depth", 1, "messages in flight on a connection")
	flag.DurationVar(&t.delay, "delay", 0, "time between chunks")
	flag.Int64Var(&t.total, "total", 0, "bytes to each reader of a stream")
	flag.IntVar(&t.buffer, "buffer", 0, "bytes that net reads at a time (all that can be in flight by default)")
	flag.BoolVar(&t.splice, "splice", false, "net copies with io.Copy, which has the kernel splice")
	flag.Int("connections", 64, "connections to expect")
	flag.Parse()
	serve := map[string]func(task, net.Listener) error{"net": serveNet, "netpoll": serveNetpoll, "gnet": serveGnet, "nbio": serveNbio}[*peer]
	if serve == nil || *peer != "net" && t.kind != "echo" {
		fmt.Fprintf(os.Stderr, "there is no %s server of %s\n", t.kind, *peer)
		os.Exit(2)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		go func() {
			err := serve(t, l)
			fmt.Fprintln(os.Stderr, *peer, "ended:", err)
			os.Exit(1)
		}()
		answer()
		return
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// release closes l and returns its address, for libraries that want to listen
// themselves.
func release(l net.Listener) (address string, port int) {
	address, port = l.Addr().String(), l.Addr().(*net.TCPAddr).Port
	l.Close()
	return address, port
}

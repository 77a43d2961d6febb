package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// serveNet is what a Go program does without any library: a goroutine per
// connection and blocking calls.
func serveNet(t task, l net.Listener) error {
	serve := map[string]func(net.Conn, task){"echo": echo, "slow-poems": poem, "stream": stream, "broadcast": broadcast, "custom": custom}[t.kind]
	ready(l.Addr().(*net.TCPAddr).Port)
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			serve(c, t)
		}()
	}
}

func echo(c net.Conn, t task) {
	if t.splice {
		io.Copy(c, c)
		return
	}
	size := t.buffer
	if size == 0 { // it knows its clients
		size = min(max(t.size*t.depth, 1024), 64<<10)
	}
	buf := make([]byte, size)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// pattern is what package bench expects of poems and streams.
var pattern = sync.OnceValue(func() []byte { return makePattern(patternPeriod * 4) })

// poem sends by a schedule that a late chunk does not shift.
func poem(c net.Conn, t task) {
	text := pattern()
	begin := time.Now()
	for k := 0; ; k++ {
		at := k * t.size % patternPeriod
		if _, err := c.Write(text[at : at+t.size]); err != nil {
			return
		}
		time.Sleep(time.Until(begin.Add(time.Duration(k+1) * t.delay)))
	}
}

func stream(c net.Conn, t task) {
	for left, text := t.total, pattern(); left > 0; {
		n := min(left, int64(len(text)))
		if _, err := c.Write(text[:n]); err != nil {
			return
		}
		left -= n
	}
}

// custom answers requests as package bench has them in dialogue.go: a header of
// three numbers, then the pattern. What is not right is reset. Answers leave together
// when no more requests have come.
func custom(c net.Conn, t task) {
	reset := func() { c.(*net.TCPConn).SetLinger(0) }
	const header, most = 12, 1 << 24
	text := pattern()
	in, out := bufio.NewReaderSize(c, 4096), bufio.NewWriterSize(c, 4096)
	for {
		h, err := in.Peek(header)
		if err != nil {
			return
		}
		request, response := int(binary.LittleEndian.Uint32(h)), int(binary.LittleEndian.Uint32(h[4:]))
		place := int(binary.LittleEndian.Uint32(h[8:]))
		if request < header || request > most || response < 1 || response > most || place >= patternPeriod {
			reset()
			return
		}
		in.Discard(header)
		for left, off := request-header, place; left > 0; {
			if _, err := in.Peek(1); err != nil {
				return
			}
			p, _ := in.Peek(min(left, in.Buffered()))
			if !bytes.Equal(p, text[off:][:len(p)]) {
				reset()
				return
			}
			in.Discard(len(p))
			left, off = left-len(p), (off+len(p))%patternPeriod
		}
		for left, off := response, place; left > 0; {
			p := text[off:][:min(left, len(text)-off)]
			if _, err := out.Write(p); err != nil {
				return
			}
			left, off = left-len(p), (off+len(p))%patternPeriod
		}
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

var members = struct {
	sync.Mutex
	all map[net.Conn]bool
}{all: map[net.Conn]bool{}}

// broadcast sends each message that comes in to everybody.
func broadcast(c net.Conn, t task) {
	members.Lock()
	members.all[c] = true
	members.Unlock()
	buf := make([]byte, t.size)
	for at := 0; ; {
		n, err := c.Read(buf[at:])
		if err != nil {
			break
		}
		if at += n; at == t.size {
			at = 0
			members.Lock()
			for m := range members.all {
				m.Write(buf)
			}
			members.Unlock()
		}
	}
	members.Lock()
	delete(members.all, c)
	members.Unlock()
}

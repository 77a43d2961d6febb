//go:build unix

package classic

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"couplet"
)

// Who was out of descriptors was not told what to do about it.
func TestNoDescriptorHadNoRemedy(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	told := make(attempt, 1)
	l := listen(t, e, "tcp4", "127.0.0.1:0", always(newScript())) // package net asks the system what there is once
	dialTo(t, l.Addr()).Close()
	l.Close()
	receive(t, l.Closed(), "end of the listener")
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 1
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	_, err := e.Listen("tcp4", "127.0.0.1:0", told)
	if e := e.Dial(context.Background(), "tcp4", "127.0.0.1:1", told); e != nil {
		t.Fatal(e)
	}
	for op, err := range map[string]error{"listen": err, "dial": receive(t, told, "outcome of the dial")} {
		var failed *net.OpError
		if !errors.Is(err, syscall.EMFILE) || !errors.As(err, &failed) || failed.Op != op || !failed.Temporary() ||
			!strings.HasSuffix(err.Error(), ": socket: too many open files; raise `ulimit -n` (LimitNOFILE= in systemd)") {
			t.Errorf("%s: %v", op, err)
		}
	}
}

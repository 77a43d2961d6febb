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
	"couplet/internal/testpeer"
)

// Who was out of descriptors was not told what to do about it.
func TestNoDescriptorHadNoRemedy(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	told := make(testpeer.Attempt, 1)
	l := listen(t, e, "tcp4", "127.0.0.1:0", always(newScript())) // package net asks the system what there is once
	dialTo(t, l.Addr()).Close()
	l.Close()
	receive(t, l.Closed(), "end of the listener")
	var refused, dialled error
	testpeer.WithoutDescriptors(t, func() {
		_, refused = e.Listen("tcp4", "127.0.0.1:0", told)
		if e := e.Dial(context.Background(), "tcp4", "127.0.0.1:1", told); e != nil {
			t.Fatal(e)
		}
		dialled = receive(t, told, "outcome of the dial")
	})
	for op, err := range map[string]error{"listen": refused, "dial": dialled} {
		var failed *net.OpError
		if !errors.Is(err, syscall.EMFILE) || !errors.As(err, &failed) || failed.Op != op || !failed.Temporary() ||
			!strings.HasSuffix(err.Error(), ": socket: too many open files; raise `ulimit -n` (LimitNOFILE= in systemd)") {
			t.Errorf("%s: %v", op, err)
		}
	}
}

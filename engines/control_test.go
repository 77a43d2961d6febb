package engines_test

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"time"

	"couplet"
	"couplet/engines"
	"couplet/internal/testpeer"
)

// A panic of Control in a dial ended the process on the goroutine engine; on the others it
// lost the socket, and the Factory heard of it after the ConnectTimeout.
func TestControlPanicked(t *testing.T) {
	for _, name := range engines.Names() {
		t.Run(name, func(t *testing.T) {
			e, err := engines.Open(name, couplet.Config{})
			if err != nil {
				t.Skip(err)
			}
			defer e.Shutdown(context.Background())
			l, err := e.Listen("tcp", "127.0.0.1:0", make(testpeer.Attempt, 1))
			if err != nil {
				t.Fatal(err)
			}
			panics := couplet.Control(func(uintptr) error { panic(fs.ErrInvalid) })
			if l, err := e.Listen("tcp", "127.0.0.1:0", make(testpeer.Attempt, 1), panics); !isPanic(err) {
				t.Errorf("Listen gave %v, %v", l, err)
			}
			outcome := make(testpeer.Attempt, 1)
			if err := e.Dial(context.Background(), "tcp", l.Addr().String(), outcome, panics); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-outcome:
				if !isPanic(err) {
					t.Errorf("the dial ended with %v", err)
				}
			case <-time.After(20 * time.Second): // less than the ConnectTimeout
				t.Error("nobody was told")
			}
		})
	}
}

func isPanic(err error) bool {
	var p *couplet.PanicError
	return errors.As(err, &p) && errors.Is(err, fs.ErrInvalid) && len(p.Stack) > 0
}

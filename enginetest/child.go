package enginetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"couplet"
)

// Some cases need a process of their own: to lower its limits, or to see it
// die. The test binary is started again with childRole set, to run the same
// test; Run then plays the role instead of the cases.
const childRole = "COUPLET_ENGINETEST_CHILD"

// childRoles are what a child may do. in and out are the parent's pipes.
var childRoles = map[string]func(t *testing.T, s Suite, network string, in *bufio.Scanner, out io.Writer){
	"starve": starveRole,
	"crash":  crashRole,
}

// runChild plays a role if it was meant for this suite.
func runChild(t *testing.T, s Suite, role string) {
	name, rest, _ := strings.Cut(role, "|")
	role, network, _ := strings.Cut(rest, "|")
	if name == s.Name {
		childRoles[role](t, s, network, bufio.NewScanner(os.Stdin), os.Stdout)
	}
}

// A child is a process that plays a role.
type child struct {
	e      *Env
	in     io.WriteCloser
	out    *bufio.Scanner
	stderr bytes.Buffer
	end    func() error // ends it and gives its exit status; may be called again
}

// start starts a child.
func (e *Env) start(role string) *child {
	c := &child{e: e}
	run := "^" + strings.ReplaceAll(e.suite.test, "/", "$/^") + "$"
	cmd := exec.CommandContext(e.ctx, os.Args[0], "-test.run="+run)
	cmd.Env = append(os.Environ(), childRole+"="+e.suite.Name+"|"+role+"|"+e.network)
	cmd.Stderr = &c.stderr
	in, err := cmd.StdinPipe()
	e.check(err, "a pipe")
	out, err := cmd.StdoutPipe()
	e.check(err, "a pipe")
	e.check(cmd.Start(), "starting the test again")
	c.in, c.out = in, bufio.NewScanner(out)
	c.end = sync.OnceValue(func() error {
		in.Close()
		kill := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		for c.out.Scan() {
		}
		return cmd.Wait()
	})
	e.cleanup(func() { c.end() })
	return c
}

// ask sends a line to the child, unless it is empty, and reads its answer.
func (c *child) ask(line string) string {
	if line != "" {
		fmt.Fprintln(c.in, line)
	}
	for c.out.Scan() {
		// The test binary's own words are not for us.
		if answer, ok := strings.CutPrefix(c.out.Text(), "> "); ok {
			return answer
		}
	}
	c.e.Fatalf("the child has ended: %v\n%s", c.out.Err(), c.stderr.String())
	return ""
}

// roleEngine makes the engine of a child.
func roleEngine(t *testing.T, s Suite, cfg couplet.Config) couplet.Engine {
	eng := s.Server(t, cfg)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		eng.Shutdown(ctx)
	})
	return eng
}

// starveRole echoes within a limit of 64 descriptors and tells, when asked,
// what it has used and done.
func starveRole(t *testing.T, s Suite, network string, in *bufio.Scanner, out io.Writer) {
	if err := setFileLimit(64); err != nil {
		t.Fatal(err)
	}
	eng := roleEngine(t, s, couplet.Config{})
	address := "127.0.0.1:0"
	switch network {
	case "tcp6":
		address = "[::1]:0"
	case "unix":
		dir, err := os.MkdirTemp("", "enginetest")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		address = dir + "/s"
	}
	var accepted atomic.Int64
	l, err := eng.Listen(network, address, couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
		accepted.Add(1)
		return echoProtocol{}
	}))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(out, "> %s\n", l.Addr())
	for in.Scan() {
		fmt.Fprintf(out, "> %d %d %d\n", cpuTime().Nanoseconds(), accepted.Load(), eng.Stats().AcceptErrors)
	}
}

// echoProtocol is a server without a recorder.
type echoProtocol struct{}

func (echoProtocol) ConnectionMade(couplet.Transport)            {}
func (echoProtocol) DataReceived(t couplet.Transport, p []byte)  { t.Write(p) }
func (echoProtocol) ConnectionLost(_ couplet.Transport, _ error) {}

// crashRole has a panic in a callback that ends the process.
func crashRole(t *testing.T, s Suite, _ string, in *bufio.Scanner, out io.Writer) {
	eng := roleEngine(t, s, couplet.Config{OnPanic: couplet.PanicCrashes})
	fmt.Fprintln(out, "> ready")
	eng.Loops()[0].Post(func() { panic("a crash that was asked for") })
	in.Scan()
	t.Error("the process survived a panic that should end it")
}

func panicCrashes(e *Env) {
	c := e.start("crash")
	c.ask("")
	for c.out.Scan() {
	}
	var exit *exec.ExitError
	if err := c.end(); !errors.As(err, &exit) || exit.ExitCode() != 2 { // a test that fails exits with 1
		e.Errorf("with PanicCrashes the process did not end of a panic, but with %v", err)
	}
	if text := c.stderr.String(); !strings.Contains(text, "a crash that was asked for") || !strings.Contains(text, "goroutine") {
		e.Errorf("the process ended without the panic and its stack:\n%s", text)
	}
}

//go:build linux

// Package netpair joins two network namespaces by a pair of virtual cards, for tests of
// what two machines say to each other. Each has a loopback of its own and one card, and
// reaches nothing else. They share the kernel, its clock and the CPUs. A pair is for root,
// and made by the command ip of iproute2.
package netpair

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// A Host is one end of a pair.
type Host struct {
	// Card is the name of its card; the other end's has another name and index.
	Card string
	// Its addresses. LinkLocal has Card as its zone, which only this end knows. Where
	// there is no IPv6, the last two are the zero Addr.
	IPv4, IPv6, LinkLocal netip.Addr

	t         testing.TB
	namespace string
}

var made atomic.Int64

// New makes a pair, which t's end takes away. It skips t where that is not possible.
func New(t testing.TB) (near, far *Host) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the command ip: apt-get install iproute2")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	name := fmt.Sprintf("couplet-%d-%d-", os.Getpid(), made.Add(1))
	near = &Host{Card: "near0", IPv4: netip.MustParseAddr("198.18.0.1"), t: t, namespace: name + "near"}
	far = &Host{Card: "far0", IPv4: netip.MustParseAddr("198.18.0.2"), t: t, namespace: name + "far"}
	for _, h := range []*Host{near, far} {
		h.try("ip netns add " + h.namespace)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", h.namespace).Run() })
	}
	near.try(fmt.Sprintf("ip link add %s index 11 netns %s type veth peer name %s index 12 netns %s",
		near.Card, near.namespace, far.Card, far.namespace))
	for i, h := range []*Host{near, far} {
		h.IP("link set lo up")
		h.IP(fmt.Sprintf("addr add %v/30 dev %s", h.IPv4, h.Card))
		six := false
		h.Do(func() {
			// No address that comes by itself, and comes late; none that goes by itself.
			settings := "/proc/sys/net/ipv6/conf/" + h.Card
			six = os.WriteFile(settings+"/addr_gen_mode", []byte("1"), 0) == nil &&
				os.WriteFile(settings+"/keep_addr_on_down", []byte("1"), 0) == nil
		})
		if six {
			h.IPv6 = netip.MustParseAddr(fmt.Sprintf("2001:2::%d", i+1))
			h.LinkLocal = netip.MustParseAddr(fmt.Sprintf("fe80::%d%%%s", i+1, h.Card))
			for _, a := range []netip.Addr{h.IPv6, h.LinkLocal.WithZone("")} {
				h.IP(fmt.Sprintf("addr add %v/64 dev %s nodad", a, h.Card))
			}
		}
		h.Plug()
	}
	return near, far
}

// try runs a command that not every machine allows.
func (h *Host) try(line string) {
	h.t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		h.t.Skipf("%s: %v: %s", line, err, out)
	}
}

// IP runs the command ip there, with words, of which none has a space.
func (h *Host) IP(words string) {
	h.t.Helper()
	out, err := exec.Command("ip", append([]string{"-n", h.namespace}, strings.Fields(words)...)...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("ip %s: %v: %s", words, err, out)
	}
}

// Unplug takes the card down: what is on its way is lost, and nobody is told.
func (h *Host) Unplug() { h.IP("link set " + h.Card + " down") }

// Plug brings the card up.
func (h *Host) Plug() { h.IP("link set " + h.Card + " up") }

// Command is a command that runs there.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.namespace, name}, args...)...)
}

// Do calls f on a thread that is there, and returns when f has. What f opens and starts
// by itself is there too; its goroutines are not.
func (h *Host) Do(f func()) {
	h.t.Helper()
	done := make(chan error)
	go func() {
		// The thread ends with this goroutine, which never unlocks it.
		runtime.LockOSThread()
		namespace, err := os.Open("/run/netns/" + h.namespace)
		defer func() { done <- err }()
		if err != nil {
			return
		}
		defer namespace.Close()
		if err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		h.t.Errorf("to the namespace %s: %v", h.namespace, err)
	}
}

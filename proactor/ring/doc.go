// Package ring is the boundary to the kernel's io_uring interface: it opens a ring, hands out
// submission entries, enters the kernel, shows completion entries, and registers buffer rings. It
// knows nothing of connections or protocols.
//
// # Basics
//
//	caps, err := ring.Probe()                      // once per process; err says what to change
//	r, err := ring.OpenForCaps(1024, 8192, caps)   // on the loop's locked thread
//	s := r.SQE()                                   // nil: the queue is full, Submit and ask again
//	s.Read(fd, addr, 8)
//	s.UserData = 42
//	err = r.Wait(time.Second, 1)                   // submit and wait
//	for n := r.Ready(); i < n; i++ { c := r.CQE(i); ... }
//	r.Advance(n)
//
// There are two bindings behind the one type [Ring]. The native one stands on golang.org/x/sys/unix
// and is the default. The other stands on github.com/pawelgaczynski/giouring and is chosen with
//
//	go build -tags giouring -ldflags=-checklinkname=0
//
// (that module reaches into package syscall by linkname, which the Go linker refuses since 1.23
// unless told otherwise). [Binding] tells which one was built in. Both fill submission entries with
// the preparations of this package, and both pass the same tests.
//
// # Caveats
//
// A Ring belongs to the thread that opened it: lock the goroutine to its thread first, and call
// every method from there. The kernel answers EEXIST to any other thread.
//
// The kernel keeps addresses that the garbage collector cannot see. Whatever an entry points at
// must not be on a goroutine's stack (stacks move) and must stay reachable and unmoved until the
// kernel is done with it: payloads, and the target of a read, until the operation's final
// completion; a Msghdr with its iovec, and a socket address, until the entry was consumed (see
// [Ring.Queued]). Memory from mmap, or a heap object that is stored in another heap object before
// its address is taken, satisfies this.
//
// A multishot operation has ended when a completion comes without [CQEFMore], whatever its result.
//
// On platforms other than Linux on amd64, arm64, riscv64 or loong64 only [Caps], [Probe], [SetupError] and
// [Binding] exist.
package ring

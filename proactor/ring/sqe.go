//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package ring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// SQE is a submission entry in the kernel's layout (struct io_uring_sqe, 64 bytes). [Ring.SQE]
// hands it out zeroed; exactly one of the preparations below fills it, then the caller sets
// UserData, and Flags or IoPrio bits where it wants more. It is the kernel's from the next Submit,
// Poll or Wait on, and must not be touched after that.
//
// A preparation stores addresses as numbers: it keeps nothing reachable and makes nothing escape to
// the heap. See the package comment for what may be pointed at, and for how long.
type SQE struct {
	Opcode, Flags         uint8
	IoPrio                uint16
	Fd                    int32
	Off, Addr             uint64
	Len, OpFlags          uint32
	UserData              uint64
	BufGroup, Personality uint16
	SpliceFd              int32
	Addr3, pad            uint64
}

// CQE is a completion entry in the kernel's layout (struct io_uring_cqe, 16 bytes). Res is the
// result, or a negative errno; Flags are the CQEF bits.
type CQE struct {
	UserData uint64
	Res      int32
	Flags    uint32
}

// BufferID is the id of the provided buffer that the kernel picked. It means something only with
// CQEFBuffer.
func (c *CQE) BufferID() uint16 { return uint16(c.Flags >> CQEBufferShift) }

// Nop does nothing and completes with 0.
func (s *SQE) Nop() { s.Opcode, s.Fd = OpNop, -1 }

// AcceptMultishot accepts connections on fd until it ends: each completion is a new descriptor with
// flags (SOCK_CLOEXEC, SOCK_NONBLOCK) set. Running out of descriptors ends it with -EMFILE; the
// backlog is kept.
func (s *SQE) AcceptMultishot(fd int, flags uint32) {
	s.Opcode, s.Fd, s.IoPrio, s.OpFlags = OpAccept, int32(fd), AcceptMulti, flags
}

// Accept accepts one connection as AcceptMultishot does.
func (s *SQE) Accept(fd int, flags uint32) {
	s.Opcode, s.Fd, s.OpFlags = OpAccept, int32(fd), flags
}

// Recv receives once, at most n bytes to addr. With MSG_DONTWAIT it says -EAGAIN where there are
// none. CQEFSockNonempty says of TCP that there is more, bytes or the end.
func (s *SQE) Recv(fd int, addr unsafe.Pointer, n uint32, msgFlags uint32) {
	// The address becomes a number here; the caller keeps the memory alive and off the stack.
	s.Opcode, s.Fd, s.Addr, s.Len, s.OpFlags = OpRecv, int32(fd), uint64(uintptr(addr)), n, msgFlags
}

// RecvMultishot receives from fd into buffers of the group until it ends. Res 0 is the end of a
// stream; -ENOBUFS says that the group is empty: publish buffers first, then arm again.
func (s *SQE) RecvMultishot(fd int, group uint16) {
	s.Opcode, s.Fd, s.IoPrio, s.Flags, s.BufGroup = OpRecv, int32(fd), RecvMulti, SQEFBufferSelect, group
}

// RecvSelect receives once, into a buffer of the group, as RecvMultishot does.
func (s *SQE) RecvSelect(fd int, group uint16) {
	s.Opcode, s.Fd, s.Flags, s.BufGroup = OpRecv, int32(fd), SQEFBufferSelect, group
}

// Send sends n bytes at addr, which must not change before the completion. Always pass
// MSG_NOSIGNAL; without MSG_WAITALL it may send less.
func (s *SQE) Send(fd int, addr unsafe.Pointer, n uint32, msgFlags uint32) {
	// The address becomes a number here; the caller keeps the memory alive and off the stack.
	s.Opcode, s.Fd, s.Addr, s.Len, s.OpFlags = OpSend, int32(fd), uint64(uintptr(addr)), n, msgFlags
}

// SendZC sends as Send does, without copying: what the network still has of the n bytes must not
// change before it lets go of them, which is a completion of its own, the last, with CQEFNotif. The
// one before it has the result, and CQEFMore, even where the send failed. Without CQEFMore it is
// the last. Where the kernel had to copy all the same, as on loopback, the last has NotifCopied
// (Linux 6.2). Sockets that cannot do it say -EOPNOTSUPP, and -ENOMEM stands for the memlock limit.
func (s *SQE) SendZC(fd int, addr unsafe.Pointer, n uint32, msgFlags uint32) {
	s.Send(fd, addr, n, msgFlags)
	s.Opcode, s.IoPrio = OpSendZC, SendZCReportUsage
}

// SendMsg sends what msg describes. The header, its iovec and its address may be reused once the
// entry was consumed; the payload once it completed.
func (s *SQE) SendMsg(fd int, msg *unix.Msghdr, msgFlags uint32) {
	// The address becomes a number here; the caller keeps the header alive and off the stack.
	s.Opcode, s.Fd, s.Addr, s.Len, s.OpFlags = OpSendMsg, int32(fd), uint64(uintptr(unsafe.Pointer(msg))), 1, msgFlags
}

// Connect connects fd to the raw socket address of n bytes, which may be reused once the entry was
// consumed.
func (s *SQE) Connect(fd int, sockaddr unsafe.Pointer, n uint32) {
	// The address becomes a number here; the caller keeps the sockaddr alive and off the stack.
	s.Opcode, s.Fd, s.Addr, s.Off = OpConnect, int32(fd), uint64(uintptr(sockaddr)), uint64(n)
}

// Read reads up to n bytes at the descriptor's current position (an eventfd, a pipe, a file) into
// addr, which is the kernel's until the completion.
func (s *SQE) Read(fd int, addr unsafe.Pointer, n uint32) {
	// The address becomes a number here; the caller keeps the memory alive and off the stack.
	s.Opcode, s.Fd, s.Addr, s.Len, s.Off = OpRead, int32(fd), uint64(uintptr(addr)), n, ^uint64(0)
}

// PollAdd completes once, with the ready events, when fd is ready for any of mask (POLLIN and so on).
func (s *SQE) PollAdd(fd int, mask uint32) {
	s.Opcode, s.Fd, s.OpFlags = OpPollAdd, int32(fd), mask
}

// PollMultishot completes each time fd becomes ready for any of mask, until it ends. It tells of
// changes: read until EAGAIN after each.
func (s *SQE) PollMultishot(fd int, mask uint32) {
	s.Opcode, s.Fd, s.OpFlags, s.Len = OpPollAdd, int32(fd), mask, PollAddMulti
}

// CancelFD cancels everything in flight on fd. Res is the number of operations found, 0 if none;
// each of them still has its own final completion. Never use it after fd was closed: the number may
// be somebody else's by then.
func (s *SQE) CancelFD(fd int) {
	s.Opcode, s.Fd, s.OpFlags = OpAsyncCancel, int32(fd), CancelFd|CancelAll
}

// CancelUserData cancels one operation with that UserData: Res is 0, -ENOENT (none), or -EALREADY
// (too late, it is running).
func (s *SQE) CancelUserData(ud uint64) {
	s.Opcode, s.Fd, s.Addr = OpAsyncCancel, -1, ud
}

// Close closes fd. Operations in flight on it go on: cancel them first.
func (s *SQE) Close(fd int) { s.Opcode, s.Fd = OpClose, int32(fd) }

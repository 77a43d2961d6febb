//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package ring

import "unsafe"

// The numbers below are the kernel's, from include/uapi/linux/io_uring.h. They are our own because
// golang.org/x/sys/unix has none of them.

// Setup flags, for [Config].
const (
	SetupCQSize       uint32 = 1 << 3  // always added by Open
	SetupClamp        uint32 = 1 << 4  // always added by Open
	SetupRDisabled    uint32 = 1 << 6  // 5.10
	SetupSubmitAll    uint32 = 1 << 7  // 5.18: a bad entry does not stop the batch
	SetupCoopTaskrun  uint32 = 1 << 8  // 5.19
	SetupTaskrunFlag  uint32 = 1 << 9  // 5.19
	SetupSingleIssuer uint32 = 1 << 12 // 6.0
	SetupDeferTaskrun uint32 = 1 << 13 // 6.1, needs SetupSingleIssuer

	// setupSupported are the flags whose ring layout and thread rules both bindings follow.
	setupSupported = SetupCQSize | SetupClamp | SetupRDisabled | SetupSubmitAll | SetupCoopTaskrun |
		SetupTaskrunFlag | SetupSingleIssuer | SetupDeferTaskrun
)

// Feature bits, see [Ring.Features].
const (
	FeatSingleMmap   uint32 = 1 << 0  // 5.4
	FeatNoDrop       uint32 = 1 << 1  // 5.5: the kernel keeps completions that do not fit the queue
	FeatSubmitStable uint32 = 1 << 2  // 5.5: what an entry points at is copied when it is consumed
	FeatExtArg       uint32 = 1 << 8  // 5.11: waits take a timeout
	FeatBundle       uint32 = 1 << 14 // 6.10

	// featNeeded is what Open insists on: without these the methods' contracts do not hold.
	featNeeded = FeatSingleMmap | FeatNoDrop | FeatSubmitStable | FeatExtArg
)

// Operations, for [SQE].
const (
	OpNop         uint8 = 0
	OpPollAdd     uint8 = 6
	OpSendMsg     uint8 = 9
	OpRecvMsg     uint8 = 10
	OpAccept      uint8 = 13
	OpAsyncCancel uint8 = 14
	OpConnect     uint8 = 16
	OpClose       uint8 = 19
	OpRead        uint8 = 22
	OpWrite       uint8 = 23
	OpSend        uint8 = 26
	OpRecv        uint8 = 27
	OpShutdown    uint8 = 34
	OpSocket      uint8 = 45 // 5.19
	OpSendZC      uint8 = 47 // 6.0
	OpSendMsgZC   uint8 = 48 // 6.1
)

// Flags of an entry (SQE.Flags).
const (
	SQEFLink         uint8 = 1 << 2
	SQEFAsync        uint8 = 1 << 4
	SQEFBufferSelect uint8 = 1 << 5
	SQEFSkipSuccess  uint8 = 1 << 6 // 5.17: no completion entry on success
)

// Flags of single operations: IoPrio for accept, receive and send, Len for poll, OpFlags for cancel.
const (
	AcceptMulti uint16 = 1 << 0 // 5.19

	RecvSendPollFirst uint16 = 1 << 0 // 5.19: the socket is known to be not ready
	RecvMulti         uint16 = 1 << 1 // 6.0
	RecvSendBundle    uint16 = 1 << 4 // 6.10
	SendZCReportUsage uint16 = 1 << 3 // 6.2

	PollAddMulti uint32 = 1 << 0 // 5.13

	CancelAll uint32 = 1 << 0 // 5.19
	CancelFd  uint32 = 1 << 1 // 5.19
	CancelAny uint32 = 1 << 2 // 5.19
)

// Flags of a completion (CQE.Flags).
const (
	CQEFBuffer       uint32 = 1 << 0 // the upper 16 bits are a buffer id, see CQEBufferShift
	CQEFMore         uint32 = 1 << 1 // the operation is still armed; without it it has ended
	CQEFSockNonempty uint32 = 1 << 2 // the socket had more to read
	CQEFNotif        uint32 = 1 << 3 // a zero-copy send lets go of its memory
	CQEFBufMore      uint32 = 1 << 4 // an incremental buffer is not used up yet (6.12)

	// NotifCopied is the result of a CQEFNotif of what was copied after all (6.2).
	NotifCopied int32 = -1 << 31

	// CQEBufferShift is where in CQE.Flags the buffer id starts.
	CQEBufferShift = 16
)

// Operations of [Ring.Register].
const (
	RegisterProbe       uint32 = 8
	RegisterEnableRings uint32 = 12
	RegisterRingFDs     uint32 = 20 // 5.18
	UnregisterRingFDs   uint32 = 21 // 5.18
	RegisterPbufRing    uint32 = 22
	UnregisterPbufRing  uint32 = 23
	RegisterPbufStatus  uint32 = 26 // 6.8
)

const (
	pbufIncremental uint16 = 2 // IOU_PBUF_RING_INC

	sqCQOverflow uint32 = 1 << 1 // IORING_SQ_CQ_OVERFLOW
)

// setupParams is struct io_uring_params.
type setupParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFd uint32

	_     [3]uint32
	sqOff sqOffsets
	cqOff cqOffsets
}

// sqOffsets is struct io_sqring_offsets.
type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32

	userAddr uint64
}

// cqOffsets is struct io_cqring_offsets.
type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32

	userAddr uint64
}

// timespec is struct __kernel_timespec: 64-bit on every platform.
type timespec struct{ sec, nsec int64 }

// geteventsArg is struct io_uring_getevents_arg.
type geteventsArg struct {
	sigmask     uint64
	sigmaskSize uint32
	_           uint32 // minWaitUsec, from 6.12
	ts          uint64
}

// bufReg is struct io_uring_buf_reg.
type bufReg struct {
	ringAddr    uint64
	ringEntries uint32
	bgid, flags uint16
	_           [3]uint64
}

// bufEntry is struct io_uring_buf. The last field of entry 0 is the tail of the whole ring.
type bufEntry struct {
	addr     uint64
	len      uint32
	bid, end uint16
}

// probeOps is struct io_uring_probe with room for every operation.
type probeOps struct {
	lastOp, opsLen uint8
	_              uint16
	_              [3]uint32
	ops            [256]struct {
		op, _ uint8
		flags uint16
		_     uint32
	}
}

// ringUpdate is struct io_uring_rsrc_update, of one ring: data is its descriptor.
type ringUpdate struct {
	offset, _ uint32
	data      uint64
}

// opSupported is IO_URING_OP_SUPPORTED.
const opSupported = 1 << 0

// The layouts are the kernel's; each line fails to compile if a size drifts.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(SQE{})-64]
	_ = [1]struct{}{}[unsafe.Sizeof(CQE{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(setupParams{})-120]
	_ = [1]struct{}{}[unsafe.Sizeof(geteventsArg{})-24]
	_ = [1]struct{}{}[unsafe.Sizeof(bufReg{})-40]
	_ = [1]struct{}{}[unsafe.Sizeof(bufEntry{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(ringUpdate{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(probeOps{})-(16+256*8)]
)

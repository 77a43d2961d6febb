package bench

import "couplet"

// A Report is one line of the control protocol between the runner and a
// server. A server prints one with its Port once it listens, and one with its
// usage for each line that it reads on standard input ("gc" asks for two garbage
// collections and for memory to be given back first). It ends with its input.
type Report struct {
	// Port is the port that it listens on, in the first line only.
	Port int `json:"port,omitempty"`
	// Engine describes the server, in the first line only.
	Engine string `json:"engine,omitempty"`
	// UserUS and SystemUS are the CPU microseconds of the process so far.
	UserUS   int64 `json:"user_us"`
	SystemUS int64 `json:"system_us"`
	// Mallocs is the number of objects allocated so far, of Go programs.
	Mallocs uint64 `json:"mallocs,omitempty"`
	// RSS is the resident memory in bytes.
	RSS int64 `json:"rss_bytes"`
	// Voluntary and Involuntary count context switches.
	Voluntary   int64 `json:"voluntary_switches"`
	Involuntary int64 `json:"involuntary_switches"`
	// Crossings counts system calls for I/O, where the server counts them.
	Crossings int64 `json:"crossings,omitempty"`
	// MachineUS is the CPU microseconds of all processes of the machine so far,
	// where that is not the generator's.
	MachineUS int64 `json:"machine_us,omitempty"`
	// Workers is how many worker threads io_uring has made for what it could not do
	// at once.
	Workers int `json:"io_workers,omitempty"`
	// KernelCrossings is the system calls of the engine's loops by the kernel's
	// count, where that was asked for; NotCounted says why it is not there.
	KernelCrossings int64  `json:"kernel_crossings,omitempty"`
	NotCounted      string `json:"not_counted,omitempty"`
	// Stats are the counters of a couplet engine.
	Stats *couplet.Stats `json:"stats,omitempty"`
}

// CPU is the microseconds of both kinds.
func (r Report) CPU() int64 { return r.UserUS + r.SystemUS }

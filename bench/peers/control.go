package main

import (
	"bufio"
	"encoding/json"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// report is one line of the control protocol, as package bench reads it.
type report struct {
	Port        int    `json:"port,omitempty"`
	UserUS      int64  `json:"user_us"`
	SystemUS    int64  `json:"system_us"`
	Mallocs     uint64 `json:"mallocs"`
	RSS         int64  `json:"rss_bytes"`
	Voluntary   int64  `json:"voluntary_switches"`
	Involuntary int64  `json:"involuntary_switches"`
}

// ready tells the port.
func ready(port int) { json.NewEncoder(os.Stdout).Encode(report{Port: port}) }

// answer writes a report for each line on standard input, until it ends.
func answer() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "gc" {
			runtime.GC()
			runtime.GC()
			debug.FreeOSMemory()
		}
		var u syscall.Rusage
		var m runtime.MemStats
		syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		runtime.ReadMemStats(&m)
		json.NewEncoder(os.Stdout).Encode(report{
			UserUS:      u.Utime.Nano() / 1000,
			SystemUS:    u.Stime.Nano() / 1000,
			Mallocs:     m.Mallocs,
			RSS:         resident(),
			Voluntary:   int64(u.Nvcsw),
			Involuntary: int64(u.Nivcsw),
		})
	}
}

func resident() int64 {
	b, _ := os.ReadFile("/proc/self/statm")
	if f := strings.Fields(string(b)); len(f) > 1 {
		n, _ := strconv.ParseInt(f[1], 10, 64)
		return n * int64(os.Getpagesize())
	}
	return 0
}

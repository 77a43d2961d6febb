//go:build !linux

package engines

// kernelRelease is not known here.
func kernelRelease() string { return "" }

// openFiles is not known here.
func openFiles() Limit { return Limit{} }

// lockedMemory does not matter here.
func lockedMemory() Limit { return Limit{} }

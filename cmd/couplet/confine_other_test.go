//go:build !linux

package main

// confined is for Linux.
func confined() bool { return false }

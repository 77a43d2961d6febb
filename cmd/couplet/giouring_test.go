//go:build giouring

package main

// The command under test has the binding that the test was built with.
func init() { buildFlags = append(buildFlags, "-tags=giouring", "-ldflags=-checklinkname=0") }

//go:build !race

package main

// buildFlags build the command as the tests are built.
var buildFlags []string

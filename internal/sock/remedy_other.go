//go:build !unix

package sock

// acceptRemedy knows none here.
func acceptRemedy(error) string { return "" }

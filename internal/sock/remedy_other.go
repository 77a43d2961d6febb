//go:build !unix

package sock

// Here no remedies are known.

func remedy(error) string       { return "" }
func acceptRemedy(error) string { return "" }

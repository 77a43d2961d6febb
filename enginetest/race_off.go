//go:build !race

package enginetest

// raceEnabled says that everything is slower and that bulk cases move less.
const raceEnabled = false

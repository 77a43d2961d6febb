//go:build linux && !race && !couplet_debug

package loop

// checked says that misuse of a Transport off its loop is looked for.
const checked = false

// Package poetry is what the slow-poetry tutorial teaches with, on a
// couplet.Engine: servers that send a poem a few bytes at a time, clients that
// fetch several poems at once, an echo server, and eight poems.
//
// # Basics
//
// The wire has no framing: a client connects and sends nothing, the server
// sends the poem's bytes and then closes its half. A FIN means "that was the
// whole poem". [Server] and [Echo] are couplet.Factories for Engine.Listen;
// [FetchAll] and [FetchEach] fetch. [ParseAddr] reads the addresses that people
// type, [Poems] are the poems that ship.
//
// # Caveats
//
//   - Because a FIN is the only sign of success, a cut poem must end in a
//     reset. A Server arranges that even for its own death: until the last byte
//     and the FIN are with the kernel, its TCP sockets have SO_LINGER 0, so that a
//     killed process resets them. Unix sockets know no such option; there a killed
//     server looks like a finished one.
//   - Bytes are bytes: a character may be split across two arrivals. Decode a
//     poem when it is whole.
//   - The package imports couplet only and runs on every engine.
package poetry

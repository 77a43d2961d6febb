// Package loop is the half of an event loop that every engine shares: the life
// of a connection, its outbound queue, listeners, dials, timers and posted
// work, written once as a state machine that thinks in completions. Below it an
// engine implements a [Driver], the half that talks to the kernel.
//
// # Who owns what, and for how long
//
//   - A descriptor belongs to its [Conn] or [Listener] from the moment the
//     driver reports it (Accepted) or the loop makes it (a dial). Only the driver
//     closes a Conn's descriptor, inside Close; only the loop closes a
//     Listener's, after AcceptStopped. In between nobody else may.
//   - A slot belongs to its Conn from newConn until the driver reports Closed.
//     Closed promises that the kernel holds nothing of the Conn: no operation,
//     no buffer. Only then is the slot given to another Conn, with the next
//     generation, so a stale completion or Handle never reaches a stranger.
//   - A [Segment] belongs to its Conn's queue from Write until Sent has
//     consumed its last byte, or until Closed. While a send is in flight the
//     bytes it covers do not change; bytes may be appended behind them in the
//     same block, which never moves. A shared Buffer is retained for just as long.
//   - Received bytes belong to the driver and are lent for the length of the
//     report. Who needs them longer calls Keep: the Buffer that this gives is a
//     piece of the driver's [Block], which is not received into again until
//     every piece was released and the kernel is done with it. Other receives
//     go on into the rest of the block, or into another one.
//   - A Conn itself is a heap object that is never reused. The loop drops its
//     references to it, and its reference to the Protocol, when ConnectionLost
//     returns.
//
// # One turn
//
// Completed I/O (reports from inside Wait), WritePaused for those whom the last
// flush left above the mark, due timers, functions posted before this turn,
// connections that were set back, then a flush of every connection that was
// written to. Driver methods never report from inside the call, so a callback
// is never entered from a call that a callback makes.
package loop

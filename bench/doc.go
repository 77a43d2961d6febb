// Package bench measures engines against each other: couplet's own, other Go
// libraries (module bench/peers) and C programs (bench/c), on the same work in
// the same rounds.
//
// # Basics
//
// A [Workload] is what is done, a [Candidate] is who does it, a [Plan] is which
// workloads, candidates and rounds. [Plan.Run] starts each server as a process
// of its own on one CPU, generates the load from this process on another, and
// gives a [Result] with every sample and a [Manifest]:
//
//	plan := bench.Plan{
//		Workloads:  []bench.Workload{{Kind: bench.Echo, Connections: 64, Size: 64}},
//		Candidates: []string{"uring", "epoll", "gnet"},
//		Baseline:   "gnet",
//	}
//	result, err := plan.Run(ctx, os.Stderr)
//
// [ReadWorkload] reads a workload of one's own from a file.
//
// [Result.Verdict] says in a sentence what came of it, [Result.WriteTable],
// [Result.WriteMarkdown] and [Result.WriteHTML] write reports, and
// [Result.WriteComparison] compares two results.
//
// On one machine the two share its memory and its caches, and no network card is
// there. With an [Agent] on another machine, and a [Remote] from [Dial] in the Plan,
// the servers run there and the generator here.
//
// A program that runs a Plan or an Agent must call [ServerMain] where it was started with
// the argument "server": that is how it serves for its own engines.
// [Serve] and [Measure] are the two halves without processes, for tests.
//
// # Caveats
//
//   - The main figure is the server's CPU time per message. On one machine the
//     generator saturates first, so throughput flatters everybody; a sample
//     whose generator was busy for more than 80 % is marked client-bound.
//   - Compare ratios of one run. Absolute figures drift.
//   - Every payload is compared byte for byte. A sample with an entry in its
//     error ledger is no sample.
//   - It needs Linux: CPU affinity, and epoll in the generator.
package bench

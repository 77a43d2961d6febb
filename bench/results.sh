#!/usr/bin/env bash
# results.sh measures everything that RESULTS.md tells, and writes that file, its
# samples (results.json), the example report (docs/report.html) and the report's
# samples (report.json). It takes about half an hour; nothing else should run on the
# machine meanwhile. Named parts alone are measured anew: table, steered, nets, loops, evenness,
# ladder, report. With "write" nothing is, and the files are made anew from the samples.
# steered sets where loopback receives, which takes root, and puts it back. The table in the
# README is by hand: go test ./bench says what it must be.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(mktemp -d)
trap 'rm -r "$bin"' EXIT
go build -o "$bin/" ./bench/run ./cmd/couplet
run=$bin/run
for part in ${*:-table steered nets loops evenness ladder report}; do
  case $part in
  table)
    "$run" --table --candidates uring,epoll,gnet,net,c-uring,c-epoll --rounds "${ROUNDS:-9}" --duration "${DURATION:-500ms}" --json bench/results.json
    ;;
  steered)
    mask=/sys/class/net/lo/queues/rx-0/rps_cpus
    was=$(cat $mask)
    (
      trap 'echo "$was" > $mask' EXIT
      echo 2 > $mask # the generator's CPU
      "$run" --workload slow-poems --connections 10000 --candidates uring,epoll,net,c-uring,c-epoll \
        --server-cpu 0 --generator-cpu 1 --baseline net --rounds 9 --duration 500ms 2>/dev/null > bench/results-steered.txt
    )
    ;;
  loops)
    "$run" --candidates uring,uring-x2,uring-x2-rr,uring-x2-least,epoll,epoll-x2,epoll-x2-rr,epoll-x2-least \
      --baseline uring --connections 64 --rounds 5 --duration 500ms 2>/dev/null > bench/results-loops.txt
    ;;
  nets)
    for shape in "--size 4096 --depth 16" "--size 65536"; do
      "$run" --candidates uring,epoll,net,net-16k,net-4k,net-splice,c-uring,c-epoll \
        --baseline net --connections 64 $shape --rounds 9 --duration 500ms 2>/dev/null
    done > bench/results-nets.txt
    ;;
  evenness) "$run" --evenness > bench/results-evenness.txt ;;
  ladder)
    for shape in "64 --size 64" "1000 --size 64" "64 --size 65536"; do
      "$run" --candidates uring,uring-oneshot,uring-u2,uring-u3,uring-batched,uring-registered,uring-zerocopy,epoll,epoll-edge \
        --baseline epoll --connections $shape --rounds 9 --duration 300ms 2>/dev/null
    done > bench/results-ladder.txt
    ;;
  report) "$bin/couplet" bench --json bench/report.json --html docs/report.html ;;
  write) "$run" --from bench/report.json --html docs/report.html >/dev/null ;;
  *)
    echo "results.sh: there is no part $part; want table, steered, nets, loops, evenness, ladder, report or write" >&2
    exit 2
    ;;
  esac
done
"$run" --from bench/results.json --markdown "$bin/table.md" >/dev/null
{
  cat bench/results-head.md "$bin/table.md"
  printf '\n## Ten thousand poems, steered\n\nWith what arrives on loopback processed on the CPU of the generator, as the client'\''s machine would: see [Whose half](../docs/reading-a-report.md#whose-half-of-the-kernels-work).\n\n```\n'
  cat bench/results-steered.txt
  printf '```\n\n## Which net\n\nThe same with other ways to read in bare `net`: 16 and 4 KiB at a time, and `io.Copy`, which leaves the bytes in the kernel.\n\n```\n'
  cat bench/results-nets.txt
  printf '```\n\n## Two loops\n\nNot pinned; the generator shares the two CPUs with them, so this is what two loops cost, not what they can do.\n\n```\n'
  cat bench/results-loops.txt
  printf '```\n\nHow evenly a thousand connections come to lie on four loops:\n\n```\n'
  cat bench/results-evenness.txt
  printf '```\n\n## Ladder\n\nWhat each feature is worth, against the step before it, as `couplet bench --ablate` tells it.\n\n```\n'
  cat bench/results-ladder.txt
  printf '```\n'
} > bench/RESULTS.md

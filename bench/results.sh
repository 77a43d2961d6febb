#!/usr/bin/env bash
# results.sh measures everything that RESULTS.md tells, and writes that file, the
# samples (results.json) and the example report (docs/report.html). It takes about
# half an hour; nothing else should run on the machine meanwhile.
# With "write" it measures nothing and writes the files anew from the samples.
set -euo pipefail
cd "$(dirname "$0")/.."
run=$(mktemp -d)/run
go build -o "$run" ./bench/run
if [ "${1:-}" != write ]; then
  "$run" --table --candidates uring,epoll,gnet,net,c-uring,c-epoll --rounds "${ROUNDS:-7}" --duration "${DURATION:-500ms}" --json bench/results.json
  "$run" --candidates uring,uring-x2,uring-x2-rr,uring-x2-least,epoll,epoll-x2,epoll-x2-rr,epoll-x2-least \
    --baseline uring --connections 64 --rounds 5 --duration 500ms 2>/dev/null > bench/results-loops.txt
  "$run" --evenness > bench/results-evenness.txt
  for connections in 64 1000; do
    "$run" --candidates uring,uring-oneshot,uring-u2,uring-u3,uring-notry,epoll,epoll-edge,epoll-notry --baseline epoll \
      --connections $connections --rounds 9 --duration 400ms 2>/dev/null
  done > bench/results-ladder.txt
fi
"$run" --from bench/results.json --markdown "$run.md" --html docs/report.html >/dev/null
{
  cat bench/results-head.md
  cat "$run.md"
  printf '\n## Two loops\n\nNot pinned; the generator shares the two CPUs with them, so this is what two loops cost, not what they can do.\n\n```\n'
  cat bench/results-loops.txt
  printf '```\n\nHow evenly a thousand connections come to lie on four loops:\n\n```\n'
  cat bench/results-evenness.txt
  printf '```\n\n## Ladder\n\nWhat each feature is worth, against the step before it, as `couplet bench --ablate` tells it.\n\n```\n'
  cat bench/results-ladder.txt
  printf '```\n'
} > bench/RESULTS.md

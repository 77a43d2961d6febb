#!/usr/bin/env bash
# pictures.sh makes the pictures of these pages: by the product, and a headless
# Chromium that looks at what it wrote. docs/report.html is made by bench/results.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go build -o "$dir/couplet" ./cmd/couplet
"$dir/couplet" trace --html "$dir/trace.html" # ten-minutes.md and README.md quote this run
cp docs/report.html "$dir"
mkdir -p docs/pictures
# picture NAME PAGE WIDTH,HEIGHT
picture() {
  chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$dir/profile" \
    --window-size="$3" --screenshot="docs/pictures/$1.png" "file://$dir/$2" >/dev/null 2>&1
}
picture trace trace.html 1180,860
picture verdict report.html 1180,1120
ls -l docs/pictures

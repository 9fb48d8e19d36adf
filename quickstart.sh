#!/usr/bin/env bash
# From a fresh clone to a live ISO that has proved that it boots.
#   ./quickstart.sh          asks once before it installs anything
#   ./quickstart.sh --yes    never asks
set -euo pipefail
cd "$(dirname "$0")"
. scripts/setup.sh

yes=no
for argument; do
    case $argument in
        -y | --yes) yes=yes ;;
        -h | --help) sed -n '2,4s/^# \?//p' "$0" && exit ;;
        *) printf 'unknown argument %s; valid: --yes, --help\n' "$argument" >&2 && exit 2 ;;
    esac
done

find_rust
install_missing "$yes" cc="gcc libc6-dev" mmdebstrap=mmdebstrap "$(engine_package)"
start_engine "$yes"

say "Building isokiln (a few minutes the first time)"
cargo build --release --locked --package isokiln

say "Building pipelines/minimal.toml and booting it"
status=0
./target/release/isokiln build pipelines/minimal.toml || status=$?
if ((status)); then
    printf '\nThe build ended with status %d; the lines above say why. To look closer:\n' "$status"
    printf '  ./target/release/isokiln doctor\n'
    exit "$status"
fi
cat <<'WORDS'

What to try next:
  ./target/release/isokiln build pipelines/minimal.toml     again: every stage is a hit
  ./target/release/isokiln checkpoint list                  what each stage left behind
  ./target/release/isokiln kinds                            what stages can do
  ./target/release/isokiln test .isokiln/latest/artifacts/minimal.iso --check "command:uname -r"
Change a stage in pipelines/minimal.toml, then ask what that means:
  ./target/release/isokiln plan --explain pipelines/minimal.toml
WORDS

#!/usr/bin/env bash
# Every check and every test, the real ones included: formatting, lints, documentation, unit tests, and
# black-box tests against a container engine and QEMU. Installs and starts what they need; asks once before it
# installs anything, if somebody is there to ask.
#   ./test.sh            everything
#   ./test.sh FILTER     only the tests whose names hold FILTER
set -euo pipefail
cd "$(dirname "$0")"
. scripts/setup.sh

timed() {
    local started=$SECONDS
    say "$*"
    "$@"
    printf '  %d s\n' $((SECONDS - started)) >&2
}

# What must be the same after the tests as before them.
footprint() {
    grep -v ' /var/lib/docker/' /proc/self/mounts | sort
    cat /sys/block/loop*/loop/backing_file 2>/dev/null || true
    find "${TMPDIR:-/tmp}" /run -maxdepth 1 -name 'isokiln-*' | sort
    # Every program of a test carries the mark.
    grep --files-with-matches --null-data --no-messages '^ISOKILN_TEST=' /proc/[0-9]*/environ || true
    grep --only-matching '[^ ]*isokiln[^ ]*$' /proc/net/unix | sort || true
    for list in volumes networks 'images/json?all=1'; do
        ask_engine "/$list" | grep --only-matching --extended-regexp '"(Name|Id)":"[^"]*"' | sort || true
    done
}

find_rust
yes=yes
if [[ -t 0 && -z ${CI:-} ]]; then yes=no; fi
install_missing "$yes" cc="gcc libc6-dev" mmdebstrap=mmdebstrap skopeo=skopeo umoci=umoci "$(engine_package)"
start_engine "$yes"

export RUSTFLAGS=${RUSTFLAGS:-} RUSTDOCFLAGS="--deny warnings" CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
timed cargo fmt --all --check
timed cargo clippy --workspace --all-targets --locked --quiet -- --deny warnings
timed cargo doc --workspace --no-deps --document-private-items --locked --quiet
timed cargo build --release --locked --quiet --package isokiln
timed ./target/release/isokiln image build

# What killed runs have left is swept by any command; swept now, it is not missed afterwards.
./target/release/isokiln clean --dir target/none
residue=$(./target/release/isokiln doctor --residue)
before=$(footprint)
timed cargo test --workspace --locked --no-fail-fast -- "$@"

say "Looking for what the tests have left"
if ! diff <(echo "$before") <(footprint); then
    die "the tests have left something on this machine or in its engine"
fi
if ! diff <(echo "$residue") <(./target/release/isokiln doctor --residue); then
    die "the tests have left something in the engine"
fi
what=${1:+"What matches \"$1\""}
say "${what:-All tests} passed in $((SECONDS / 60)) min $((SECONDS % 60)) s"

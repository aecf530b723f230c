#!/usr/bin/env bash
# Puts each fault of tests/simulation/faults into the crate, one by one, and runs the simulation: it must find it. Arguments:
# names of faults, without `.patch`; default: all. `SEEDS` is the range of seeds, `0..10000` by default.
#
# The sources are restored after each. They must have no changes that are not committed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seeds=${SEEDS:-0..10000}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
git diff --quiet -- src || { echo "src has changes that are not committed"; exit 2; }

faults=("$@")
if ((${#faults[@]} == 0)); then
    for patch in tests/simulation/faults/*.patch; do
        faults+=("$(basename "$patch" .patch)")
    done
fi

missed=0
for fault in "${faults[@]}"; do
    patch=tests/simulation/faults/$fault.patch
    git apply "$patch"
    status=0
    cargo build --quiet --profile simulation -p simulation-tests 2>"$log" || status=built
    if [[ $status != built ]]; then
        timeout "${LIMIT:-300}" target/simulation/simulation-tests "$seeds" --first >"$log" || status=$?
    fi
    git apply --reverse "$patch"
    case $status in
    0)
        missed=$((missed + 1))
        echo "MISSED  $fault"
        ;;
    built)
        missed=$((missed + 1))
        echo "BROKEN  $fault: it does not build"
        head -5 "$log"
        ;;
    124)
        missed=$((missed + 1))
        echo "MISSED  $fault: it takes too long"
        ;;
    *) echo "found   $fault: $(grep -m1 '^seed' "$log" || echo "it panics")" ;;
    esac
done
cargo build --quiet --profile simulation -p simulation-tests
((missed == 0))

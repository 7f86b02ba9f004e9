#!/usr/bin/env bash
# Builds every fuzz target, runs its corpus, and then a fixed number of inputs from a fixed seed. A finding ends it with an
# error and leaves the input in fuzz/artifacts. `FUZZ_RUNS=N` asks for another number of inputs of every target.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=0.13.2
root="${CARGO_HOME:-$HOME/.cargo}/tools/cargo-fuzz-$version"
if [ ! -x "$root/bin/cargo-fuzz" ]; then
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install cargo-fuzz --locked --version "$version" --root "$root"
fi

cargo fetch --locked --manifest-path fuzz/Cargo.toml
PATH="$root/bin:$PATH" cargo fuzz build --sanitizer none --no-cfg-fuzzing --codegen-units 16

# New inputs and the files that targets write go to memory, not into the tree.
scratch=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p fuzz/artifacts

# What runs in about five seconds.
runs_of() {
    case "$1" in
        header | listing) echo 200000 ;;
        rows | settings) echo 30000 ;;
        adapter) echo 20000 ;;
        records) echo 5000 ;;
        template) echo 3000 ;;
    esac
}

host=$(rustc -vV | sed -n 's/^host: //p')
for target in header listing rows settings adapter records template; do
    new="$scratch/corpus-$target" temporary="$scratch/files-$target" log="$scratch/$target.log"
    mkdir "$new" "$temporary"
    if ! TMPDIR="$temporary" "fuzz/target/$host/release/$target" "$new" "fuzz/corpus/$target" \
        -seed=1 -runs="${FUZZ_RUNS:-$(runs_of "$target")}" -dict="fuzz/dictionaries/$target" -max_len=8192 \
        -rss_limit_mb=500 -timeout=10 -artifact_prefix="fuzz/artifacts/$target-" -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log"
        exit 1
    fi
    printf '%-9s %s\n' "$target" "$(grep '^Done' "$log")"
done

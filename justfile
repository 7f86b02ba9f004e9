# Short names for the project's commands. CONTRIBUTING.md lists the commands themselves; nothing needs just.

# List the recipes
default:
    @just --list

# Run everything that has to hold before a change is merged
check:
    .ci/run

# Run all tests, or those whose names contain NAME: just test NAME
test *args:
    cargo test --workspace --locked {{ args }}

# Run the unit tests of all crates
unit:
    cargo test --workspace --locked --lib

# Build the documentation of all crates; a warning is an error
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

# Run the fuzz targets on their corpora and a fixed number of inputs; FUZZ_RUNS=N sets another number
fuzz:
    fuzz/check.sh

# Compute goldens into target/goldens, all or by NAME. Needs tools/goldens/requirements.txt; PYTHON names the interpreter
goldens *names:
    ${PYTHON:-python3} tools/goldens/generate.py target/goldens {{ names }}
    ${PYTHON:-python3} tools/goldens/objectives.py target/goldens/objectives.json

# Measure the kernels, or a model: just bench --model DIR --sft FILE --dpo FILE
bench *args="--kernels":
    cargo run --release --locked -- bench {{ args }}

# Write docs/reference.md from the program's definitions
reference:
    cargo run --locked -- reference > docs/reference.md

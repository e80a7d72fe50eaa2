# Daily commands. Nothing depends on this file; see CONTRIBUTING.md.

# Lists the commands.
default:
    @just --list

# All tests, or those that match: `just test`, `just test --test io makefile::`.
test *arguments:
    cargo test {{arguments}}

# Formatting, lints, documentation: what CI refuses and a compiler does not.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Model checks, all or those whose names contain a word.
models *word:
    cargo run --release -p greenroom-models -- {{word}}

# One of greenroom's own benchmarks: `just bench switch`.
bench name:
    cargo bench -p greenroom-benches --bench {{name}}

# The same work on greenroom and its peers: `just peers --work yield-2`.
peers *arguments:
    cargo run --release -p greenroom-peers -- {{arguments}}

# Writes shims/SURFACE.md anew.
surface:
    cargo run -p greenroom-surface

# An example: `just example spawn`.
example name *arguments:
    cargo run --release --example {{name}} -- {{arguments}}

# Everything that CI checks.
ci:
    .ci/run

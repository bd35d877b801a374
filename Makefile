# The commands of a contributor and of CI. `make help` lists them.
#
# Every stage but the demo runs through scripts/stage, which links RocksDB's C++ from the library that
# scripts/rocksdb-lib builds once, so that no profile and no set of features builds it again.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/highwater/target
CLIENTS_TARGET_DIR := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/highwater/clients-target
# What a longer search means: cases of each property test, seeds of the simulation, junk for the server,
# seconds of each fuzz target.
NIGHTLY_CASES ?= 20000
NIGHTLY_SEEDS ?= 50000
NIGHTLY_JUNK ?= 100000
NIGHTLY_FUZZ_SECONDS ?= 600
# How long each fuzz target runs, and which; all where none is named.
FUZZ_SECONDS ?= 60
FUZZ ?=

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
	  awk -F'|' '{ printf "  make %-10s %s\n", $$1, $$2 }'

.PHONY: demo
demo: ## Show the whole circle on a generated node, in a temporary directory
	@scripts/setup demo
	@# Without RocksDB's own library, which takes longer to build than all the rest, and clients of object stores.
	@cargo run --profile demo --locked --package highwater-cli --no-default-features -- demo

.PHONY: test
test: setup fmt clippy tidy features wasm nextest ratios doctests rustdoc embed ## All that CI runs
	@echo; echo '== make test: passed'

.PHONY: fmt
fmt: setup ## The code is formatted
	@scripts/stage fmt cargo fmt --all --check

.PHONY: clippy
clippy: setup ## No lint speaks up, tests and all features included
	@scripts/stage clippy cargo clippy --workspace --all-targets --all-features -- -D warnings

.PHONY: tidy
tidy: setup ## The checks of the tree: arrows, sizes, claims and their tests, links
	@scripts/stage tidy cargo xtask tidy

FEATURES := cargo clippy --package highwater --all-targets --no-default-features
REPLICA_FEATURES := cargo clippy --package highwater-replica --all-targets --no-default-features

.PHONY: features
features: setup ## Every feature alone, and none; without any it is few crates, whose vaults work
	@scripts/stage 'features: crates' scripts/crates
	@scripts/stage 'features: none' $(FEATURES) -- -D warnings
	@scripts/stage 'features: vaults' cargo nextest run --package highwater --no-default-features --lib \
	  -E 'test(/^(vault|archive)::/)'
	@scripts/stage 'features: s3' $(FEATURES) --features s3 -- -D warnings
	@scripts/stage 'features: gcs' $(FEATURES) --features gcs -- -D warnings
	@scripts/stage 'features: azure' $(FEATURES) --features azure -- -D warnings
	@scripts/stage 'features: rocksdb' $(FEATURES) --features rocksdb -- -D warnings
	@scripts/stage 'features: sqlite' $(FEATURES) --features sqlite -- -D warnings
	@scripts/stage 'features: agent' $(FEATURES) --features agent -- -D warnings
	@scripts/stage 'features: conformance' $(FEATURES) --features conformance -- -D warnings
	@scripts/stage 'features: replica' $(REPLICA_FEATURES) -- -D warnings
	@scripts/stage 'features: replica, sqlite' $(REPLICA_FEATURES) --features sqlite -- -D warnings
	@scripts/stage 'features: replica, rocksdb' $(REPLICA_FEATURES) --features rocksdb -- -D warnings
	@scripts/stage 'features: replica, agent' $(REPLICA_FEATURES) --features agent -- -D warnings
	@scripts/stage 'features: replica, ldk' $(REPLICA_FEATURES) --features ldk -- -D warnings
	@scripts/stage 'features: replica, ldk-0-3' $(REPLICA_FEATURES) --features ldk-0-3 -- -D warnings
	@scripts/stage 'features: replica, conformance' $(REPLICA_FEATURES) --features conformance -- -D warnings
	@scripts/stage 'features: guard' cargo clippy --package highwater-guard --all-targets -- -D warnings
	@scripts/stage 'features: program' cargo clippy --package highwater-cli --all-targets -- -D warnings
	@scripts/stage 'features: demo' cargo clippy --package highwater-cli --no-default-features -- -D warnings

.PHONY: wasm
wasm: setup ## The verdicts build for WebAssembly, and need no native engine
	@scripts/stage wasm scripts/wasm

.PHONY: nextest
nextest: setup ## The tests
	@scripts/stage nextest cargo nextest run --workspace --all-features --no-fail-fast

.PHONY: ratios
ratios: nextest ## Processor time of the program that the tests have built, beside tar and zstd: no ratio is far above what it was
	@scripts/stage ratios cargo xtask ratios

.PHONY: test-clients
test-clients: setup ## A node with the agent inside; VSS clients of three generations, nodes of LDK and Fiber, upstream's server, tmkms
	@# Its binding takes the same prebuilt C++, by the headers of that, so nothing is built twice.
	@scripts/stage test-clients cargo clippy --locked --all-targets \
	  --manifest-path examples/rocksdb-binding/Cargo.toml -- -D warnings
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	  scripts/stage test-clients cargo run --quiet --locked \
	  --manifest-path examples/rocksdb-binding/Cargo.toml -- "$$dir" --once
	@# An LDK node takes minutes to build, once; nothing of it is built for anything else.
	@scripts/stage test-clients cargo build --locked --package highwater-cli
	@CARGO_TARGET_DIR=$(CLIENTS_TARGET_DIR) scripts/stage test-clients cargo clippy --locked --all-targets \
	  --manifest-path examples/vss-clients/Cargo.toml -- -D warnings
	@CARGO_TARGET_DIR=$(CLIENTS_TARGET_DIR) VSS_PROGRAM=$(CARGO_TARGET_DIR)/debug/highwater \
	  scripts/stage test-clients cargo test --locked --manifest-path examples/vss-clients/Cargo.toml
	@# A Fiber node's store: its own RocksDB, older than ours, is built once, in minutes, without any that is prebuilt.
	@CARGO_TARGET_DIR=$(CLIENTS_TARGET_DIR) scripts/stage test-clients cargo clippy --locked --all-targets \
	  --manifest-path examples/fiber-node/Cargo.toml -- -D warnings
	@CARGO_TARGET_DIR=$(CLIENTS_TARGET_DIR) HIGHWATER_PROGRAM=$(CARGO_TARGET_DIR)/debug/highwater \
	  scripts/stage test-clients cargo test --locked --manifest-path examples/fiber-node/Cargo.toml
	@# tmkms reads what a release has written into its state.
	@CARGO_TARGET_DIR=$(CLIENTS_TARGET_DIR) scripts/stage test-clients cargo clippy --locked --all-targets \
	  --manifest-path examples/tmkms-state/Cargo.toml -- -D warnings
	@CARGO_TARGET_DIR=$(CLIENTS_TARGET_DIR) scripts/stage test-clients cargo test --locked \
	  --manifest-path examples/tmkms-state/Cargo.toml
	@# The replica, over the server that the clients' makers publish, beside ours.
	@VSS_UPSTREAM=$$(scripts/vss-upstream) \
	  scripts/stage test-clients cargo nextest run --workspace --all-features --test replica

# The libraries beside `highwater`.
DOCUMENTED := --package highwater-gate --package highwater-guard --package highwater-nodes \
  --package highwater-replica --package highwater-server --package highwater-vss

.PHONY: doctests
doctests: setup ## The examples in the documentation of the libraries
	@scripts/stage doctests cargo test --doc --package highwater \
	  $(DOCUMENTED) --all-features

.PHONY: rustdoc
rustdoc: setup ## The documentation builds, and its links lead somewhere
	@RUSTDOCFLAGS='-D warnings' \
	  scripts/stage rustdoc cargo doc --no-deps --package highwater \
	  $(DOCUMENTED) --all-features

.PHONY: embed
embed: setup ## A program of its own that embeds the library, built, and run
	@scripts/stage embed scripts/embed

.PHONY: wheel
wheel: ## The Python package as a wheel, optimised; prints where it is
	@scripts/setup wheel
	@scripts/wheel

.PHONY: test-python
test-python: ## The Python package, built as a wheel and installed into a fresh environment: its tests; WRITE_SURFACE=1 rewrites its surface
	@scripts/setup wheel
	@cargo fmt --manifest-path bindings/uniffi/Cargo.toml --check
	@cargo clippy --locked --all-targets --manifest-path bindings/uniffi/Cargo.toml -- -D warnings
	@scripts/wheel test

.PHONY: bindings
bindings: ## The library's Kotlin and Swift code into the target directory; compiled where a compiler is
	@scripts/setup bindings
	@scripts/bindings

.PHONY: nightly
nightly: setup ## The same tests with longer searches (NIGHTLY_CASES, NIGHTLY_SEEDS), the model's larger ones too; fuzzing
	@PROPTEST_CASES=$(NIGHTLY_CASES) HIGHWATER_MODEL=large HIGHWATER_SIM_SEEDS=$(NIGHTLY_SEEDS) HIGHWATER_JUNK=$(NIGHTLY_JUNK) HIGHWATER_KILLS=100 HIGHWATER_ROLLBACKS=500 HIGHWATER_REPLICA_SEEDS=100000 HIGHWATER_REPLICA_SCHEDULES=20000 VSS_SEQUENCES=3000 \
	  scripts/stage nightly cargo nextest run --workspace --all-features
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=$(NIGHTLY_FUZZ_SECONDS)

.PHONY: fuzz
fuzz: ## Fuzzes what is read from other hands, each target for FUZZ_SECONDS; FUZZ names some of them
	@scripts/setup fuzz
	@FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz $(FUZZ)

.PHONY: packages
packages: setup ## The packages of the published crates, their sizes and what they must hold; PACKAGES_VERIFY=1 builds from them
	@scripts/stage packages scripts/packages

.PHONY: semver
semver: setup ## What the libraries export, beside the last release (or SEMVER_BASELINE): no break that the version doesn't tell
	@scripts/stage semver scripts/semver

.PHONY: msrv
msrv: setup ## Everything builds with the oldest Rust that is promised, where that is installed
	@scripts/stage msrv scripts/msrv

.PHONY: site
site: ## The documents as a site, built by mdBook; its links lead somewhere
	@scripts/setup site
	@scripts/site

# One file says what both workspaces may depend on: the bindings have licences of their own, and less of the rest.
DENY := -A license-exception-not-encountered -A unmatched-skip-root
DENY_BINDINGS := $(DENY) -A unmatched-skip -A unnecessary-skip

.PHONY: lint-deps
lint-deps: packages ## Packages as above; licences, bans and advisories of dependencies; installs cargo-deny if it is missing
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	@scripts/stage lint-deps cargo deny --all-features check $(DENY) licenses bans sources
	@scripts/stage 'lint-deps: bindings' cargo deny --manifest-path bindings/uniffi/Cargo.toml --all-features \
	  check $(DENY_BINDINGS) licenses bans sources
	@scripts/stage advisories scripts/advisories

.PHONY: build
build: ## The program, optimised
	@scripts/setup build
	@scripts/stage build cargo build --release --package highwater-cli --locked
	@echo "$(CARGO_TARGET_DIR)/release/highwater"

# What is measured: `make bench BENCH='--size 500 --repeat 1'`; cargo xtask bench tells its flags.
BENCH ?= --size 2000 --repeat 3 --scale 200,2000,8000 --many-snapshots 1000,10000 --many-nodes 200 --many-files 200000

.PHONY: bench
bench: build ## Figures beside cp, restic, borg, rustic, ldb and sqlite3, on the same data in one run; streams, agents
	@scripts/setup bench
	@scripts/stage 'bench: programs' cargo build --release --locked --package highwater-bench \
	  --bin idle-agents --bin agent-overhead --bin replica-cost --bin shapes --bin many-snapshots
	@scripts/stage bench cargo xtask bench $(BENCH)

.PHONY: dist
dist: ## What is handed out: a Debian package, a tarball, symbols, the list of components, sums; prints where they are
	@scripts/setup dist
	@scripts/dist

.PHONY: test-dist
test-dist: dist ## The packages on bare Debian systems, as root: installed, upgraded, the main job, purged; the image
	@scripts/test-dist

.PHONY: install
install: ## The program into cargo's directory of programs
	@scripts/setup build
	@scripts/stage install cargo install --locked --path crates/highwater-cli

.PHONY: setup
setup:
	@scripts/setup

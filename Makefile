# `make` alone says what there is to make.

# Where a build is made, as cargo decides it; .cargo/config.toml names the target, so binaries lie below <triple>/.
TRIPLE  := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET  := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/$(TRIPLE)/release
PREFIX  ?= /usr/local
# nextest runs each test in a process of its own and several at once; plain cargo does without it.
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)

.DEFAULT_GOAL := help
.PHONY: help build demo test test-vm unit e2e fuzz lint base-images bench install uninstall clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

build: ## The release binaries, `ctr` and `ctr-runtime`
	@scripts/need cc=build-essential
	cargo build --release --quiet

demo: ## From nothing to a running web service and back, each command shown
	@scripts/demo

# What a process of the tests is told by, should it outlive them.
test: export CTR_TEST_RUN := $(shell date +%s)-$(shell echo $$PPID)
test: ## All tests: unit and end-to-end (as root, or the latter are few)
	@scripts/test-deps
	@scripts/base-images --tar >/dev/null
	@scripts/leftovers before $(TARGET)/leftovers
ifeq ($(NEXTEST),yes)
	cargo test --workspace --profile e2e --doc --quiet
	cargo nextest run --workspace --cargo-profile e2e
else
	cargo test --workspace --profile e2e --no-fail-fast
endif
	@[ "$$(id -u)" -ne 0 ] || scripts/demo
	@scripts/test-vm --if-possible
	@scripts/leftovers after $(TARGET)/leftovers

test-vm: ## Control groups v2, old kernels, AppArmor, systemd: in virtual machines
	@scripts/test-vm

unit: ## The tests beside the code alone: quick, need nothing
	cargo test --workspace --profile e2e --lib --bins --quiet

e2e: ## The end-to-end tests alone: make e2e [T=run]
	@scripts/test-deps
	@scripts/base-images --tar >/dev/null
	cargo test --profile e2e $(if $(T),--test $(T),--test '*') --no-fail-fast

fuzz: ## Each fuzz target for a minute (FUZZ_SECONDS=60), with a stable compiler
	@scripts/need c++=g++
	@scripts/fuzz

lint: ## Formatting, clippy, licences and advisories
	@scripts/need cc=build-essential
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --all-features check bans licenses sources; \
	else echo "lint: cargo-deny is not installed: licences and sources were not checked"; fi
	@if command -v shellcheck >/dev/null; then shellcheck --severity=warning scripts/* bench/*.sh .ci/run tests/vm/init; \
	else echo "lint: shellcheck is not installed: the scripts were not checked"; fi

base-images: build ## busybox and debian:bookworm out of Debian's packages, into ctr's store
	@scripts/base-images --ctr $(RELEASE)/ctr

bench: build ## Side by side with podman, docker, crun and runc; see bench/README.md
	@cargo build --release --quiet -p store --example floor
	@bench/images.sh $(RELEASE)/ctr $(RELEASE)/examples/floor
	@bench/run.sh $(RELEASE)/ctr
	@bench/runtime.sh $(RELEASE)/ctr-runtime
	@bench/build.sh $(RELEASE)/ctr

install: build ## Into /usr/local/bin (PREFIX=, DESTDIR=)
	install -D -m 755 $(RELEASE)/ctr $(DESTDIR)$(PREFIX)/bin/ctr
	install -D -m 755 $(RELEASE)/ctr-runtime $(DESTDIR)$(PREFIX)/bin/ctr-runtime

uninstall: ## Takes them away again; images and containers stay
	rm -f $(DESTDIR)$(PREFIX)/bin/ctr $(DESTDIR)$(PREFIX)/bin/ctr-runtime

clean: ## The build's output
	cargo clean --quiet

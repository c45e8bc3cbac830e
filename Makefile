# One verb each. Everything built lands in target/.
.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo
CC ?= cc
CXX ?= c++
PYTHON ?= python3
CFLAGS ?= -O3 -g
BUILD := target/c
VENV := target/venv
C_FLAGS := -std=c11 -fPIC -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -Iinclude -Iproducer-c
C_SOURCES := producer-c/ring.c producer-c/recipe.c producer-c/private.c producer-c/segment.c producer-c/producer.c
C_HEADERS := include/mlwatch.h $(wildcard producer-c/*.h)
C_OBJECTS := $(C_SOURCES:producer-c/%.c=$(BUILD)/%.o)
PY_SOURCES := $(wildcard producer-py/*.py producer-py/*.toml producer-py/src/mlwatch/*)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/mlwatch.stamp sidecar ## a real model drifts before your eyes: 42 s, after building
	$(VENV)/bin/python examples/digits/demo.py --sidecar target/release/mlwatch

.PHONY: stories
stories: $(VENV)/mlwatch.stamp sidecar ## four ways to go wrong, each told by its alert: 5 s, after building
	$(VENV)/bin/python examples/digits/stories.py --sidecar target/release/mlwatch

.PHONY: test
test: rust-test c-test sanitize python-test ## everything: Rust, C, Python, across languages

.PHONY: lint
lint: | tools ## formatting, clippy, the C header as C++17
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path benches/peers/Cargo.toml
	$(CARGO) fmt --check --manifest-path tests/fuzz/Cargo.toml
	@for nested in benches/peers tests/fuzz; do \
		$(CARGO) metadata --locked -q --format-version 1 --manifest-path $$nested/Cargo.toml >/dev/null \
			|| { echo "$$nested/Cargo.lock is out of date: cargo metadata --manifest-path $$nested/Cargo.toml mends it"; exit 1; }; \
	done
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CXX) -std=c++17 -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only -x c++ include/mlwatch.h examples/cpp/main.cpp

.PHONY: bench
bench: $(VENV)/mlwatch.stamp lib sidecar ## the producer call against memcpy and its peers, the sidecar against a read-only pass
	$(CARGO) bench --locked --benches -q 2>&1
	$(VENV)/bin/python benches/producer_call.py --sidecar target/release/mlwatch
	@$(MAKE) --no-print-directory bench-peers

PEERS := --locked -q --manifest-path benches/peers/Cargo.toml --target-dir target/peers

.PHONY: bench-peers
bench-peers: lib ## the producer call against rtrb and iceoryx2; needs Rust 1.89, builds for two minutes
	$(CARGO) bench $(PEERS) 2>&1

.PHONY: bench-stats
bench-stats: | tools ## the statistics against a read-only pass, a memcpy and the obvious ways; two minutes
	$(CARGO) bench --locked -q --bench stats 2>&1

.PHONY: torture
torture: lib mutants ## 3,000 kills of a producer, both sides restarting for a minute, every attack for a minute, planted faults
	MLWATCH_KILLS=3000 $(CARGO) test --locked --release -q --test torture -- --nocapture
	MLWATCH_KILLS=300 MLWATCH_RESTART_SECONDS=60 $(CARGO) test --locked --release -q --test crash -- --nocapture
	MLWATCH_ATTACK_SECONDS=60 $(CARGO) test --locked --release -q --test hostile

.PHONY: mutants
mutants: lib ## faults planted in the ring's two sides, and which test finds each
	$(PYTHON) tests/mutants.py

.PHONY: clean
clean: ## removes what was built
	rm -rf target mlwatch-metrics producer-py/build producer-py/src/*.egg-info

.PHONY: sidecar
sidecar: | tools ## target/release/mlwatch
	$(CARGO) build --locked --release -q

# ---- Rust ----

.PHONY: rust-test
rust-test: lib
	$(CARGO) test --locked --all-targets -q

# ---- C: libmlwatch.so and libmlwatch.a ----

.PHONY: lib
lib: $(BUILD)/libmlwatch.so $(BUILD)/libmlwatch.a ## libmlwatch.so and libmlwatch.a in target/c

$(BUILD)/%.o: producer-c/%.c $(C_HEADERS) | tools
	@mkdir -p $(BUILD)
	$(CC) $(C_FLAGS) $(CFLAGS) -c $< -o $@

$(BUILD)/libmlwatch.so.1: $(C_OBJECTS) producer-c/libmlwatch.map
	$(CC) -shared -Wl,-soname,$(@F) -Wl,--version-script=producer-c/libmlwatch.map -Wl,-z,defs $(C_OBJECTS) -o $@

$(BUILD)/libmlwatch.so: $(BUILD)/libmlwatch.so.1
	ln -sf $(<F) $@

$(BUILD)/libmlwatch.a: $(C_OBJECTS)
	rm -f $@ && ar rcs $@ $^

C_TEST_FLAGS := -std=gnu11 -g -Wall -Wextra -Werror -Iinclude -Iproducer-c
RUN_C_TEST = dir=$$(mktemp -d -p /dev/shm) && { $(1) $$dir; status=$$?; rm -rf $$dir; exit $$status; }

.PHONY: c-test
c-test: $(BUILD)/producer_test $(BUILD)/race $(BUILD)/exhaustive
	@$(call RUN_C_TEST,$(BUILD)/producer_test)
	@$(call RUN_C_TEST,$(BUILD)/race)
	@$(BUILD)/exhaustive

$(BUILD)/exhaustive: tests/c/exhaustive.c $(C_SOURCES) $(C_HEADERS) | tools
	@mkdir -p $(BUILD)
	$(CC) $(C_TEST_FLAGS) -O2 $< -o $@

$(BUILD)/producer_test $(BUILD)/race: $(BUILD)/%: tests/c/%.c $(BUILD)/libmlwatch.a
	$(CC) $(C_TEST_FLAGS) -O2 $^ -o $@

.PHONY: sanitize
sanitize: asan tsan ## the C tests under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer

.PHONY: asan tsan
asan: export UBSAN_OPTIONS := halt_on_error=1
asan: $(BUILD)/producer_test.asan $(BUILD)/race.asan
	@$(call RUN_C_TEST,$(BUILD)/producer_test.asan)
	@$(call RUN_C_TEST,$(BUILD)/race.asan)
tsan: export TSAN_OPTIONS := halt_on_error=1 report_thread_leaks=0 die_after_fork=0
tsan: $(BUILD)/producer_test.tsan $(BUILD)/race.tsan
	@$(call RUN_C_TEST,$(BUILD)/producer_test.tsan)
	@$(call RUN_C_TEST,$(BUILD)/race.tsan)

$(BUILD)/%.asan: tests/c/%.c $(C_SOURCES) $(C_HEADERS) | tools
	@mkdir -p $(BUILD)
	$(CC) $(C_TEST_FLAGS) -O1 -fsanitize=address,undefined $< $(C_SOURCES) -o $@

$(BUILD)/%.tsan: tests/c/%.c $(C_SOURCES) $(C_HEADERS) | tools
	@mkdir -p $(BUILD)
	$(CC) $(C_TEST_FLAGS) -O1 -fsanitize=thread $< $(C_SOURCES) -o $@

# ---- the fuzzer: coverage by the compiler's stable flags, libFuzzer by crates.io ----

FUZZ_SECONDS ?= 60
FUZZ_TARGETS := fresh_bytes ring_file
FUZZ_HOST = $(shell $(CARGO) -vV | sed -n 's/^host: //p')
FUZZ_BUILD = target/fuzz/$(FUZZ_HOST)/release
COVERAGE := inline-8bit-counters pc-table trace-compares
fuzz: export RUSTFLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	$(COVERAGE:%=-Cllvm-args=-sanitizer-coverage-%) -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks

.PHONY: fuzz
fuzz: | tools ## hostile bytes found by coverage, FUZZ_SECONDS (60) for each target
	$(CARGO) build --locked --release -q --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz --target $(FUZZ_HOST)
	@for target in $(FUZZ_TARGETS); do \
		found=target/fuzz/found/$$target; mkdir -p $$found; \
		$(FUZZ_BUILD)/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 -print_final_stats=1 -verbosity=0 \
			-artifact_prefix=target/fuzz/$$target- $$found tests/data/fuzz/$$target || { \
			echo "replay it with $(FUZZ_BUILD)/$$target FILE; kept in tests/data/fuzz/$$target, it is replayed by every make test"; exit 1; }; \
	done

# ---- Python ----

.PHONY: python-test
python-test: $(VENV)/mlwatch.stamp rust-build lib
	$(VENV)/bin/python -m pytest -q tests/python
	$(VENV)/bin/python examples/digits/stories.py --sidecar target/debug/mlwatch

.PHONY: rust-build
rust-build: | tools
	$(CARGO) build --locked -q

$(VENV)/requirements.stamp: tests/python/requirements.txt | tools
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -r $<
	touch $@

$(VENV)/mlwatch.stamp: $(VENV)/requirements.stamp $(PY_SOURCES) $(C_SOURCES) $(C_HEADERS)
	$(VENV)/bin/pip install -q --disable-pip-version-check --no-build-isolation --force-reinstall --no-deps ./producer-py
	touch $@

# ---- what a machine needs ----

.PHONY: tools
tools:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust 1.88 or newer, https://rustup.rs"; exit 69; }
	@missing=; \
	for tool in $(CC) $(CXX) ar; do command -v $$tool >/dev/null || missing="$$missing build-essential"; done; \
	command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import ensurepip, sysconfig, os, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null \
		|| missing="$$missing python3-dev python3-venv"; \
	[ -z "$$missing" ] || { echo "installing$$missing"; \
		[ $$(id -u) = 0 ] && sudo= || sudo=sudo; \
		$$sudo apt-get update -qq && $$sudo apt-get install -y -qq $$missing; }

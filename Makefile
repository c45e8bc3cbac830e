# One verb each. Everything built lands in target/; nothing needs root but the first installation of a C compiler or Python.
.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo
CC ?= cc
PYTHON ?= python3
BUILD := target/c
VENV := target/venv
CFLAGS ?= -O3 -g
C_FLAGS := -std=c11 -fPIC -fvisibility=default -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -Iinclude -Iproducer-c
C_SOURCES := producer-c/ring.c producer-c/segment.c
C_HEADERS := include/mlwatch.h producer-c/wire.h producer-c/producer.h producer-c/crc32c.h

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

# ---- the C producer ----

.PHONY: lib
lib: $(BUILD)/libmlwatch.so $(BUILD)/libmlwatch.a ## libmlwatch.so and libmlwatch.a in target/c

$(BUILD)/%.o: producer-c/%.c $(C_HEADERS)
	@mkdir -p $(BUILD)
	$(CC) $(C_FLAGS) $(CFLAGS) -c $< -o $@

$(BUILD)/libmlwatch.so.1: $(C_SOURCES:producer-c/%.c=$(BUILD)/%.o) producer-c/libmlwatch.map
	$(CC) -shared -Wl,-soname,libmlwatch.so.1 -Wl,--version-script=producer-c/libmlwatch.map -Wl,-z,defs $(filter %.o,$^) -o $@

$(BUILD)/libmlwatch.so: $(BUILD)/libmlwatch.so.1
	ln -sf libmlwatch.so.1 $@

$(BUILD)/libmlwatch.a: $(C_SOURCES:producer-c/%.c=$(BUILD)/%.o)
	rm -f $@ && ar rcs $@ $^

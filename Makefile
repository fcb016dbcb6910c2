# One entry for each thing that one does here; `make` alone lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help
# A recipe that fails half-way must not leave a file that looks finished.
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed.stamp
LOCK := build/lock/dev.txt
WORKERS ?= 2
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# loadgroup keeps tests that share a resource on one worker.
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n $(WORKERS) --dist loadgroup
CODE := app tests build packaging $(wildcard bench)

.PHONY: help
help: ## list what can be made
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  ARGS='…' adds arguments to run, test, test-fast, crash, fuzz, bench, lock and vendor."

# --- setting up ---------------------------------------------------------------------------------

.PHONY: setup
setup: $(STAMP) ## make the virtual environment, from the lock

# Depends on what was asked for, so that it runs, and uses the network, only after a change.
$(STAMP): $(LOCK) pyproject.toml
	@build/venv.sh "$(PYTHON)" $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r $(LOCK)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@

.PHONY: lock
lock: $(STAMP) ## resolve the lock files again (ARGS=--upgrade raises versions)
	$(BIN)/python build/lock.py $(ARGS)

.PHONY: vendor
vendor: $(STAMP) ## fetch the viewer's files again (ARGS=--check compares, '--take VERSION' changes)
	$(BIN)/python build/vendor.py $(ARGS)

# --- working ------------------------------------------------------------------------------------

.PHONY: run
run: $(STAMP) ## start the server from the checkout
	$(BIN)/ocean serve $(ARGS)

.PHONY: fmt
fmt: $(STAMP) ## format, and repair what the linter can repair
	$(BIN)/ruff check --quiet --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

.PHONY: lint
lint: $(STAMP) ## check style and format
	$(BIN)/ruff check --quiet $(CODE)
	$(BIN)/ruff format --quiet --check $(CODE)

.PHONY: types
types: $(STAMP) ## check types
	$(BIN)/mypy

.PHONY: arch
arch: $(STAMP) ## check that imports go down only
	$(BIN)/lint-imports --cache-dir .cache/import-linter

# --- testing ------------------------------------------------------------------------------------

# The tests come last, so that their summary is what one sees.
.PHONY: test
test: lint types arch ## all checks, then all tests but the long ones
	$(PYTEST) $(PARALLEL) -m "not long and not appliance" $(ARGS)

.PHONY: check
check: test ## the same as test

.PHONY: test-fast
test-fast: $(STAMP) ## only the tests that take no processes and no patience
	$(PYTEST) $(PARALLEL) -q -m "not long and not appliance and not crash and not e2e" $(ARGS)

.PHONY: crash
crash: $(STAMP) ## the long form of the crash tests
	OCEAN_CRASH_LONG=1 $(PYTEST) tests/crash -m "crash or long" --timeout=3600 $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## give decoders bad bytes for about five minutes (OCEAN_FUZZ: examples of each kind)
	OCEAN_FUZZ=$${OCEAN_FUZZ:-20000} $(PYTEST) $(PARALLEL) tests/property/test_nanogridata.py --timeout=1800 $(ARGS)

.PHONY: bench
bench: $(STAMP) ## measure, beside baselines of the same run
	$(BIN)/python bench/run.py $(ARGS)

# --- shipping -----------------------------------------------------------------------------------

.PHONY: appliance
appliance: $(STAMP) ## build the executable dist/ocean
	$(BIN)/python build/appliance.py

.PHONY: test-appliance
test-appliance: $(STAMP) ## test the executable that `make appliance` built
	$(PYTEST) tests/e2e -m appliance $(ARGS)

.PHONY: clean
clean: ## remove what can be made again
	rm -rf $(VENV) .cache dist htmlcov .hypothesis

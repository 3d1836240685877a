# The few commands a person needs. `make demo` and `make test` need only Python 3.11+ and the package index.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OLD_SDK := .k9/sdk/anthropic-0.125.0

export K9_STATE_DIR   ?= $(CURDIR)/.k9
export K9_EMBED_MODEL ?= $(CURDIR)/.k9/models/minilm
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo demo-routing test test-real test-quick chaos check format bench replay clean

help:            ## Show the commands
	@grep -E '^[a-z-]+: *.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(VENV)/k9: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "K-9 needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	@touch $@

$(VENV)/dev: $(VENV)/k9
	$(BIN)/python -m pip install --quiet --editable '.[all]' --group dev
	@touch $@

demo: $(VENV)/k9  ## Install, start K-9, embed some thousands of real texts through the queue, search them
	$(BIN)/k9 demo

demo-routing: $(VENV)/k9  ## Where prompts of all kinds go under each strategy, why, and what it costs
	$(BIN)/k9 demo-routing

$(OLD_SDK): $(VENV)/dev
	rm -rf $@ $@.new
	$(BIN)/python -m pip install --quiet --target $@.new anthropic==0.125.0
	mv $@.new $@

test: $(VENV)/dev $(OLD_SDK)  ## Install and pass all tests (about eleven minutes on two cores)
	$(BIN)/k9 model fetch minilm
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test-real: $(VENV)/dev  ## The tests against a real server, llama.cpp's, which is built once (five to ten minutes)
	PYTHON=$(PYTHON) tests/real/build_llama_server.sh
	$(BIN)/k9 model fetch minilm
	$(BIN)/pytest tests/real

test-quick: $(VENV)/dev  ## The tests that start no worker
	$(BIN)/pytest -q tests/unit tests/properties tests/architecture

chaos: $(VENV)/dev  ## Storms over a whole K-9, a minute each (a quarter of an hour), counting lost and doubled jobs
	K9_CHAOS_SECONDS=$${K9_CHAOS_SECONDS:-60} $(BIN)/pytest tests/chaos/test_storms.py -s -q

check: $(VENV)/dev  ## Types, lint, format
	$(BIN)/mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/dev  ## Write the format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev  ## Added latency, throughput and batch figures, as ratios measured in one run
	$(BIN)/python benchmarks/run.py

$(VENV)/bench: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@

replay: $(VENV)/bench  ## A recorded trace through all of K-9 and three other ways to serve it, with a picture (nine minutes)
	$(BIN)/python benchmarks/replay.py --out docs/figures

clean:           ## Remove what the commands above made
	rm -rf $(VENV) .k9 demo-out

# GNU make. `make` alone lists the targets; PYTHON names the interpreter the virtual environment is made from.
PYTHON ?= python3
export PYTHON

VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard src/raftchat/*.pyx src/raftchat/*.pxd)
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -q -ra

.DEFAULT_GOAL := help
.PHONY: help install run test lint types unit process bench bench-peers sim clean

help:
	@echo "make install      virtual environment in $(VENV) with raft-chat built into it"
	@echo "make run          one node with its web client on http://127.0.0.1:12380, data in ./raft-chat-1"
	@echo "make test         lint, types, then all tests"
	@echo "make unit         tests without real nodes;   make process: those with real nodes and a browser"
	@echo "make sim          the simulator on fresh seeds for a minute (SIM_ARGS=…)"
	@echo "make bench        benchmarks, as one table;   make bench-peers: beside etcd and NATS JetStream"
	@echo "make lint types   ruff; mypy"
	@echo "make clean        remove what was built (no node's data)"

$(VENV)/.created:
	@scripts/prerequisites build
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	$(BIN)/pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created $(SOURCES)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	@touch $(VENV)/.installed $@

install: $(VENV)/.installed

run: $(VENV)/.installed
	@echo "starting on http://127.0.0.1:12380 (Ctrl-C ends it)"
	@exec $(BIN)/raft-chat --id 1 --cluster http://127.0.0.1:12379 --port 12380

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-test
	$(BIN)/mypy

# Two lanes of tests, one after the other: what only computes shares both cores; what starts real nodes measures time
# and has them for itself. All steps run, whatever becomes of one, and each can fail the target.
test: $(VENV)/.installed-test
	@scripts/prerequisites test
	@failed=; \
	for step in lint types unit process; do \
		$(MAKE) --no-print-directory $$step || failed="$$failed $$step"; \
	done; \
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

unit: $(VENV)/.installed-test
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not process and not browser"

process: $(VENV)/.installed-test
	$(PYTEST) -m "process or browser"

sim: $(VENV)/.installed-test
	$(BIN)/python -m tests.sim $(SIM_ARGS)

bench: $(VENV)/.installed-test
	@scripts/prerequisites bench
	@mkdir -p build
	$(PYTEST) bench --benchmark-only --benchmark-quiet --benchmark-json=build/bench.json
	@$(BIN)/python -m bench.report build/bench.json

bench-peers: $(VENV)/.installed-test
	@scripts/prerequisites bench
	@$(BIN)/python -m bench.peers.run

clean:
	rm -rf $(VENV) build dist test-output .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -rf src/*.egg-info src/raftchat/_log.c src/raftchat/*.so
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

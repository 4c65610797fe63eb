# The commands of this workspace. They need Python 3.11, git and make; uv is brought along where
# none is on PATH.
#
#   make demo                  a job, live, on a real server
#   make gate                  Trinity Gate, the operator's page, on http://127.0.0.1:8400/
#   make test                  everything that has to hold before a commit
#   make test-full             the same with the slow tests
#   make test-browser          those of the operator's page; installs a Chromium where there is none
#   make chaos SECONDS=300     kill things for that long
#   make bench, bench-full     the benchmarks, short and long
#   make bench-aether          those of the Aether engine
#   make lint, make fmt        the checks that run nothing; the formatter

SHELL := /bin/sh
.DEFAULT_GOAL := help

# A plain assignment: `make chaos SECONDS=60` sets it, a variable of that name in the environment does not.
SECONDS = 300
# More for pytest: make test PYTEST_ARGS='-k journal'
PYTEST_ARGS =
# More for the service: make gate GATE_ARGS='--port 8500'
GATE_ARGS =

UV_FOUND := $(shell command -v uv 2>/dev/null)
UV := $(or $(UV_FOUND),.tools/uv/bin/uv)
RUN := $(UV) run --no-sync

.PHONY: help demo gate test test-full test-browser chaos bench bench-full bench-aether fmt lint sync clean

help:
	@sed -n 's/^#   //p' Makefile

demo: sync
	$(RUN) gbe run docs/examples/demo.yaml

gate: sync
	$(RUN) trinity-gate $(GATE_ARGS)

# Most tests wait for servers and processes most of the time, so four run at once on two cores.
test: lint
	$(RUN) pytest -n 4 $(PYTEST_ARGS)

test-full: lint
	$(RUN) pytest -n 2 -m '' $(PYTEST_ARGS)

# `make test` runs them too where it finds a Chromium. With CI set, none is an error and no reason to skip.
test-browser: sync
	tools/install-chromium
	CI=$${CI:-1} $(RUN) pytest tests/browser $(PYTEST_ARGS)

lint: sync
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) python tools/typecheck.py
	$(RUN) lint-imports --no-cache

fmt: sync
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

chaos: sync
	$(RUN) python -m tests.chaos.run --seconds $(SECONDS)

bench: sync
	$(RUN) python -m tests.benchmarks.run

bench-full: sync
	$(RUN) python -m tests.benchmarks.run --full

bench-aether: sync
	$(RUN) python -m tests.benchmarks.aether

# The lock as it is, never a newer one: what is tested is what was committed.
sync: $(UV)
	@$(UV) sync --all-packages --all-extras --locked --quiet

.tools/uv/bin/uv:
	python3 -m venv .tools/uv
	.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'

clean:
	rm -rf .venv .tools .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist

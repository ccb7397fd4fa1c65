# Each target sets up what it needs: a virtual environment in .venv with the pinned dependencies.
PYTHON ?= python3
BIN := .venv/bin
# Two workers share one Kafka; a file's tests stay together, and the long ones come first. More than
# the machine has cores make the tests that kill processes wait for one another.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test check torture bench lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    everything on this machine: Kafka, the API, the services, 10 orders followed to the end"
	@echo "make test    all tests, on a real Apache Kafka"
	@echo "make check   lint, types, import rules"
	@echo "make torture a minute of orders while processes are killed at random, then an audit"
	@echo "make bench   measurements, each as a ratio within its own run"
	@echo "make setup   only .venv, with the 'shop' command in it"
	@echo "make lock    resolve the dependencies anew into requirements.lock"

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "shop needs Python >= 3.11; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing the pinned dependencies into .venv (once) ..."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@$(BIN)/shop demo

test: setup
	$(BIN)/pytest $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

torture: setup
	@$(BIN)/shop torture

bench: setup
	$(BIN)/python -m bench

lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade -o requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

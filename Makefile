# The front door: every target does its own set-up, so `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DO_NOT_TRACK = 1

.PHONY: setup demo test lint format bench schemas clean help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed  ## make .venv with the `driftloop` command in it

$(VENV)/.installed: pyproject.toml constraints.txt hatch_build.py $(wildcard schemas/native/*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup  ## watch two models fall behind, and what driftloop does about it (under 5 minutes)
	$(BIN)/driftloop demo

test: setup  ## the whole test suite; on Apache Kafka too where KAFKA_HOME is set
	$(BIN)/python -m pytest

lint: setup  ## ruff, mypy, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests bench
	$(BIN)/lint-imports

format: setup  ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## short benchmarks; prints ratios
	$(BIN)/python -m bench

clean:  ## remove what the targets made
	rm -rf $(VENV) .driftloop .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis

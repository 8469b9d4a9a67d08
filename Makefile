# `make demo` and `make test` are all that a fresh machine needs; `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BUILD := build
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint format bench table paper scaling wheel clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(INSTALLED)  ## virtual environment in .venv, with the versions of constraints.txt

# Done again only when what is installed has changed. PIP_* reach the build backend, which -c does not.
$(INSTALLED): pyproject.toml constraints.txt hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mars_onnx needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	       "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu install python3-venv." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	  $(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	@touch $@

demo: $(INSTALLED)  ## ResNet-34 over eight FPGAs: build, partition, verify, report
	$(BIN)/mars-onnx-models resnet34 -o $(BUILD)
	$(BIN)/mars-onnx $(BUILD)/resnet34.onnx --hw hwdb/fpga_pool.json --verify -o $(BUILD)/resnet34.mars

test: $(INSTALLED)  ## all tests that are not marked slow
	$(BIN)/python -m pytest -n $(WORKERS) -m 'not slow'

test-all: $(INSTALLED)  ## slow tests too
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(INSTALLED)  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## put the code into the form that lint wants
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## how long partitioning takes, step by step, simulating, pricing moves
	$(BIN)/python -m benchmarks.partition_time
	$(BIN)/python -m benchmarks.simulation
	$(BIN)/python -m benchmarks.redistribution_time

table: $(INSTALLED)  ## verify every model over every pool and write the tables of README.md and docs
	$(BIN)/python -m benchmarks.operators --write README.md
	$(BIN)/python -m benchmarks.verified --write README.md
	$(BIN)/python -m benchmarks.oracles --write docs/cost-model.md
	$(BIN)/python -m benchmarks.collectives --write docs/cost-model.md

# Searches that are in build/*.jsonl already are not done again; `make clean` forgets them.
paper: $(INSTALLED)  ## all search methods on the networks of MARS: docs/paper.md and its picture
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.paper --write docs/paper.md --plot docs/images/paper.png

scaling: $(INSTALLED)  ## the exact search on larger pools and deeper networks: docs/scaling.md and its picture
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.scaling --write docs/scaling.md --plot docs/images/scaling.png

wheel: $(INSTALLED)  ## dist/*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## everything that can be made again, the virtual environment too
	rm -rf $(VENV) $(BUILD) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

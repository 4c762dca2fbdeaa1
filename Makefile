# Everything installs into .venv, at the versions that constraints.txt pins; nothing else on the machine is touched.
#   make test     set everything up, lint, type-check, run every test
#   make demo     set everything up, run the whole loop on generated comments, leave console and API open;
#                 ARGS=--once ends by itself, ARGS="--once --data DIR" runs on the UCI YouTube comments
#   make check    only formatting, lint, types and import contracts
#   make bench    measure against Snorkel and write docs/results.md
# A machine without a GPU saves gigabytes with TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
PEERS := .venv-peers/bin
export OMP_NUM_THREADS ?= 1

.PHONY: setup test demo check bench peers clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@sh tests/system-packages $(PYTHON)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

demo: setup
	$(BIN)/slicewatch demo $(ARGS)

peers: .venv-peers/.installed

.venv-peers/.installed: constraints.txt
	$(PYTHON) -m venv .venv-peers
	$(PEERS)/pip install --quiet --upgrade "pip>=25.1"
	$(PEERS)/pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PEERS)/pip install --quiet snorkel==0.10.0
	@touch $@

bench: setup peers
	$(BIN)/python tests/benchmarks/results.py --peer-python $(PEERS)/python --out docs/results.md

clean:
	rm -rf .venv .venv-peers build dist var .coverage .coverage.*

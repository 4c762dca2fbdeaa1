# Everything installs into .venv, at the versions that constraints.txt pins; logs are in build, and pip keeps its cache.
#   make demo     install the service, run the whole loop on generated comments, leave console and API open;
#                 ARGS=--once ends by itself, ARGS="--once --data DIR" runs on the UCI YouTube comments
#   make test     install the service and the test tools, lint, type-check, run every test;
#                 as root it installs missing Debian packages that the tests need, else it names them;
#                 Prometheus and Alertmanager are needed as commands, and their system services are masked
#   make chaos    attack the service for 15 minutes beside honest clients, promotions and changes of templates,
#                 compare every answer and the log with the right ones, and write the figures to build/chaos.json;
#                 then kill the service 30 times under load, and that of the demo at five points, run the demo on real
#                 comments (if SLICEWATCH_TEST_DATA is set), and send 20,000 malformed requests, half of them to a
#                 service with keys, and 25 of every documented kind; MINUTES=2 and KILLS=5 are shorter
#   make coverage show the lines that the tests of the packages do not reach; it fails below 90 %
#   make check    only formatting, lint, types and import contracts
#   make bench    measure against Snorkel, MLServer and LitServe, run the demo on ten seeds, and write docs/results.md
# A machine without a GPU saves gigabytes with TORCH_INDEX=https://download.pytorch.org/whl/cpu

SHELL := /bin/bash
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
PEERS := .venv-peers/bin
# Peers of the benchmarks, each in an environment of its own: their dependencies differ.
PEER_ENVS := .venv-peers/.installed .venv-mlserver/.installed .venv-litserve/.installed
TORCH := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
PIP_LOG := build/pip.log
# The tests of the packages compute, those of the system mostly wait for processes and time.
UNIT_TESTS := tests/sfs tests/models tests/service sfs models service
SYSTEM_TESTS := tests --ignore tests/sfs --ignore tests/models --ignore tests/service
# Length of the attacks of `make chaos`, and its number of kills.
MINUTES ?= 15
KILLS ?= 30
WORKERS ?= $(shell nproc)
WAITERS ?= $(shell expr 2 \* $(WORKERS))
export OMP_NUM_THREADS ?= 1
# The tests start hundreds of processes; without bytecode each would compile the packages again.
unexport PYTHONDONTWRITEBYTECODE

# In a terminal pip shows its own progress; elsewhere one line per large download, and all of its output if it fails.
# $(1): pip, $(2): arguments of install
define install
if [ -t 1 ]; then $(1) install --constraint constraints.txt $(2); else \
  set -o pipefail; \
  $(1) install --constraint constraints.txt --progress-bar off $(2) 2>&1 | tee $(PIP_LOG) \
    | sed -u -n -E -e 's/^ *(Downloading .* \([0-9.]+ [MG]B\))$$/  \1/p' -e 's/^Installing .*/  Installing/p' \
    || { cat $(PIP_LOG) >&2; exit 1; }; \
fi
endef

.PHONY: setup test-tools system-packages test coverage demo check bench chaos peers clean

setup: .venv/.installed

test-tools: .venv/.test-tools

.venv/.installed: pyproject.toml constraints.txt
	@sh .ci/check-python $(PYTHON)
	@echo "1/3 creating .venv with $$($(PYTHON) --version); outside it, only build (logs) and the cache of pip are written"
	@$(PYTHON) -m venv .venv
	@mkdir -p build
	@echo "2/3 installing PyTorch: 200 MB without CUDA, 3 GB with it; takes minutes"
	@$(call install,$(BIN)/pip,$(TORCH))
	@echo "3/3 installing the service and its other dependencies: 200 MB; takes a minute or two"
	@$(call install,$(BIN)/pip,--editable .)
	@touch $@

.venv/.test-tools: .venv/.installed
	@echo "installing the test tools: 900 MB, half of it Spark; takes a few minutes"
	@mkdir -p build
	@$(call install,$(BIN)/pip,--quiet --upgrade "pip>=25.1")
	@$(call install,$(BIN)/pip,--group dev)
	@touch $@

system-packages:
	@sh tests/system-packages

check: test-tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: system-packages check
	$(BIN)/pytest $(UNIT_TESTS) --numprocesses $(WORKERS) --durations 10
	$(BIN)/pytest $(SYSTEM_TESTS) --numprocesses $(WAITERS) --durations 10

coverage: test-tools
	$(BIN)/pytest $(UNIT_TESTS) --numprocesses $(WORKERS) --cov --cov-report term-missing:skip-covered

demo: setup
	$(BIN)/slicewatch demo $(ARGS)

peers: $(PEER_ENVS)

.venv-peers/.installed: PEER := snorkel==0.10.0
.venv-mlserver/.installed: PEER := mlserver==1.7.1
.venv-litserve/.installed: PEER := litserve==0.2.19

$(PEER_ENVS): constraints.txt
	@sh .ci/check-python $(PYTHON)
	@echo "installing $(PEER) and PyTorch into $(@D) for comparison; takes minutes"
	@$(PYTHON) -m venv $(@D)
	@mkdir -p build
	@$(call install,$(@D)/bin/pip,$(TORCH))
	@$(@D)/bin/pip install --quiet $(PEER)
	@touch $@

bench: system-packages test-tools peers
	SLICEWATCH_DEMO_SEEDS=10 $(BIN)/python -m pytest -q tests/service/demo/test_seeds.py
	$(BIN)/python tests/benchmarks/results.py --peer-python $(PEERS)/python \
	  --mlserver .venv-mlserver/bin/python --litserve .venv-litserve/bin/python --out docs/results.md

chaos: test-tools
	@mkdir -p build
	PYTHONPATH=tests $(BIN)/python -m chaos.soak --minutes $(MINUTES) --out build/chaos.json
	SLICEWATCH_TEST_KILLS=$(KILLS) $(BIN)/python -m pytest -q tests/acceptance/test_ends.py
	SLICEWATCH_TEST_DEMO_KILLS=all $(BIN)/python -m pytest -q tests/acceptance/test_demo_kills.py
	SLICEWATCH_TEST_BODIES=20000 $(BIN)/python -m pytest -q tests/acceptance/test_malformed.py
	SLICEWATCH_TEST_EXAMPLES=25 $(BIN)/python -m pytest -q tests/acceptance/test_openapi.py

clean:
	rm -rf .venv .venv-peers .venv-mlserver .venv-litserve build dist var .coverage .coverage.*

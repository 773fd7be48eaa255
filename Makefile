# `make search` on a fresh clone sets everything up and runs the main job; `make help` lists the rest.

PYTHON ?= python3
VENV   ?= .venv
OUT    ?= runs/digits
CONFIG ?= configs/tenas_digits.yaml

# all but neural-tangents' own tests, which run for hours, and what needs a table, a cluster or other environments
BENCHMARKS := $(filter-out benchmarks/darts_cells.py benchmarks/neural_tangents_suite.py benchmarks/correlation.py benchmarks/score_ray.py benchmarks/versions.py benchmarks/measure.py benchmarks/networks_of_others.py benchmarks/peers.py benchmarks/gpu.py benchmarks/peers_networks.py benchmarks/peers_rows.py benchmarks/peers_scores.py,$(wildcard benchmarks/*.py))

BIN := $(VENV)/bin
# uv where it is there and works, else the standard library's venv and pip
UV  := $(shell uv --version >/dev/null 2>&1 && echo uv)
ifdef UV
INSTALL = uv pip install --quiet --python $(BIN)/python
MAKE_VENV = uv venv --quiet --clear --no-python-downloads --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
else
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
MAKE_VENV = $(PYTHON) -m venv --clear $(VENV)
endif

.DEFAULT_GOAL := help
.PHONY: help install search test suite lint bench docs clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 16
	@echo "Variables: PYTHON=$(PYTHON)  VENV=$(VENV)  CONFIG=$(CONFIG)  OUT=$(OUT)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jnas needs Python 3.11 or later, which '$(PYTHON)' is not:" \
	    "make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(MAKE_VENV)

# The stamp files say that the installation for this pyproject.toml is done.
$(VENV)/.installed: pyproject.toml requirements.txt | $(BIN)/python
	@echo "Installing jnas into $(VENV) (some minutes the first time) ..."
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV) ..."
	$(INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "Installing what builds the documentation into $(VENV) ..."
	$(INSTALL) -e '.[docs]'
	@touch $@

install: $(VENV)/.installed ## make .venv and install jnas into it, for a CPU

search: $(VENV)/.installed ## the main job: search, train, report, on the embedded data
	$(BIN)/jnas search $(CONFIG) --out $(OUT)

lint: $(VENV)/.installed-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(VENV)/.installed-dev ## lint, and every test
	@$(MAKE) --no-print-directory -j2 lint suite

suite: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --max-worker-restart 0

bench: $(VENV)/.installed ## print the speed tables of this machine
	@for file in $(BENCHMARKS); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

docs: $(VENV)/.installed-docs ## build the documentation into site/, from where it opens offline
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## remove the environment and the caches; runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .jax_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

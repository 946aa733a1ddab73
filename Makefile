# Everything a fresh machine needs is Python 3.11+ and make. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo ui test fuzz lint bench soak docs lock clean

help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## Create .venv and install the locked packages

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## Build the offline demo release, end to end
	$(BIN)/mmdata demo

ui: setup ## Open the demo workspace in the Dagster UI
	$(BIN)/mmdata demo --ui

test: setup ## Run the tests
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

soak: setup ## Kill builds some thousands of times: DEATHS=3000 SEED=0
	$(BIN)/python -m tests.crash.soak --deaths $(or $(DEATHS),3000) --seed $(or $(SEED),0)

fuzz: setup ## Feed some twenty thousand damaged files to the readers
	MMDATA_FUZZ=20 $(BIN)/python -m pytest tests/hostile/test_fuzz.py

lint: setup ## Format check, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup ## Run the benchmarks, each against a peer
	$(BIN)/python -m benchmarks

docs: setup ## Regenerate the generated reference pages
	$(BIN)/python -m docs.generate

lock: ## Rewrite requirements.lock from pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
	  --extra demo --extra s3 --extra postgres --extra video --extra faces --extra sites --extra metrics --extra train --extra smollm2 --extra dev pyproject.toml --custom-compile-command "make lock" -o requirements.lock --quiet

clean: ## Remove the virtual environment
	rm -rf $(VENV)

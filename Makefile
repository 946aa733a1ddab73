# Everything a fresh machine needs is Python 3.11 to 3.13 and make. `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
# Two workers a core: half of the tests wait for processes that they have started.
WORKERS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PYTHONS := 3.11 3.12 3.13

# Many containers forbid bytecode; every process would then compile torch and Dagster from source.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo ui test test-all fuzz soak lint bench docs lock clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

define install
test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install --quiet --upgrade uv
VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --compile-bytecode --require-hashes -r $(1)
VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --no-deps --no-build-isolation -e .
$(BIN)/python -m compileall -q mmdata pipelines training
endef

setup: $(READY) ## Create .venv and install what the demo needs

$(READY): requirements.lock pyproject.toml
	$(call install,requirements.lock)
	@touch $@

setup-dev: $(READY_DEV) ## Create .venv and install the development tools too

$(READY_DEV): requirements-dev.lock pyproject.toml
	$(call install,requirements-dev.lock)
	@touch $(READY) $@

demo: setup ## Build the offline demo release, end to end
	$(BIN)/mmdata demo

ui: setup ## Open the demo workspace in the Dagster UI
	$(BIN)/mmdata demo --ui

test: setup-dev ## Run the quick tests
	$(PYTEST) -m "not slow"

test-all: setup-dev ## Run every test, then the quick ones on each other Python that this machine has
	$(PYTEST)
	@for version in $(PYTHONS); do \
	  if ! $(BIN)/python -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] == '$$version')"; then continue; fi; \
	  if ! python$$version -c "" 2>/dev/null; then echo "no python$$version on this machine: not tested"; continue; fi; \
	  $(MAKE) test PYTHON=python$$version VENV=.venv-$$version || exit 1; \
	done

soak: setup-dev ## Kill builds some thousands of times: DEATHS=3000 SEED=0
	$(BIN)/python -m tests.crash.soak --deaths $(or $(DEATHS),3000) --seed $(or $(SEED),0)

fuzz: setup-dev ## Feed some ten thousands of damaged files, captions and rows to the readers
	MMDATA_FUZZ=20 $(BIN)/python -m pytest --durations=0 tests/hostile/test_fuzz*.py

lint: setup-dev ## Format check, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup-dev ## Run the benchmarks, each against a peer
	$(BIN)/python -m benchmarks

docs: setup-dev ## Regenerate the generated reference pages
	$(BIN)/python -m docs.generate

COMPILE = $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
  --python-version 3.11 --custom-compile-command "make lock" --quiet
DEV_EXTRAS := demo editable s3 postgres faces scores sites metrics smollm2 dev

lock: ## Rewrite both lock files from pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(COMPILE) --extra demo --extra editable pyproject.toml -o requirements.lock
	$(COMPILE) $(addprefix --extra ,$(DEV_EXTRAS)) --constraint requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## Remove the virtual environments
	rm -rf $(VENV) $(addprefix .venv-,$(PYTHONS))

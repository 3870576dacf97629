# Modelpier's commands. `make help` lists them; design and levels of tests are explained in CONTRIBUTING.md.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
STAMP := $(VENV)/.installed

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-22s %s\n", $$1, $$2}'

# ------------------------------------------------------------------------------------------------- environment
$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed: set PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: install your system's package python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): $(BIN)/uv requirements/dev.txt pyproject.toml
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/dev.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.PHONY: venv
venv: $(STAMP) ## the Python environment of all development commands (.venv)

COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" pyproject.toml
.PHONY: lock
lock: $(BIN)/uv ## pin all dependencies with hashes into requirements/
	for extra in operator server server-gpu; do $(COMPILE) --extra $$extra -o requirements/$$extra.txt; done
	$(COMPILE) --group build -o requirements/build.txt
	$(COMPILE) --group demo -o requirements/demo.txt
	$(COMPILE) --extra operator --extra server --group dev --group demo --group build -o requirements/dev.txt

# ------------------------------------------------------------------------------------------------- quality
.PHONY: check
check: venv ## formatter, linter, types, import contracts, drift of generated files
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo >/dev/null || { $(BIN)/lint-imports; exit 1; }

.PHONY: format
format: venv ## rewrite the code as `make check` wants it
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

STAGES := $(PYTHON) tests/stages.py
.PHONY: test test-unit test-control-plane test-e2e
test: venv ## every test that this machine can run, with the time that each level took against its budget
	$(STAGES)
test-unit: venv ## seconds, no network
	$(STAGES) unit
test-control-plane: venv ## against a real API server; no root
	$(STAGES) cluster-build control-plane
test-e2e: venv ## on real nodes with the built images
	$(STAGES) cluster-build e2e

# ------------------------------------------------------------------------------------------------- cluster
CLUSTER ?= modelpier
NODES ?= 2
GPUS ?= 2
CLUSTERCTL := $(PYTHON) cluster/cluster.py
# Left empty when the user has a cluster: then nothing local is started or asked.
LOCAL := $(if $(KUBECONFIG),,local)

.PHONY: cluster-build cluster-up cluster-down cluster-status cluster-env
cluster-build: ## build the local cluster's programs (cached; about 5 minutes of two cores the first time)
	$(CLUSTERCTL) build
cluster-up: ## a real Kubernetes on this machine
	$(CLUSTERCTL) up --name $(CLUSTER) --nodes $(NODES) --gpus $(GPUS)
cluster-down: ## remove it without a trace
	$(CLUSTERCTL) down --name $(CLUSTER)
cluster-status: ## what runs and where it answers
	$(CLUSTERCTL) status --name $(CLUSTER)
cluster-env: ## lines for eval: KUBECONFIG, kubectl, registry, object storage
	@$(CLUSTERCTL) kubeconfig env --name $(CLUSTER)

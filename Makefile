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
# A company's certificate authority is in the system's store, which pip looks into and uv does only when told; where there
# is no store, uv's own list does.
export UV_SYSTEM_CERTS ?= $(if $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem),true,false)

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-22s %s\n", $$1, $$2}'

# ------------------------------------------------------------------------------------------------- environment
$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed: set PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: install your system's package python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): $(BIN)/uv requirements/dev.txt pyproject.toml
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.PHONY: venv
venv: $(STAMP) ## the Python environment of all development commands (.venv)

CONVERT_VENV := .venv-convert
$(CONVERT_VENV)/.installed: requirements/convert.txt requirements/demo-text.txt | $(BIN)/uv
	$(BIN)/uv venv --quiet --allow-existing --python $(PYTHON) $(CONVERT_VENV)
	VIRTUAL_ENV=$(CONVERT_VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/convert.txt
	VIRTUAL_ENV=$(CONVERT_VENV) $(BIN)/uv pip install --quiet --require-hashes --no-deps -r requirements/demo-text.txt
	touch $@

.PHONY: venv-convert
venv-convert: $(CONVERT_VENV)/.installed ## the converter's own environment with torch (about 6 GB)

GPU_VENV := .venv-gpu
$(GPU_VENV)/.installed: requirements/dev.txt requirements/cuda.txt pyproject.toml | $(BIN)/uv
	$(BIN)/uv venv --quiet --allow-existing --python $(PYTHON) $(GPU_VENV)
	VIRTUAL_ENV=$(GPU_VENV) $(BIN)/uv pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	# Both bring the package `onnxruntime`.
	VIRTUAL_ENV=$(GPU_VENV) $(BIN)/uv pip uninstall --quiet onnxruntime
	VIRTUAL_ENV=$(GPU_VENV) $(BIN)/uv pip install --quiet --no-deps --require-hashes --reinstall-package onnxruntime-gpu -r requirements/cuda.txt
	VIRTUAL_ENV=$(GPU_VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.PHONY: venv-gpu
venv-gpu: $(GPU_VENV)/.installed ## the development environment with onnxruntime-gpu and CUDA's libraries (about 4 GB)

COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" --override requirements/overrides.txt pyproject.toml
.PHONY: lock
lock: $(BIN)/uv ## pin all dependencies with hashes into requirements/
	for extra in operator server server-gpu convert; do $(COMPILE) --extra $$extra -o requirements/$$extra.txt; done
	$(COMPILE) --group build -o requirements/build.txt
	$(COMPILE) --group cuda -o requirements/cuda.txt
	$(COMPILE) --group demo -o requirements/demo.txt
	$(COMPILE) --no-deps --group demo-text -o requirements/demo-text.txt
	$(COMPILE) --extra operator --extra server --group dev --group demo --group build -o requirements/dev.txt

# ------------------------------------------------------------------------------------------------- quality
.PHONY: check
check: venv ## formatter, linter, types, import contracts, drift of generated files
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports >/dev/null || { $(BIN)/lint-imports; exit 1; }
	$(BIN)/python -m modelpier_operator.api.generate --check
	$(BIN)/python -m modelpier_server.protocol.grpc.generate --check

.PHONY: format
format: venv ## rewrite the code as `make check` wants it
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

STAGES := $(PYTHON) tests/stages.py
MINUTES ?= 10
EXECUTIONS ?= 0
WORKERS ?= 1
.PHONY: test test-unit test-control-plane test-e2e test-gpu test-heavy fuzz
test: venv ## every test that this machine can run, with the time that each level took against its budget
	$(STAGES)
test-unit: venv ## seconds, no network
	$(STAGES) unit
test-control-plane: venv ## against a real API server; no root
	$(STAGES) cluster-build control-plane
test-e2e: venv ## on real nodes with the built images
	$(STAGES) $(if $(LOCAL),cluster-build) e2e
test-gpu: venv-gpu ## the server on an NVIDIA GPU, of which this machine must have one
	$(GPU_VENV)/bin/python -m pytest tests/gpu
fuzz: venv ## mutate what clients may send: MINUTES=10, or EXECUTIONS=10000000; WORKERS=2; KEEP=1 renews the saved corpus
	PYTHONPATH=tests $(BIN)/python -m fuzz.campaign --minutes $(MINUTES) --executions $(EXECUTIONS) --workers $(WORKERS) $(if $(KEEP),--keep)
test-heavy: venv venv-convert ## what `make test` leaves out: torch, long loads
	$(STAGES) cluster-build heavy

# ------------------------------------------------------------------------------------------------- cluster
CLUSTER ?= modelpier
NODES ?= 2
GPUS ?= 2
CLUSTERCTL := $(PYTHON) cluster/cluster.py
# Empty when the user has a cluster of their own: then nothing local is started or asked. A KUBECONFIG that names the local
# cluster (after `eval "$$(make -s cluster-env)"`) is no other one.
ifdef KUBECONFIG
LOCAL := $(if $(filter $(KUBECONFIG),$(shell $(CLUSTERCTL) kubeconfig --name $(CLUSTER) 2>/dev/null)),local,)
else
LOCAL := local
endif

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
	@$(CLUSTERCTL) env --name $(CLUSTER)

# ------------------------------------------------------------------------------------------------- images and chart
# With KUBECONFIG set these work on that cluster, and REGISTRY says where its nodes pull from; else on the local one.
REGISTRY ?=
# Named by content: a tag never changes what it means, and an unchanged image is neither built nor pulled again.
ifndef TAG
TAG := $(shell cat requirements/operator.txt requirements/server*.txt requirements/build.txt requirements/image.sh operator/Dockerfile model_server/Dockerfile pyproject.toml $$(find operator/modelpier_operator model_server/modelpier_server -type f -not -path '*/__pycache__/*' | sort) | sha256sum | cut -c1-12)
endif
export TAG
NAMESPACE ?= modelpier-system
HELM_ARGS ?=
# An assignment of its own: in `eval "$$(...)"` a failure would go unseen, and helm would talk to whatever cluster is current.
USE_CLUSTER = if [ -n "$(LOCAL)" ]; then variables="$$($(CLUSTERCTL) env --name $(CLUSTER))"; eval "$$variables"; fi
BUILD_WITH = $(shell command -v docker >/dev/null && docker info >/dev/null 2>&1 && echo docker || echo buildah)

.PHONY: images images-gpu install uninstall generate
images: ## build the images and put them where the cluster's nodes pull from
	@if [ -n "$(LOCAL)" ]; then
	  $(CLUSTERCTL) image build . modelpier-operator:$(TAG) --file operator/Dockerfile
	  $(CLUSTERCTL) image build . modelpier-server:$(TAG) --file model_server/Dockerfile --target cpu
	  for image in operator server; do $(CLUSTERCTL) load --name $(CLUSTER) modelpier-$$image:$(TAG); done
	else
	  [ -n "$(REGISTRY)" ] || { echo "KUBECONFIG is set: say where its nodes pull from, as in 'make images REGISTRY=registry.example.com/models'" >&2; exit 1; }
	  $(BUILD_WITH) build -f operator/Dockerfile -t $(REGISTRY)/modelpier-operator:$(TAG) .
	  $(BUILD_WITH) build -f model_server/Dockerfile --target cpu -t $(REGISTRY)/modelpier-server:$(TAG) .
	  for image in operator server; do $(BUILD_WITH) push $(REGISTRY)/modelpier-$$image:$(TAG); done
	fi
images-gpu: ## the GPU server's image, too (about 2 GB of CUDA libraries on its usual base)
	@if [ -n "$(LOCAL)" ]; then
	  $(CLUSTERCTL) image build . modelpier-server-gpu:$(TAG) --file model_server/Dockerfile --target gpu
	  $(CLUSTERCTL) load --name $(CLUSTER) modelpier-server-gpu:$(TAG)
	else
	  [ -n "$(REGISTRY)" ] || { echo "KUBECONFIG is set: say where its nodes pull from, as in 'make images-gpu REGISTRY=registry.example.com/models'" >&2; exit 1; }
	  $(BUILD_WITH) build -f model_server/Dockerfile --target gpu -t $(REGISTRY)/modelpier-server-gpu:$(TAG) .
	  $(BUILD_WITH) push $(REGISTRY)/modelpier-server-gpu:$(TAG)
	fi
# On the local cluster GPUs are pretended: pods that ask for one run the CPU server's image there.
install: ## helm upgrade --install the chart into the current cluster
	@$(USE_CLUSTER)
	$${MODELPIER_HELM:-helm} upgrade --install modelpier charts/modelpier --namespace $(NAMESPACE) --create-namespace --wait --timeout 5m \
	  --set image.registry=$${MODELPIER_REGISTRY:-$(REGISTRY)} --set operator.image.tag=$(TAG) --set server.image.tag=$(TAG) \
	  --set server.gpuImage.repository=$(if $(LOCAL),modelpier-server,modelpier-server-gpu) --set server.gpuImage.tag=$(TAG) $(HELM_ARGS)
uninstall: ## helm uninstall; ModelDeployments and their CRD stay
	@$(USE_CLUSTER)
	$${MODELPIER_HELM:-helm} uninstall modelpier --namespace $(NAMESPACE) --wait
generate: venv ## write everything that is generated: CRD, reference pages, gRPC messages
	$(BIN)/python -m modelpier_operator.api.generate
	$(BIN)/python -m modelpier_server.protocol.grpc.generate

# ------------------------------------------------------------------------------------------------- the main job
.PHONY: demo demo-text
demo: venv ## a real model on a real Kubernetes: served, called, and version 2 rolled in under load
	@if [ -n "$(LOCAL)" ]; then $(MAKE) --no-print-directory cluster-up; fi
	@$(MAKE) --no-print-directory images install
	@$(USE_CLUSTER)
	PYTHONPATH=examples $(BIN)/python -m digits.demo
demo-text: venv venv-convert ## a sentence encoder, converted from torch with its tokenizer: sentences in, embeddings out
	@if [ -n "$(LOCAL)" ]; then $(MAKE) --no-print-directory cluster-up; fi
	@$(MAKE) --no-print-directory images install
	@$(USE_CLUSTER)
	PYTHONPATH=examples $(BIN)/python -m sentences.demo --converter $(CONVERT_VENV)/bin/python

# ------------------------------------------------------------------------------------------------- measurements
.PHONY: bench-operator bench-isolation bench-gpu bench-server bench-analysis lock-peers
bench-operator: venv ## ours and a Go controller of the same job, side by side on a real API server
	$(BIN)/python -m bench.operator $(ARGS)
bench-isolation: venv ## what a process of its own costs a model's run
	$(BIN)/python -m bench.isolation $(ARGS)
bench-gpu: venv-gpu ## runs and the server on an NVIDIA GPU, with CUDA graphs and without
	$(GPU_VENV)/bin/python -m bench.gpu $(ARGS)
bench-server: venv ## our model server, its peers and the limits side by side; peers are installed on first use (2 GB)
	$(BIN)/python -m bench.server $(ARGS)
bench-analysis: venv ## how often the analysis of a candidate is wrong, by simulation (3 minutes of two cores)
	$(BIN)/python -m bench.analysis $(ARGS)
# PyTriton does not start with 3.11.
lock-peers: $(BIN)/uv ## pin the peers of bench-server with hashes
	cd bench/server/peers && for peer in *.in; do
	  $(CURDIR)/$(BIN)/uv pip compile --quiet --generate-hashes --python-version $$([ $$peer = pytriton.in ] && echo 3.12 || echo 3.11) \
	    --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock-peers" $$peer -o $${peer%.in}.txt
	done

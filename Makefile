.DEFAULT_GOAL := help
SHELL := /bin/bash
UV ?= $(shell command -v uv 2>/dev/null || echo .run/uv/bin/uv)
RUN = $(UV) run --frozen --no-sync
# A Python that is on the machine: none is ever downloaded.
export UV_PYTHON_DOWNLOADS := never
export UV_PYTHON_PREFERENCE := only-system
# Compiled once, not at every start of an operator or a command, whatever the shell says.
export UV_COMPILE_BYTECODE := 1
export PYTHONDONTWRITEBYTECODE :=

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

setup: .run/ready  ## uv, the locked dependencies, PostgreSQL, pgbouncer, the control plane's binaries

demo: setup  ## a cluster, a PostgreSQL, the operator and the examples; ONCE=1 ends by itself
	@$(RUN) python -m hack.demo $(if $(ONCE),--once)

# Three workers keep two cores busy, for half of a cluster test is waiting. A file stays with one worker, and a worker
# has a control plane, operator and PostgreSQL of its own as soon as one of its tests asks for them. The files come in
# order, the slow ones first.
test: setup  ## everything: unit, contract, integration, cluster; ARGS="-k name" for some, "-n 0" in one process
	@$(RUN) python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup check-diff  ## lint, types, import contracts, generated files
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) lint-imports

generate: setup  ## write crds/, roles, JSON Schemas and the types' pages from the models
	@$(RUN) python -m tools.generate

check-diff: setup  ## fail where a generated file is not what `make generate` writes
	@$(RUN) python -m tools.generate --check

bench: setup  ## measure: make bench BENCH=operator
	@$(RUN) python -m benchmarks $(or $(BENCH),operator) $(ARGS)

cluster-up: setup  ## a control plane on loopback that stays up
	@$(RUN) python -m hack.cluster up

cluster-down:  ## stop it
	@$(RUN) python -m hack.cluster down

.run/ready: pyproject.toml uv.lock hack/setup.sh hack/cluster/k8s/go.sum hack/cluster/etcd/go.sum
	@UV=$(UV) hack/setup.sh
	@touch $@

.PHONY: help setup demo test check generate check-diff bench cluster-up cluster-down

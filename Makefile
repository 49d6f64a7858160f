# Two commands do everything on a fresh machine with Python >= 3.11, git and make: `make run` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: run test lint slow kubernetes gpu bench faults audit image clean

run: $(VENV)/.installed
	$(BIN)/lehr run jobs/train.yaml

# PROCESSES: how many run tests side by side, one thread each.
PROCESSES ?= 2

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PROCESSES) --dist loadfile -m "not slow and not gpu and not kubernetes"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: $(VENV)/.installed-test
	$(BIN)/pytest -m slow

# LEHR_KUBERNETES: a folder whose program `up DIR` starts a Kubernetes of one node; see tests/kubernetes/conftest.py.
LEHR_KUBERNETES ?= $(wildcard $(CURDIR)/../shared/kubernetes)

kubernetes: $(VENV)/.installed-test
	LEHR_KUBERNETES="$(LEHR_KUBERNETES)" $(BIN)/pytest tests/kubernetes -m kubernetes --durations 5

gpu: $(VENV)/.installed-test
	$(BIN)/pytest -m gpu

bench: $(VENV)/.installed-test
	$(BIN)/python -m tests.benchmarks.results

# FAULTS: the number of random fault stories, and of random schedules of writers that sleep; FUZZ: the number of tries of
# each fuzz test. Prints a table of what was broken at the end. Started again after an interruption, it skips the stories
# that are already in faults.jsonl.
FAULTS ?= 200
FUZZ   ?= 2000

faults: $(VENV)/.installed-test
	FAULTS=$(FAULTS) FENCING=$(FAULTS) IO=all FUZZ=$(FUZZ) FAULTS_LOG=$(CURDIR)/faults.jsonl $(BIN)/pytest tests/faults --timeout 1800
	$(BIN)/python -m tests.faults.table faults.jsonl
	rm faults.jsonl

# Checks that the installed packages are compatible, and that none has a known vulnerability, where an advisory service
# can be reached. pip-audit has an environment of its own, so its dependencies do not mix with those it audits.
audit: $(VENV)/.installed-test
	$(BIN)/python -m pip check
	test -x $(VENV)/audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)/audit && \
	  $(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	$(BIN)/python -m tests.faults.audit $(VENV)/audit/bin/pip-audit constraints.txt

# DOCKER: docker, podman or buildah. PIP_INDEX_URL and TORCH_INDEX_URL name the package indexes for all packages and for
# torch; PyTorch's index of CPU wheels makes an image for CPUs. The default is the index that pip is configured with.
DOCKER  ?= docker
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE   ?= lehr:$(VERSION)

image:
	$(DOCKER) build $(foreach name,PYTHON_IMAGE PIP_INDEX_URL TORCH_INDEX_URL EXTRAS PACKAGES,$(if $($(name)),--build-arg $(name)="$($(name))")) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) --build-arg CREATED=$(shell date -u +%Y-%m-%dT%H:%M:%SZ) \
	  $(BUILD_OPTIONS) -t $(IMAGE) .

clean:
	rm -rf $(VENV)

# constraints.txt pins the versions that were tested together.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("lehr needs Python 3.11 to 3.13, but $(PYTHON) is " + sys.version.split()[0] + "; name another one with PYTHON=") if not (3, 11) <= sys.version_info < (3, 14) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/.installed

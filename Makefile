# make run       run the whole pipeline on the demo corpus, print the score table and where the report is
# make test      run the tests that matter for a change: all but the slow ones
# make test-slow run the slow tests: the fault campaign, trainings, the site
# make test-all  run all tests: these two, and those of `make test-nightly`, which take longest
# make dist      build a wheel and an sdist into dist/
# make docs      build the documentation site into site/; a broken link or anchor fails it
# Each makes .venv and installs pinned dependencies first, and again whenever those change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles what is imported; all of torch would take a minute.
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt

.PHONY: run test test-slow test-nightly test-all lint types check dist docs setup clean

run: setup
	$(BIN)/melmill fetch demo data/demo
	$(BIN)/melmill run pipeline.yaml

# Two files at a time: tests wait for servers and processes as much as they compute. The longest
# files go first, so that no worker waits for one at the end.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: setup
	$(BIN)/python -m tests.compiling
	$(PYTEST) -m 'not slow and not nightly' tests/test_extending.py tests/test_packaging.py tests/flows tests/objects tests docs/generate melmill

test-slow: setup
	$(PYTEST) -m 'slow and not nightly' tests/test_fault_campaign.py tests

test-nightly: setup
	$(PYTEST) -m nightly tests

test-all: test test-slow test-nightly

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test

# Built by the pinned setuptools of .venv. The wheel is built from the sdist, so that both hold the same.
dist: setup
	rm -rf build dist
	$(BIN)/python -m build --no-isolation

# The gallery plays the run of `make run`, which has nothing to do the second time.
docs: run
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict
	@echo "documentation: $$(pwd)/site/index.html"

# An environment is remade when it is incomplete, moved, of another Python, or older than what it should hold.
setup:
	@set -e; \
	wanted="$$(cat pyproject.toml constraints.txt Makefile | cksum) $$($(PYTHON) --version) $$(pwd)"; \
	if [ "$$(cat $(VENV)/ready 2>/dev/null)" != "$$wanted" ] || ! $(BIN)/python -c 'import melmill.flows' 2>/dev/null; then \
		echo "installing into $(VENV) (once, some minutes)" >&2; \
		rm -rf $(VENV); \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "melmill needs Python 3.11 or newer: make PYTHON=python3.12 ...")'; \
		$(PYTHON) -m venv $(VENV); \
		$(PIP) torch==2.13.0; \
		$(PIP) --editable '.[demo,dev]'; \
		$(PIP) pesq 2>$(VENV)/pesq.log || echo "pesq could not be built here (see $(VENV)/pesq.log): its comparison with ours is skipped" >&2; \
		echo "$$wanted" > $(VENV)/ready; \
	fi

clean:
	rm -rf $(VENV) data/demo runs build dist site *.egg-info

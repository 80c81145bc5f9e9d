# make run   run the whole pipeline on the demo corpus, print the score table and where the report is
# make test  run all tests
# make docs  build the documentation site into site/; a broken link or anchor fails it
# Both make .venv and install pinned dependencies first, and again whenever those change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test lint types check docs setup clean

run: setup
	$(BIN)/melmill fetch demo data/demo
	$(BIN)/melmill run pipeline.yaml

# Tests wait for servers and processes as much as they compute, so that two files are run at a time.
test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test

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
		$(PIP) pesq 2>$(VENV)/pesq.log || echo "pesq could not be built here (see $(VENV)/pesq.log): PESQ will say not_installed" >&2; \
		echo "$$wanted" > $(VENV)/ready; \
	fi

clean:
	rm -rf $(VENV) data/demo runs build site *.egg-info

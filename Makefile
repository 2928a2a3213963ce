# Every target sets up a bare machine by itself: Python 3.11 or newer and pip are all it needs.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
BIN := $(VENV)/bin

.PHONY: demo test test-all lint types contracts check bench clean

demo: $(INSTALLED)  ## the whole loop on the built-in phantom, report in runs/demo/report.html
	$(BIN)/promptlesion demo --out runs/demo

test: $(INSTALLED)  ## the quick suite
	$(BIN)/python -m pytest -m "not slow"

test-all: $(INSTALLED)  ## the quick and the slow suite
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

contracts: $(INSTALLED)
	$(BIN)/lint-imports

check: lint types contracts test

bench: $(INSTALLED)  ## how fast every part is on this machine, and how cost grows: runs/bench; DATA="FOLDER ..." LESIONS="FILE ..."
	$(BIN)/python benchmarks/speed.py --out runs/bench $(addprefix --data ,$(DATA)) $(addprefix --lesions ,$(LESIONS))
	$(BIN)/python benchmarks/growth.py --out runs/bench

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

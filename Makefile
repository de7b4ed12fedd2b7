# Two commands for a fresh machine: `make demo` and `make test`. Needs Python >= 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A file's tests share what they train: one process runs them. The slow files come first.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-fast lint clean

demo: $(VENV)/installed ## Prepare synthetic data, train, evaluate a grid, write the report.
	$(BIN)/hyperrec prepare synthetic --output data/synthetic
	$(BIN)/hyperrec train --config configs/synthetic.py --workdir runs/synthetic
	$(BIN)/hyperrec evaluate --workdir runs/synthetic --grid 25

test: $(VENV)/installed-dev lint ## Lint, type-check and test.
	$(PYTEST)

test-fast: $(VENV)/installed-dev ## The tests of mathematics, texts and files; no training, no processes.
	$(PYTEST) -m "not slow"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

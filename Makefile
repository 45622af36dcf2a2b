# Two commands: `make demo` and `make test`. Nothing but Python (>= 3.10) and git is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# No user's Ultralytics settings are touched, and no test or demo waits for the network.
export YOLO_CONFIG_DIR ?= $(CURDIR)/$(VENV)
export YOLO_OFFLINE ?= True
export YOLO_AUTOINSTALL ?= False

.PHONY: demo test test-oldest test-matrix mutate lint docs dist clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term

# The oldest versions that pyproject.toml allows; wants Python 3.10: make test-oldest PYTHON=python3.10
test-oldest:
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-oldest/bin/python -m pip install --quiet --constraint .ci/oldest.txt --editable ".[test]"
	$(VENV)-oldest/bin/python -m pytest -n 2 --dist loadgroup

# The seams and paths on the oldest, a middle and the newest versions; wants Python 3.10, 3.12 and 3.13 (docs/versions.md)
test-matrix:
	$(PYTHON) scripts/check_versions.py

# Mutants of det_ls/smoothing and det_ls/losses; goes on where it was stopped (docs/mutation_testing.md)
mutate: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[test,mutation]"
	$(BIN)/python scripts/check_mutants.py

lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Source distribution and wheel in dist/, as they would be published
dist: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet build twine
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-middle $(VENV)-newest .mutation .site dist runs/demo

# `make demo` and `make test` are complete on a fresh machine (Linux, Python 3.11+, make). CONTRIBUTING.md has the rest.

PYTHON ?= python3
VENV   ?= .venv
PIP    := $(VENV)/bin/python -m pip install --disable-pip-version-check -q
DEMO   ?= full

# CPU-only users may name a package index of CPU builds for torch: make setup TORCH_INDEX=URL
TORCH_INDEX ?=

.PHONY: setup demo test slow chaos coverage bench style wheel clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@echo 'setting up $(VENV): about a minute, or the time it takes to download torch'
	$(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX),)
	$(PIP) -c constraints.txt torch torchvision --index-url $(TORCH_INDEX)
else
	$(PIP) -c constraints.txt torch
endif
	$(PIP) -c constraints.txt -e '.[eval,tensorboard,dev]'
	touch $@

demo: setup
	$(VENV)/bin/python scripts/demo.py $(DEMO)

test: setup
	$(VENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

slow: setup
	$(VENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m slow --ignore tests/chaos

chaos: setup
	$(VENV)/bin/python -m pytest -s -m slow tests/chaos

bench: setup
	$(VENV)/bin/python benchmarks/run.py

style: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# Statements and branches that the tests of `make test` run, their subprocesses included.
coverage: setup
	$(VENV)/bin/coverage erase
	$(VENV)/bin/coverage run -m pytest -n auto --dist loadfile --no-loadscope-reorder
	$(VENV)/bin/coverage combine -q
	$(VENV)/bin/coverage report

# The wheel, installed into an empty environment: does every command explain itself there?
wheel: setup
	$(PIP) wheel --no-deps -w dist .
	$(VENV)/bin/python -m pytest -m slow tests/test_packaging.py

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .coverage .coverage.* OUTPUT/demo OUTPUT/demo_small *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

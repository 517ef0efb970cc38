# make serve, make test, make check, make bench, make clean. Python: make serve PYTHON=python3.12

PYTHON ?= python3
# What pytest is to be given: make test ARGS="tests/test_wire.py -x"
ARGS ?=
VENV := .venv
SOURCES := sseflask tests benchmarks wsgi.py

.PHONY: help serve test check bench clean

help:
	@echo "make serve   the service on http://127.0.0.1:8000, in development mode"
	@echo "make test    the whole test suite"
	@echo "make check   ruff, mypy and import-linter"
	@echo "make bench   the benchmarks, ten minutes (ARGS=--help for their options)"
	@echo "make clean   removes what these made"

serve: $(VENV)/service
	$(VENV)/bin/sseflask serve --dev

test: $(VENV)/test
	$(VENV)/bin/python -m pytest $(ARGS)

check: $(VENV)/test
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/bench
	$(VENV)/bin/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info tests/node/node_modules
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra; a change of what is needed installs again.
$(VENV)/service $(VENV)/test $(VENV)/bench: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$(@F)]"
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" \
	|| { echo "sseflask needs Python 3.10 or newer: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null \
	|| { echo "Python's venv module is missing: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

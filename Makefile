# make serve, make test, make check, make bench, make clean. Python: make serve PYTHON=python3.12

PYTHON ?= python3
# What pytest is to be given: make test ARGS="tests/unit/test_wire.py -x"
ARGS ?=
# How many processes run the tests: most live tests wait, so there are more than cores.
JOBS ?= $(shell echo $$((4 * $$(getconf _NPROCESSORS_ONLN))))
VENV := .venv
# The tests start some hundred Python processes: none is to compile every module anew.
unexport PYTHONDONTWRITEBYTECODE
# A file's tests share their servers. Those that wait longest come first, see tests/conftest.py.
BY_FILE := --dist loadfile --no-loadscope-reorder
# The tests that start no server; each process takes over what others have not begun.
FAST := --numprocesses $(JOBS) --dist worksteal --ignore=tests/live --ignore=tests/benchmarks
SOURCES := sseflask tests benchmarks examples wsgi.py

.PHONY: help serve test test-fast test-lowest test-newest check bench clean

help:
	@echo "make serve   the service on http://127.0.0.1:8000, in development mode"
	@echo "make test    the whole test suite, in parallel (JOBS=1: one by one)"
	@echo "make test-fast   the tests that start no server, within a minute"
	@echo "make test-lowest, make test-newest   the same on the lowest versions of every"
	@echo "             dependency, and on the newest with pre-releases"
	@echo "make check   ruff, mypy and import-linter"
	@echo "make bench   the benchmarks, ten minutes (ARGS=--help for their options)"
	@echo "make clean   removes what these made"

serve: $(VENV)/service
	$(VENV)/bin/sseflask serve --dev

test: $(VENV)/test
	$(VENV)/bin/python -m pytest --numprocesses $(JOBS) $(BY_FILE) -m "not fresh_clone" $(ARGS)

test-fast: $(VENV)/test
	$(VENV)/bin/python -m pytest $(FAST) $(ARGS)

test-lowest test-newest: test-%: $(VENV)-%/unit
	$(<D)/bin/python -m pytest $(FAST) $(ARGS)

check: $(VENV)/test
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/bench
	$(VENV)/bin/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-* build dist *.egg-info tests/node/node_modules
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra; a change of what is needed installs again.
$(VENV)/service $(VENV)/test $(VENV)/bench: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$(@F)]"
	@touch $@

# uv is what can choose the lowest versions.
$(VENV)-lowest/unit: RESOLUTION := --resolution lowest-direct
$(VENV)-newest/unit: RESOLUTION := --upgrade --prerelease allow
$(VENV)-%/unit: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(@D)/bin/uv pip install --quiet --python $(@D) $(RESOLUTION) --editable ".[unit]"
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" \
	|| { echo "sseflask needs Python 3.10 or newer: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null \
	|| { echo "Python's venv module is missing: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

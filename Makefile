# Set-up and every check, from a bare machine with Python 3.11 or newer and make.
#
#   make demo    install what running needs, then the main job on the embedded data, results in demo/
#   make test    install what developing needs, then `make check`
#   make check   lint, format, types, import contract, tests and doctests
#   make slow    the tests marked slow

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt
# Editable, so that an edit under src/ never runs as an old copy. With $(1) = extras.
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.$(1)'

.PHONY: demo test check slow format

demo: $(VENV)/installed
	$(BIN)/ohmgrad compare --out demo

test: check

# pytest comes last, so that its closing line is the last line.
check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses 2 --dist loadfile

slow: $(VENV)/installed-dev
	$(BIN)/pytest -m slow

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "ohmgrad needs Python 3.11 or newer, found none" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"ohmgrad needs Python 3.11 or newer, got {v}")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(PINS) | $(BIN)/python
	$(call INSTALL,)
	touch $@

$(VENV)/installed-dev: $(PINS) | $(BIN)/python
	$(call INSTALL,[dev])
	touch $(VENV)/installed $@

# `make demo` and `make test` are all that is needed after a clone; both set up what they need in .venv.

VENV   := .venv
PYTHON ?= $(firstword $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done) none)
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
SIDE_BY_SIDE := -n auto --dist worksteal
QUICK := tests/unit tests/sql
SERVERS := tests/contract tests/e2e tests/typing
FAULTS := tests/chaos tests/functions tests/torture

.PHONY: help demo test quick lint migrations reference bench soak torture clean
help:
	@echo "make demo        sync a real mailbox through the queue, on this machine (options: ARGS='--messages 5000')"
	@echo "make test        run the tests"
	@echo "make quick       run the unit and sql tests only, side by side"
	@echo "make lint        check style and types"
	@echo "make migrations  build supabase/migrations from supabase/schemas"
	@echo "make reference   build docs/api from the docstrings"
	@echo "make bench       measure against pgmq, procrastinate and an imaplib script (half an hour)"
	@echo "make soak        run the queue for a long time, with failures"
	@echo "make torture     break everything that the queue stands on, by ten seeds, and check what came of it (options: ARGS='--seed 7')"
	@echo "make clean       remove .venv"

demo: $(VENV)/.demo
	@$(BIN)/supabase-chunks demo $(ARGS)

# The unit and sql tests side by side; then those with servers of their own, which often wait, three files at once; those that
# break servers, beside the functions' own tests; and alone all others, which watch clocks. With ARGS what these say.
test: $(VENV)/.dev
ifeq ($(strip $(ARGS)),)
	@failed=0; \
		$(PYTEST) -q $(SIDE_BY_SIDE) $(QUICK) || failed=1; \
		$(PYTEST) -q -n 3 --dist loadfile $(SERVERS) || failed=1; \
		$(PYTEST) -q -n 2 --dist loadgroup $(FAULTS) || failed=1; \
		$(PYTEST) -q tests $(addprefix --ignore=,$(QUICK) $(SERVERS) $(FAULTS)) || failed=1; \
		exit $$failed
else
	@$(PYTEST) -q $(ARGS)
endif

quick: $(VENV)/.dev
	@$(PYTEST) -q $(SIDE_BY_SIDE) $(QUICK) $(ARGS)

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

migrations: $(VENV)/.dev
	@$(BIN)/python -m tools.build_migrations

reference: $(VENV)/.dev
	@$(BIN)/python -m tools.build_api_reference

bench: $(VENV)/.dev
	@$(BIN)/python -m tests.benchmarks $(ARGS)

soak: $(VENV)/.dev
	@$(PYTEST) -q -m soak $(ARGS)

torture: $(VENV)/.dev
	@$(BIN)/python -m tests.torture $(ARGS)

clean:
	@rm -rf $(VENV)

# Which packages are there is written in the stamp's name; it is remade when pyproject.toml changes.
$(VENV)/.demo: EXTRAS = local,demo
$(VENV)/.demo: STAMPS = $(VENV)/.demo
$(VENV)/.dev: EXTRAS = local,demo,dev
$(VENV)/.dev: STAMPS = $(VENV)/.dev $(VENV)/.demo
$(VENV)/.demo $(VENV)/.dev: pyproject.toml | $(VENV)/.python
	@echo "Installing supabase-chunks[$(EXTRAS)] into $(VENV) (the first time takes a minute or two) …"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --no-user \
		--editable '.[$(EXTRAS)]' || { \
		echo "The packages could not be installed: the first run needs the Python package index (or the mirror in" \
			"your pip settings). Check the network and run it again." >&2; exit 1; }
	@touch $(STAMPS)

$(VENV)/.python:
	@if [ "$(PYTHON)" = none ]; then \
		echo "supabase-chunks needs Python 3.11 or newer; $$(python3 --version 2>/dev/null || echo 'there is none on PATH')." \
			"Install a newer one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "supabase-chunks needs Python 3.11 or newer, and $(PYTHON) is not: name another, as in" \
			"make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: apt install python3-venv)." >&2; \
		exit 1; }
	@touch $@

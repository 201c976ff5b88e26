# The two commands a newcomer needs are `make demo` and `make test`; both install what they need into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test soak matrix lint types bench reference clean

help: ## Show this help.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "spanledger needs Python 3.11 or newer; try 'make PYTHON=python3.12 $(MAKECMDGOALS)'"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install -q --python $(BIN)/python -e . --group dev
	@touch $@

install: $(VENV)/.installed ## Make .venv and install everything into it.

demo: install ## The main job: an application, a provider of our own, and the report.
	@BIN=$(BIN) examples/demo.sh

test: install ## All tests but the slow ones, on up to four processors.
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

soak: install ## The long forms: kills, power cuts, outages, servers, then hostile answers for every SDK; takes hours.
	SPANLEDGER_SOAK=1 $(BIN)/python -m pytest --timeout 0 tests/recording tests/postgresql tests/trips
	SPANLEDGER_SOAK=1 $(BIN)/python -m pytest --timeout 0 tests/instrumentation/test_hostile*.py

matrix: install ## The SDK tests in every supported cell of Python and SDKs, then beside everybody else's tracing.
	tests/matrix.sh
	SPANLEDGER_MATRIX=1 $(BIN)/python -m pytest tests/once

reference: install ## Write the generated pages of docs/reference.
	$(BIN)/python docs/generate.py

bench: install ## What watching a call costs, beside the bare SDK and a peer.
	$(BIN)/uv pip install -q --python $(BIN)/python --group bench
	$(BIN)/python benchmarks/prices.py
	$(BIN)/python benchmarks/scopes.py
	$(BIN)/python benchmarks/spans.py
	$(BIN)/python benchmarks/deliveries.py
	$(BIN)/python benchmarks/totals.py
	$(BIN)/python benchmarks/calls.py

lint: install ## Style.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## Types.
	$(BIN)/mypy

clean: ## Remove what the commands above have made.
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Every target sets up its own virtual environment (tools/environment) and works from a fresh clone.
VENV := .venv
BIN := $(VENV)/bin
export VENV
SOURCES := src tests bench examples fuzz

.PHONY: help demo test lint types format bench fuzz clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: ## a client, a gateway and real traffic between them, in under a minute
	@tools/environment
	@$(BIN)/ikeway demo

test: ## every test that this machine can run, and what was left out
	@tools/environment dev
	@tools/test $(ARGS)

lint: ## style, layout and the layers' import rules
	@tools/environment dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports --no-logo --no-cache

types: ## mypy --strict
	@tools/environment dev
	$(BIN)/mypy

format: ## lay the code out as `make lint` wants it
	@tools/environment dev
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: ## what is measured, on this machine
	@tools/environment dev
	@for script in bench/[!_]*.py; do echo "== $$script"; $(BIN)/python -m "bench.$$(basename "$$script" .py)" $(ARGS) || exit 1; done

fuzz: ## the decoder and what comes before authentication, by atheris; ARGS=-runs=1000000 for longer
	@tools/environment dev,fuzz
	$(BIN)/python -m fuzz.decode $(or $(ARGS),-runs=100000)
	$(BIN)/python -m fuzz.handshake $(or $(ARGS),-runs=20000)
	$(BIN)/python -m fuzz.dialects $(or $(ARGS),-runs=20000)

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

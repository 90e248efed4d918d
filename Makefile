# Everything a person or CI does with a checkout. Each target sets up what it needs by itself:
# only make and python3 >= 3.11 with venv are assumed. `make help` lists the targets.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.atoll-setup
WORKERS ?= 2
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help setup check format test fuzz demo bench openapi soak mutants clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with atoll and the development tools (at once when it is up to date)

# The stamp is written last, so that a setup that was cut short runs again. pip learned --group in 25.1.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "atoll needs python3 >= 3.11: install it, or run make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "python3 has no venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $(STAMP)

check: $(STAMP) ## ruff, pyright (strict on src) and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP) ## the whole test suite, WORKERS=2 side by side; ARGS="-k name" narrows it
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --no-loadscope-reorder $(ARGS)

fuzz: $(STAMP) ## malformed archives, manifests, packs and answers for longer; FUZZ="tar --seconds 600" says which and how long
	@$(BIN)/python -m tests.fuzz $(FUZZ)

demo: $(STAMP) ## start a server, run a real program in a sandbox, show what it made, a user and the audit, and how long it took
	@$(BIN)/python -m demo

bench: $(STAMP) ## measure Atoll against the bare floor and its peers; BENCH="--quick" for a short run
	@$(BIN)/python -m bench $(BENCH)

openapi: $(STAMP) ## write specs/openapi.yaml after a change of the API
	@$(BIN)/python -m scripts.openapi

soak: $(STAMP) ## three tenants at random, with faults, each minute looked at; SOAK="--minutes 30 --seed S"
	@$(BIN)/python -m soak $(SOAK)

mutants: $(STAMP) ## one change at a time in the guards, and whether their tests notice; MUTANTS="--only listen --each 30"
	@$(BIN)/python -m scripts.mutants $(MUTANTS)

clean: ## remove what make made
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests bench demo soak -name __pycache__ -type d -prune -exec rm -rf {} +

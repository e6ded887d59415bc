# A version manager may put a python3.11 on the PATH that does not start, so that it is tried, not looked up.
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUN := .venv/.run-installed
DEV := .venv/.dev-installed

# `make lock LOCK="--upgrade"` moves every pin; by itself it only adds and removes what pyproject.toml asks for.
LOCK ?=
COMPILE = env -u UV_FIND_LINKS -u UV_INDEX -u UV_EXTRA_INDEX_URL $(BIN)/uv --no-config pip compile --quiet \
	--universal --python-version 3.11 --generate-hashes --no-header $(LOCK) --extra build

export PIP_ROOT_USER_ACTION = ignore

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help install run test quick check fmt bench lock generate checksums vendor clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(RUN) ## set up .venv with what the service needs to run
	@:

run: install ## start everything with a demo merchant, in the foreground; Ctrl-C stops it
	@exec $(BIN)/loyalty up --demo

test: $(DEV) ## run every test
	$(BIN)/python -m pytest -n auto

quick: $(DEV) ## run the tests that are not slow
	$(BIN)/python -m pytest -n auto -m "not slow"

check: $(DEV) ## run every check, then every test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.checksums --check
	$(BIN)/python -m pytest -q tests/test_tidy.py
	$(BIN)/python -m pytest -n auto

fmt: $(DEV) ## format the code and mend what can be mended without thought
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(DEV) ## measure
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.reads

lock: $(DEV) ## write the locks anew from pyproject.toml
	$(COMPILE) --extra dev pyproject.toml --output-file requirements/dev.lock
	$(COMPILE) --no-annotate --constraint requirements/dev.lock pyproject.toml --output-file requirements/run.lock

generate: $(DEV) ## write what is made from the code: OpenAPI document, settings page, event examples, rows, checksums
	$(BIN)/python -m tests.examples
	$(BIN)/python -m tests.projections.golden
	$(BIN)/python -m tests.openapi
	$(BIN)/python -m tests.settings_page
	$(BIN)/python -m tests.checksums

checksums: $(DEV) ## list new migrations, event examples and rows of read models; what is listed stays as it is
	$(BIN)/python -m tests.checksums

SWAGGER_UI := 5.35.0
vendor: ## fetch the pages' third-party assets anew, with their licences (needs npm)
	cd "$$(mktemp -d)" && npm pack --silent swagger-ui-dist@$(SWAGGER_UI) && tar xzf *.tgz && cp package/LICENSE package/NOTICE \
		package/swagger-ui.css package/swagger-ui-bundle.js $(CURDIR)/api/static/vendor/swagger-ui/

clean: ## remove .venv, caches and build leftovers; the data folder stays
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define installed
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || { \
		echo "A virtual environment needs Python 3.11 or newer with venv; on Debian: apt-get install python3-venv" >&2; \
		exit 1; }
	@echo 'Installing $(1) into .venv'
	@$(PIP) install --require-hashes -r $(1)
	@$(PIP) install --no-build-isolation --no-deps --no-index --editable .
endef

$(RUN): requirements/run.lock pyproject.toml
	$(call installed,requirements/run.lock)
	@touch $@

# The dev lock holds everything of the run lock, so that whoever has it has both.
$(DEV): requirements/dev.lock requirements/run.lock pyproject.toml
	$(call installed,requirements/dev.lock)
	@touch $(RUN) $@

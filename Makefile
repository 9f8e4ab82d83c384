# `make` lists the targets. Nothing needs to be prepared: each target sets up .venv first, and only when it has to.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?=
KEEP ?=
UPGRADE ?=
WORKERS ?= 2
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
EVERYDAY := tests/unit tests/laws tests/consistency

# The stamp's name holds what an installation depends on, so that a lock that changes back needs no new stamp either.
LOCKS := requirements/bootstrap.txt requirements/dev.txt pyproject.toml
STAMP := .venv/.installed-$(shell (pwd; cat $(LOCKS)) | sha256sum | cut -c1-16)

.PHONY: help
help:  ## list the targets
	@echo "usage: make TARGET"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP)  ## install the locked packages into .venv (does nothing when nothing changed)

$(STAMP):
	@echo "Setting up .venv (a minute or two, once)"
	@PYTHON="$(PYTHON)" tools/setup
	@rm -f .venv/.installed-*
	@touch $@

.PHONY: demo
demo: setup  ## run the whole system on recorded weather and flights; KEEP=1 leaves the service up
	@$(BIN)/forecastle demo $(if $(KEEP),--keep)

.PHONY: lint
lint: setup  ## formatting, style, types and the layers of the code
	$(BIN)/black --check --quiet .
	$(BIN)/flake8 src tests tools benchmarks dags
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: check
check: lint  ## the everyday checks: lint, and the fast tests
	$(PYTEST) -q -n $(WORKERS) --dist loadfile -m "not alone" $(EVERYDAY)
	$(PYTEST) -q -m alone $(EVERYDAY)

.PHONY: test
test: lint browser stores alerting airflow  ## every check and every test, with the bar on coverage
	@$(BIN)/coverage erase
	$(PYTEST) -q -n $(WORKERS) --dist loadfile -m "not alone" --cov --cov-report= tests
	$(PYTEST) -q -m alone tests
	@$(BIN)/coverage report

.PHONY: benchmarks
benchmarks: setup  ## measure beside what the bars are held against and write docs/benchmarks.md; needs 12 GiB, half an hour
	$(BIN)/python -m benchmarks

.PHONY: browser
browser:
	@tools/debian-package chromium chromium

.PHONY: alerting
alerting:
	@tools/debian-package promtool prometheus
	@tools/debian-package amtool prometheus-alertmanager

.PHONY: stores
stores:
	@tools/object-stores

.PHONY: airflow
airflow: setup
	@tools/airflow

.PHONY: docs
docs: setup  ## write the reference pages of docs/ from the code
	$(BIN)/python tools/reference.py

.PHONY: lock
lock: setup  ## resolve the requirements again; UPGRADE=1 takes newer versions
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header $(if $(UPGRADE),--upgrade) \
		--all-extras pyproject.toml --output-file requirements/dev.txt > /dev/null
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header $(if $(UPGRADE),--upgrade) \
		--constraint requirements/dev.txt requirements/bootstrap.in --output-file requirements/bootstrap.txt > /dev/null
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header $(if $(UPGRADE),--upgrade) \
		--python-version 3.11 requirements/airflow.in --output-file requirements/airflow.txt > /dev/null

.PHONY: screenshot
screenshot: setup browser  ## run the demo and take the picture of its page for the README
	$(BIN)/python tools/screenshot.py docs/images/page.png

.PHONY: clean
clean:  ## remove what runs left behind; .venv and data/ stay
	rm -rf demo build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .import_linter_cache
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

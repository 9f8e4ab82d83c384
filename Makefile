# `make` lists the targets. Nothing needs to be prepared: each target sets up .venv first, and only when it has to.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# `make setup PYTHON=...` names one; a variable of that name that the environment happens to hold is about something else.
ifneq ($(origin PYTHON),command line)
PYTHON :=
endif
KEEP ?=
UPGRADE ?=
WORKERS ?= 2
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
EVERYDAY ?= tests/unit tests/laws tests/consistency

# The stamp's name holds what an installation depends on, so that a lock that changes back needs no new stamp either.
LOCKS := requirements/bootstrap.txt requirements/dev.txt pyproject.toml tools/setup
STAMP := .venv/.installed-$(shell (pwd; cat $(LOCKS)) | sha256sum | cut -c1-16)

.PHONY: help
help:  ## list the targets
	@echo "usage: make TARGET"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP)  ## install the locked packages into .venv (does nothing when nothing changed)

.PHONY: named
ifneq ($(PYTHON),)
$(STAMP): named
endif

$(STAMP):
	@echo "Setting up .venv (a minute or two, once)"
	@PYTHON="$(PYTHON)" tools/setup
	@rm -f .venv/.installed-*
	@touch $@

.PHONY: demo
demo: setup  ## run the whole system on recorded weather and flights; KEEP=1 leaves the service up
	@$(BIN)/forecastle demo $(if $(KEEP),--keep)

.PHONY: lint style types layers
lint: style types layers  ## formatting, style, types and the layers of the code

style: setup
	$(BIN)/black --check --quiet .
	$(BIN)/flake8 src tests tools benchmarks dags

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

.PHONY: check
check: lint  ## the everyday checks: lint, and the fast tests
	$(PYTEST) -q -n $(WORKERS) --dist loadfile -m "not alone" $(EVERYDAY)
	$(PYTEST) -q -m alone $(EVERYDAY)

.PHONY: test
test: lint browser stores alerting airflow engine  ## every check and every test, with the bar on coverage
	@$(BIN)/coverage erase
	$(PYTEST) -q -n $(WORKERS) --dist loadfile -m "not alone" --cov --cov-report= tests
	$(PYTEST) -q -m alone tests
	@$(BIN)/coverage report

.PHONY: benchmarks
benchmarks: setup  ## measure beside what the bars are held against and write docs/benchmarks.md; needs 12 GiB, half an hour
	$(BIN)/python -m benchmarks

.PHONY: browser
browser: setup
	@tools/debian-package chromium chromium
	@tools/axe

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

.PHONY: engine
engine:
	@tools/container-engine

# What the workflows of .github/workflows call, a line a step; docs/git-workflow.md says when.
TASK ?= tasks/nyc-temperature.toml
IMAGE ?= forecastle-api
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
export TASK IMAGE COMMIT VERSION

.PHONY: order
order:  ## fail where a pull request leaves out a branch of the way: BASE, HEAD, REPOSITORY, HEAD_REPOSITORY
	@tools/order

.PHONY: unit
unit: setup alerting  ## the everyday tests, with their coverage
	@$(BIN)/coverage erase
	$(PYTEST) -q -n $(WORKERS) --dist loadfile -m "not alone" --cov --cov-report= --cov-fail-under=0 $(EVERYDAY)
	$(PYTEST) -q -m alone $(EVERYDAY) || [ "$$? $(origin EVERYDAY)" = "5 environment" ] # a part of them may hold none

.PHONY: coverage
coverage: setup  ## what the tests that ran last have covered: build/coverage.md and .xml, and a workflow's summary
	@tools/coverage

.PHONY: champion
champion: setup  ## fetch the registry's champion to where the service and the comparison look; none yet is no failure
	$(BIN)/forecastle bake --task $(TASK) --to "$${FORECASTLE_HOME:-data}" || [ $$? = 3 ]

.PHONY: retrain
retrain: setup airflow  ## train a challenger by the Airflow that FORECASTLE_AIRFLOW_URL names, else by one started for it
	@tools/retrain $(TASK)

.PHONY: comparison
comparison: setup  ## compare what was trained last with the champion: build/report
	$(BIN)/forecastle compare --task $(TASK) --output build/report

.PHONY: comment
comment: setup  ## show that report in a workflow's summary and as one comment on its pull request
	@tools/comment build/report/comparison.md

.PHONY: judge
judge: setup  ## fail (exit 5 of forecastle) where what was trained last is worse than the champion
	$(BIN)/forecastle compare --task $(TASK) --fail-if-worse

.PHONY: bake
bake: setup  ## fetch the registry's champion to build/model, where `make image` takes it from
	rm -rf build/model
	$(BIN)/forecastle bake --task $(TASK) --to build/model

.PHONY: image
image:  ## build docker/Dockerfile.api, with what `make bake` fetched inside
	@tools/image

.PHONY: verify
verify:  ## run that image as it is meant to be run: it collects, forecasts, serves and stops
	@tools/verify image $(IMAGE):$(COMMIT) --task $(basename $(notdir $(TASK))) $(VERIFY)

.PHONY: push
push:  ## push that image as :vX.Y.Z and :sha
	@tools/push

.PHONY: deploy
deploy:  ## deploy that image to staging, verify it there, and roll back image and model if that fails
	@tools/deploy

.PHONY: docs
docs: setup  ## write the reference pages of docs/ from the code
	$(BIN)/python tools/reference.py

.PHONY: site
site: setup  ## build the documentation as a site that needs no server and no network: build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/site/index.html"

.PHONY: dist
dist: setup  ## build the wheel and the source archive, and try the wheel outside of the clone: dist/
	@rm -rf dist
	@tools/dist
	@$(PYTEST) -q tests/e2e/test_wheel.py
	@ls dist

.PHONY: lock
lock: setup  ## resolve the requirements again; UPGRADE=1 takes newer versions
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header $(if $(UPGRADE),--upgrade) \
		--all-extras pyproject.toml --output-file requirements/dev.txt > /dev/null
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header $(if $(UPGRADE),--upgrade) \
		--constraint requirements/dev.txt requirements/bootstrap.in --output-file requirements/bootstrap.txt > /dev/null
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header $(if $(UPGRADE),--upgrade) \
		--constraint requirements/dev.txt --no-emit-package scipy requirements/api.in \
		--output-file requirements/api.txt > /dev/null
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header $(if $(UPGRADE),--upgrade) \
		--constraint requirements/dev.txt --extra azure --extra s3 --extra profile --extra tune pyproject.toml \
		--output-file requirements/pipeline.txt > /dev/null
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header $(if $(UPGRADE),--upgrade) \
		--constraint requirements/dev.txt requirements/mlflow.in --output-file requirements/mlflow.txt > /dev/null
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header $(if $(UPGRADE),--upgrade) \
		--python-version 3.11 requirements/airflow.in --output-file requirements/airflow.txt > /dev/null

.PHONY: architecture
architecture: setup browser  ## draw docs/architecture.png from docs/architecture.toml and the code
	$(BIN)/python tools/architecture.py

.PHONY: screenshot
screenshot: setup browser  ## run the demo and take the picture of its page for the README
	$(BIN)/python tools/screenshot.py docs/images/page.png

REPORT ?= demo/report

.PHONY: report
report: setup browser alerting airflow  ## the demo's final report, with its pictures, from nothing: REPORT=demo/report
	$(BIN)/python tools/report $(REPORT)

.PHONY: clean
clean:  ## remove what runs left behind; .venv and data/ stay
	rm -rf demo build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .import_linter_cache
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

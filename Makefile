# Every target sets up what it needs by itself: `.ci/prepare` makes .venv and installs the Debian
# programs named behind it.  All paths are relative, so the checkout may lie below a path with spaces.

SHELL := /bin/bash
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-fast soak bench lint clean

# mosquitto lives in /usr/sbin, which is not on an ordinary user's PATH in Debian.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

PYTHON_IN_VENV := .venv/bin/python

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: ## start an agent with simulated sensors and show it working
	@bash .ci/prepare owserver
	.venv/bin/kv demo

test: ## run all tests, linters and type checker included
	@bash .ci/prepare mosquitto nats-server owserver openssl
	$(PYTHON_IN_VENV) -m pytest

test-fast: ## run the tests that start no process and are quick
	@bash .ci/prepare
	$(PYTHON_IN_VENV) -m pytest -m "not system and not slow"

soak: ## simulate clusters from ever new seeds for SECONDS=600; prints what repeats a failure
	@bash .ci/prepare
	$(PYTHON_IN_VENV) -m kvedge.testing.sim --soak $(or $(SECONDS),600) $(or $(SEED),$$RANDOM$$RANDOM)

bench: ## measure; prints numbers with unit and machine
	@bash .ci/prepare
	@for script in tests/bench/bench_*.py; do $(PYTHON_IN_VENV) "$$script" || exit 1; done

lint: ## run the linter, the format check and the type checker
	@bash .ci/prepare
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m mypy

clean: ## remove all that the other targets made in this directory
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

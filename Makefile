# `make demo` and `make test` need nothing but python3 (3.11 or newer): each makes the environment it runs in, once.

PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test lint docs models clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The stamp is written last, so an install that was cut short is finished by the next run; a .venv without a working pip is made anew.
.venv/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "sfumato needs Python 3.11 or newer, and '$(PYTHON)' was not found. Name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("sfumato needs Python 3.11 or newer; $(PYTHON) is %d.%d. Name another: make PYTHON=/path/to/python3.12" % sys.version_info[:2])'
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@echo "installing sfumato and its dependencies into .venv (once; minutes on a cold cache)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/.ready  ## draw the eight prompts of examples/demo.txt
	@$(BIN)/sfumato generate --prompts examples/demo.txt --out out/demo --sheet out/demo.png --seed 0 --overwrite
	@echo "the picture: out/demo.png (one file per prompt in out/demo)"

test: .venv/.ready  ## run the tests
	@$(BIN)/python -m pytest

lint: .venv/.ready  ## style, types and the order of the rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

docs: .venv/.ready  ## write docs/claims.md from the papers and their recorded checks
	@$(BIN)/sfumato reproduce --list --markdown docs/claims.md

models: .venv/.ready  ## train the shipped codec, model, judge and critic again (hours on a CPU; an interrupted run goes on)
	@test -f data/emoji/manifest.json || $(BIN)/sfumato data emoji --out data/emoji
	@test -d runs/codec/vae || $(BIN)/sfumato train codec --data data/emoji --out runs/codec
	@test -d runs/emoji-mmdit/pipeline || $(BIN)/sfumato train model --data data/emoji --codec runs/codec/vae --out runs/emoji-mmdit
	@test -f data/lessons/manifest.json || $(BIN)/sfumato data emoji --styles "noto v1" "fluent high contrast" "emojione monotone" streamline --out data/lessons
	@test -d runs/judge/judge || $(BIN)/sfumato train judge --data data/emoji --lessons data/lessons --out runs/judge
	@test -d runs/critic/critic || $(BIN)/sfumato train critic --data data/emoji --out runs/critic
	@echo "the results: runs/codec/vae, runs/emoji-mmdit/pipeline, runs/judge/judge, runs/critic/critic"

clean:  ## remove caches, builds and the demo's pictures (not .venv, not runs/)
	@rm -rf build dist out/demo out/demo.png .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

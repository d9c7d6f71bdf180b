# `make demo` and `make test` need nothing but python3 (3.11 or newer): each makes the environment it runs in, once.

PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test lint docs models clean emoji lessons scenes-2 scenes-3 scenes-4

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

# Where `make models` reads and writes, and how much of everything it makes. TINY=1 does every stage on a few drawings in a minute or two, to
# see that it can be done (no data set is built and nothing in runs/ is touched).
ifdef TINY
EMOJI ?= tests/data/fixture
LESSONS ?=
RUNS ?= out/tiny
SCENES ?= $(RUNS)
COUNT_2 := 8
COUNT_3 := 8
COUNT_4 := 8
CODEC_SIZE := --recipe examples/tiny/codec.json
JUDGE_SIZE := --recipe examples/tiny/judge.json
CRITIC_SIZE := --recipe examples/tiny/critic.json
PERCEPTUAL_SIZE := --recipe examples/tiny/perceptual.json
MODEL_SIZE := --steps 2 --small-steps 1 --batch 4 --depth 2 --width 48 --heads 2 --precision fp32 --sample-every 0
else
EMOJI ?= data/emoji
LESSONS ?= data/lessons
RUNS ?= runs
SCENES ?= data
COUNT_2 := 2500
COUNT_3 := 2500
COUNT_4 := 4000
endif
SFUMATO = $(BIN)/sfumato
WHOLE = grep -qs '"complete": true'
MODELS := emoji-mmdit emoji-pixart emoji-uvit emoji-mmdit-64 emoji-pixart-64 emoji-uvit-64
LEVELS := scenes-2 scenes-3 scenes-4
# Mostly drawings, named in five languages, and simple scenes beside them (docs/models.md says what was measured).
MIX := --scene-share 0.2 --scene-objects 2 --languages de fr es ja

# Everything is an order-only prerequisite: what is there is kept, whatever its date. An interrupted run goes on when it is asked for again.
models: $(MODELS:%=$(RUNS)/%/pipeline) $(RUNS)/judge/judge $(RUNS)/critic/critic $(RUNS)/perceptual/perceptual  ## train all that ships again (a day on a CPU; TINY=1: minutes)
	@echo "the results: $(RUNS)/codec/vae $^"

$(RUNS)/codec/vae: | emoji
	@$(SFUMATO) train codec --data $(EMOJI) --out $(RUNS)/codec $(CODEC_SIZE)

$(RUNS)/%/pipeline: | $(RUNS)/codec/vae $(LEVELS)
	@$(SFUMATO) train model --recipe $* --data $(EMOJI) --scenes $(LEVELS:%=$(SCENES)/%) $(MIX) --codec $(RUNS)/codec/vae --cache $(RUNS)/cache --out $(RUNS)/$* $(MODEL_SIZE)

$(RUNS)/judge/judge: | emoji lessons
	@$(SFUMATO) train judge --data $(EMOJI) $(LESSONS:%=--lessons %) --out $(RUNS)/judge $(JUDGE_SIZE)

$(RUNS)/critic/critic: | emoji
	@$(SFUMATO) train critic --data $(EMOJI) --out $(RUNS)/critic $(CRITIC_SIZE)

$(RUNS)/perceptual/perceptual: | emoji
	@$(SFUMATO) train perceptual --data $(EMOJI) --out $(RUNS)/perceptual $(PERCEPTUAL_SIZE)

emoji: | .venv/.ready
	@$(WHOLE) $(EMOJI)/manifest.json || $(SFUMATO) data emoji --out $(EMOJI)

lessons: | .venv/.ready
	@$(if $(LESSONS),$(WHOLE) $(LESSONS)/manifest.json || $(SFUMATO) data emoji --styles "noto v1" "fluent high contrast" "emojione monotone" streamline --out $(LESSONS),:)

$(LEVELS): scenes-%: | emoji
	@$(WHOLE) $(SCENES)/$@/manifest.json || $(SFUMATO) data scenes --data $(EMOJI) --out $(SCENES)/$@ --count $(COUNT_$*) --seed $* --difficulty $*

clean:  ## remove caches, builds, the demo's pictures and out/tiny (not .venv, not runs/)
	@rm -rf build dist out/demo out/demo.png out/tiny .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

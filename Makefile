# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: quickstart test figures lint install clean

quickstart: .venv/installed
	$(BIN)/litestage quickstart --out quickstart

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# Works every figure of the pages out again from the files behind it.
figures: .venv/installed
	$(BIN)/python tests/page_figures.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: .venv/installed

# A machine without an NVIDIA driver gets torch's CPU build, from the configured index or else from PyTorch's own;
# TORCH=torch==2.13.0 chooses the default build.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade -c constraints.txt pip
ifdef TORCH
	$(BIN)/pip install --quiet $(TORCH)
else ifneq ($(shell command -v nvidia-smi),)
	$(BIN)/pip install --quiet torch==2.13.0
else
	$(BIN)/pip install --quiet torch==2.13.0+cpu 2>/dev/null \
	  || $(BIN)/pip install --quiet torch==2.13.0+cpu --index-url $(TORCH_CPU_INDEX) 2>/dev/null \
	  || $(BIN)/pip install --quiet torch==2.13.0
endif
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv

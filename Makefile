# One virtual environment in .venv, made once; every target runs inside it.
# Settings, given on the command line (make run PYTHON=python3.12):
PYTHON ?= python3
# Options of the torch install. pip's torch is a CUDA build on Linux; for another CUDA, or
# CPU only, take the index that PyTorch's "Get Started" page gives
# (`make clean` first where a torch is already installed):
#     make models TORCH_PIP_ARGS="--extra-index-url ADDRESS"
TORCH_PIP_ARGS ?=
# `PIP_ARGS=` shows all that pip says.
PIP_ARGS ?= --quiet
# Passed on to ssah or pytest: make test ARGS="-k units"
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
READING := $(VENV)/.reading
torch_pin = $(shell grep -oE 'torch==[0-9][0-9.]*' $1)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test lab models rerun rerun-all bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

run: $(READING) ## run all notebooks from the cached results
	@$(VENV)/bin/ssah run $(ARGS)

# Two processes; a file's tests stay together, since they share what they computed.
test: $(STAMP) ## run the tests (the quick ones alone: make test ARGS="-m quick")
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lab: $(STAMP) ## open the notebooks in JupyterLab
	@$(VENV)/bin/jupyter lab notebooks/00_start_here.ipynb

models: $(STAMP) ## install torch and the rest too (test, lab, rerun and bench do so by themselves)

rerun: $(STAMP) ## recompute the results of seed 0 into build/ (an hour or so; prints an estimate first)
	@$(VENV)/bin/ssah rerun $(ARGS)

rerun-all: $(STAMP) ## recompute all seeds into build/ (hours)
	@$(VENV)/bin/ssah rerun --all $(ARGS)

bench: $(STAMP) ## time the steps on this machine
	@$(VENV)/bin/ssah bench $(ARGS)

lock: $(PY) ## rewrite requirements.lock after an edit of the pins in pyproject.toml
	@echo "lock: installing the pins of pyproject.toml"
	@$(PIP) install $(call torch_pin,pyproject.toml) $(TORCH_PIP_ARGS)
	@$(PIP) install $(PIP_ARGS) -e '.[models,parallel,lab,test]'
	@$(PIP) freeze --all --exclude-editable --exclude pip --exclude wheel > $(VENV)/freeze
# The comments at the head stay; a build label (+cpu) and what one platform alone needs go;
# this soupsieve refuses 3.11.0 to 3.11.4 (Debian 12 has 3.11.2), where pip takes an older one.
	@{ grep '^#' requirements.lock; \
		sed -E -e 's/\+.*//' -e '/^(appnope|cuda|nvidia|triton)/d' \
		-e 's/^soupsieve==.*/&; python_full_version >= "3.11.5"/' $(VENV)/freeze; } > $(VENV)/lock
	@mv $(VENV)/lock requirements.lock && touch $(STAMP)
	@echo "lock: requirements.lock written; carry changed direct pins over to environment.yml"

clean: ## remove .venv and build leftovers (results stay; `ssah clean` removes checkpoints)
	@rm -rf $(VENV) build *.egg-info .pytest_cache
	@find ssah tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: '$(PYTHON)' is missing or older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	@echo "install: virtual environment in $(VENV), $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# What reads the stored results: no torch, a third of the time and of the disk of the whole.
# The pins hold here too; torch is not there to bring setuptools.
$(READING): requirements.lock pyproject.toml | $(PY)
	@echo "install: what reads the stored results (a minute; make models installs the rest)"
	@$(PIP) install $(PIP_ARGS) -c requirements.lock setuptools
	@$(PIP) install $(PIP_ARGS) -c requirements.lock --no-build-isolation -e .
	@touch $@

# torch goes first and by itself, so that TORCH_PIP_ARGS touches nothing else. It brings
# setuptools, with which the editable install needs no build environment of its own.
$(STAMP): requirements.lock pyproject.toml | $(PY)
	@echo "install: 1 of 3, torch (the large one: 0.2 to 3 GB when not in pip's cache)"
	@$(PIP) install $(call torch_pin,requirements.lock) $(TORCH_PIP_ARGS)
	@echo "install: 2 of 3, $$(grep -c == requirements.lock) pinned packages (some minutes the first time)"
	@$(PIP) install $(PIP_ARGS) -r requirements.lock
	@echo "install: 3 of 3, ssah itself"
	@$(PIP) install $(PIP_ARGS) --no-deps --no-build-isolation -e .
	@touch $(READING) $@

# `make run` and `make test` are each a whole first command after `git clone`.
# An environment of your own, with your own torch: make run VENV=/path/to/it

PYTHON ?= python3
VENV   ?= .venv
CORES  ?= $(shell nproc 2>/dev/null || echo 2)
BIN    := $(VENV)/bin
SMK    := $(BIN)/snakemake
PEERS  := .venv-bench
SIZES  ?= 1000 10000 76660
# pip would compile what it installs on one core; here all of it is compiled at the end, on all cores.
PIP    := $(BIN)/python -m pip install --quiet --no-compile
COMPILE = -@$(BIN)/python -c 'import compileall, sysconfig; \
  compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0)'

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run test test-long test-lab test-slurm tune bench bench-card archive lint setup setup-dev clean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: setup ## set up, run the workflow on the sample store, show the report's first page
	PATH="$(abspath $(BIN)):$$PATH" $(SMK) --cores $(CORES) --resources gpu=1 --logger cis490
	@$(BIN)/cis490 report

# Side by side, in pieces as they stand, so that what a file sets up is mostly set up once.
test: setup-dev ## set up and run all tests
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n $(CORES) --maxprocesses 8 --dist worksteal

test-long: setup-dev ## what CI has no time for: mutated episodes, largest ones, 200 trainings and rates, kills
	$(BIN)/python -m pytest --long tests/episodes/test_fuzz.py tests/episodes/test_memory.py \
	  tests/episodes/test_append.py \
	  tests/training/test_finder.py tests/training/test_collapse.py tests/models/test_archive.py \
	  tests/evaluation/test_simulated.py \
	  tests/workflow/test_workflow.py::test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes_on_another_number_of_cores

test-lab: setup-dev ## record short episodes for real, where QEMU is installed (skipped elsewhere)
	-$(BIN)/cis490 lab build
	$(BIN)/python -m pytest --lab tests/lab/test_record.py

test-slurm: setup-dev ## a small store through a real SLURM on this machine (root, Debian; skipped elsewhere)
	PATH="$(abspath $(BIN)):$$PATH" tests/slurm/run.sh $(abspath $(BIN))/python

# The realistic mode decides, for it is what works without trust in the guest; oracle is told beside it.
tune: setup-dev ## search all settings on the sample store, print what to put into config.yaml
	PATH="$(abspath $(BIN)):$$PATH" $(SMK) --cores $(CORES) --resources gpu=1 --config tune=true -- tuned
	@$(BIN)/cis490 tuned

# The peers bring a lot, so they live apart; where they cannot be installed the page says so.
bench: setup-dev ## write docs/benchmarks.md; SIZES="1000" for a quick look, WORK=folder for its files
	@test -e $(PEERS)/.ready || { $(PYTHON) -m venv $(PEERS) \
	  && $(PEERS)/bin/python -m pip install --quiet -r envs/requirements-bench.txt \
	  && touch $(PEERS)/.ready; } || echo "without the peers: see above"
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks --sizes $(SIZES) \
	  $(if $(WORK),--work $(WORK)) $$(test -e $(PEERS)/.ready && echo --peers $(PEERS)/bin/python)

bench-card: setup-dev ## write docs/card.md: training on a CUDA device beside the usual loop
	$(BIN)/python -m benchmarks.card --out docs

archive: setup-dev ## train on public sets and write the tables of docs/models.md
	$(BIN)/python -m benchmarks.archive

lint: setup-dev ## ruff, snakefmt, mypy, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" $(SMK) --lint

setup: $(VENV)/.run-ready ## make the virtual environment
setup-dev: $(VENV)/.dev-ready

$(VENV)/.run-ready: envs/requirements.txt envs/requirements-torch.txt envs/requirements-xgboost.txt pyproject.toml hatch_build.py $(wildcard src/cis490/*/_*.c)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "cis490 needs Python 3.11 or newer; name one: make run PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r envs/requirements.txt
	@$(BIN)/python -c 'import torch' 2>/dev/null \
	  || $(PIP) -r envs/requirements-torch.txt
	@$(BIN)/python -c 'import xgboost' 2>/dev/null \
	  || $(PIP) -r envs/requirements-xgboost.txt
	$(PIP) --no-deps --no-build-isolation -e .
	$(COMPILE)
	@test -e src/cis490/episodes/_rows.so || echo "no C compiler: decoding takes twice as long"
	@touch $@

$(VENV)/.dev-ready: $(VENV)/.run-ready envs/requirements-dev.txt envs/requirements-archive.txt
	$(PIP) -r envs/requirements-dev.txt
	$(PIP) --no-deps -r envs/requirements-archive.txt
	$(COMPILE)
	@touch $@

clean: ## remove the results and Snakemake's notes on them, and keep the environment
	rm -rf results .snakemake

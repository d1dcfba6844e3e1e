# `make quickstart` and `make test` need Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help install install-test quickstart test test-slurm soak bench lint clean

help:            ## list the targets
	@grep -E '^[a-z-]+: .*##|^[a-z-]+: +##' $(MAKEFILE_LIST) | sed 's/:.*##/  /'

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --editable '.[test]'
	@touch $@

install: $(VENV)/installed            ## create .venv with the pinned dependencies

install-test: $(VENV)/installed-test  ## the same with what the tests and the Adroit tasks need

quickstart: $(VENV)/installed         ## the quickstart sweep and its report (about 5 minutes on 2 cores)
	$(BIN)/expo-bench sweep experiments/quickstart.py

test: $(VENV)/installed-test          ## every test but the slow proofs (at most 15 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile

soak: $(VENV)/installed-test          ## the slow proofs that `make test` leaves out
	$(BIN)/python -m pytest -n 2 --dist loadfile -m soak

test-slurm: $(VENV)/installed-test    ## sweeps as jobs of a real Slurm, which is installed (Debian's packages, as root)
	@command -v slurmctld munged slurmd > /dev/null || { \
	  command -v apt-get > /dev/null || { echo "make test-slurm: no apt-get here; install slurmctld, slurmd, slurm-client and munge by hand"; exit 2; }; \
	  [ "$$(id -u)" = 0 ] || { echo "make test-slurm: only root can install slurmctld, slurmd and munge; use sudo"; exit 2; }; \
	  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends slurmctld slurmd slurm-client munge; }
	@[ "$$(id -u)" = 0 ] || { echo "make test-slurm: only root can start a Slurm; use sudo"; exit 2; }
	EXPO_BENCH_TEST_SLURM=1 $(BIN)/python -m pytest -m slurm -rs tests/sweeps

bench: $(VENV)/installed-test         ## speed and memory as JSON, and the bars that they are held to
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.bars

lint: $(VENV)/installed-test          ## ruff
	$(BIN)/ruff check .

clean:           ## remove the environment and the caches, never results
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache

# Every target builds its own environment first; nothing is installed outside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= work/demo
WORKERS ?= 2

.PHONY: demo test lint bench hostile preprocess leaderboard lock clean

# torch comes first and with its dependencies: pip then takes the CPU or the CUDA build's own set.
# Everything else is pinned and installed without dependencies, so that exactly one OpenCV arrives.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "cmet-eval needs python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(READY)

demo: $(READY)
	$(BIN)/cmet-eval demo --out $(OUT)

preprocess: $(READY)
	@test -n "$(ROOT)" -a "$(origin DATASET) $(origin OUT)" = "command line command line" || { echo 'usage: make preprocess DATASET=mead ROOT=/data/MEAD OUT=/data/mead-shards [WORKERS=2] [ARGS="--view all"]'; exit 2; }
	$(BIN)/cmet-eval preprocess $(DATASET) "$(ROOT)" "$(OUT)" --workers $(WORKERS) $(ARGS)

# Without OUT: the site of the standing leaderboard, leaderboards/site, from leaderboards/results.
leaderboard: $(READY)
ifeq ($(origin OUT),file)
	$(BIN)/cmet-eval standing
else
	$(BIN)/cmet-eval leaderboard --run $(OUT)
endif

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

bench: $(READY)
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Damaged and impossible input, kills and flipped bits: the tables of docs/experiments/hostile_input.md. Takes hours.
hostile: $(READY)
	@for program in media structured bit_flips kills forged faults archives pickles; do \
	  echo "== $$program"; $(BIN)/python -m tests.hostile.$$program || failed=1; done; exit $${failed:-0}

# Needs uv only here, to resolve; installing uses plain pip.
lock:
	$(PYTHON) -m venv .lock-venv && .lock-venv/bin/pip install --quiet uv
	.lock-venv/bin/uv pip compile pyproject.toml --all-extras --override requirements.overrides --universal \
	  --python-version 3.11 --no-annotate --no-header --no-emit-index-url --output-file requirements.lock

clean:
	rm -rf work .pytest_cache .mypy_cache .ruff_cache

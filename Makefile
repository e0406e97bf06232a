# Every target does its own set-up: Python 3.11 or 3.12, git and make are enough.

PYTHON ?= python3
VENV := .venv
UV := .uv/bin/uv
BIN := $(VENV)/bin
JOBS ?= 2
# The tests of one file stay in one process, since they share what they set up.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

export DO_NOT_TRACK = true
export DVC_NO_ANALYTICS = 1
export MLFLOW_DISABLE_TELEMETRY = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false
# Threads that wait by spinning slow down whatever runs beside them many times.
export OMP_WAIT_POLICY = passive

.PHONY: run test slow long check bench ui setup

run: setup
	@$(BIN)/affectgap run

test: setup
	@$(PYTEST)

slow: setup
	@$(PYTEST) -m "slow and not long" --durations=20

long: setup
	@$(BIN)/python -m pytest -m long

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup
	@for claim in $(filter-out benchmarks/rounds.py benchmarks/cohorts.py benchmarks/error_rates_%.py,$(wildcard benchmarks/*.py)); do echo "== $$claim"; $(BIN)/python $$claim || exit 1; done

ui: setup
	@$(BIN)/affectgap ui

# DVC keeps images and names in these folders, with modes of its own.
setup: $(VENV)/.synced
	@chmod go-rwx .dvc .cache 2>/dev/null || :

# The environment is made again only when the lock or the project file is newer than it.
$(VENV)/.synced: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --frozen --quiet --compile-bytecode
	@touch $@

$(UV):
	@echo "installing uv into .uv/"
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"

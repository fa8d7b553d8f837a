# Two commands do all the set-up: `make run` serves mail, `make test` passes the tests.
# Others: quick, interop, check, bench, soak, format, clean. CONTRIBUTING.md says when each is for.

PYTHON ?= $(firstword $(foreach v,python3.11 python3.12 python3.13 python3,$(shell command -v $(v) 2>/dev/null)))
VENV ?= .venv
BIN = $(VENV)/bin
PORT_BASE ?= 10000
DIR ?= var/demo
TESTS ?=
# Processes of the tests; "auto" is three for each processor (two in `make quick`); 0: none beside pytest itself (for a debugger).
JOBS ?= auto
ALL ?=
BENCH ?=
export PYTHONPATH := $(CURDIR)
export PYTHONDONTWRITEBYTECODE =

.PHONY: run test interop quick check bench soak format clean venv FORCE

# PYTHON=... is another interpreter than the one of $(VENV): it is set up anew.
ifneq ($(origin PYTHON),file)
WHICH = import sys; print(sys.base_prefix, sys.version)
ifneq ($(shell $(PYTHON) -c '$(WHICH)' 2>&1),$(shell $(BIN)/python -c '$(WHICH)' 2>&1))
$(VENV)/.done: FORCE
endif
endif

venv: $(VENV)/.done

$(VENV)/.done: requirements/develop.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is not Python 3.11 to 3.13: set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	@test ! -L $(VENV) || { echo "$(VENV) is a link, and what it leads to may be somebody else's: remove it, or set VENV=..."; exit 1; }
	@echo "Setting up $(VENV): packages are fetched, which takes a minute or two."
	@$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/develop.txt
	@touch $@

run: venv
	@PORT_BASE=$(PORT_BASE) $(BIN)/python -m mailserver.cli demo --dir $(DIR) --port-base $(PORT_BASE)
	@exec $(BIN)/twistd -n --pidfile= mailserver --config $(DIR)/mailserver.toml

test: venv
	$(BIN)/python -m pytest -n $(JOBS) $(or $(TESTS),-m "not interop")

interop: venv
	$(BIN)/python -m pytest -n $(JOBS) -m interop

quick: venv
	$(BIN)/python -m tests.quick $(if $(ALL),--all) -n $(JOBS)

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: venv
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
	  $(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/bench.txt
	$(BIN)/python -m benchmarks $(BENCH)

soak: venv
	$(BIN)/python -m tests.soak

clean:
	rm -rf $(VENV) build dist *.egg-info var .pytest_cache .mypy_cache .ruff_cache

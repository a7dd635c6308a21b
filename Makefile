# Everything starts here, on a machine with Python >= 3.11 and make:
#   make demo    the main job on real input, checked to the last signature
#   make up      the whole system on this machine, until Ctrl-C
#   make unit    the tests that need no server, in a minute on two idle cores (ARGS="-k signer" for some)
#   make test    all tests, on real parts        (ARGS="tests/unit -k signer" for some)
#   make faults  surges while everything fails   (ARGS="--runs 100 --seed 1 --json"); make faults-mutants checks the check
#   make bench   against floors and alternatives (ARGS="accept road --quick --json bench.json"); an hour when whole
#   make check   style, types, architecture, deploy files, generated files
#   make audit-packages   known vulnerabilities of all pinned packages (asks osv.dev: needs the internet)
#   make setup   only what the others need first; quick when it is up to date
#   make clean   remove all that make has made

PYTHON ?= python3
UV_VERSION := 0.13.9

UV := .tools/uv/bin/uv
BIN := .venv/bin
UNIT := tests/unit tests/contract/test_event_schemas.py tests/contract/test_failure_modes.py \
	tests/faults/test_invariants.py tests/faults/test_logs.py tests/faults/test_moments.py \
	tests/bench/test_against.py tests/bench/setup/test_backlog.py \
	tests/bench/results/test_costs.py tests/bench/results/test_figures.py

.DEFAULT_GOAL := setup
.PHONY: setup up demo unit test faults faults-mutants bench check audit-packages clean

setup: .venv/.up-to-date

.venv/.up-to-date: pyproject.toml uv.lock .tools/uv/$(UV_VERSION)
	$(UV) sync --locked --extra local --no-python-downloads --python $(PYTHON)
	@touch $@

.tools/uv/$(UV_VERSION):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Groundswell needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' \
		|| { echo "$(PYTHON) cannot make virtual environments (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv --clear .tools/uv
	.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

up: setup
	$(BIN)/groundswell up $(ARGS)

demo: setup
	$(BIN)/groundswell demo $(ARGS)

# No server, no browser, no program but Python. Each file stays in one process, in its order.
unit: setup
	$(BIN)/pytest -q -n 2 --dist loadfile --hypothesis-profile unit $(UNIT) $(ARGS)

# .tools/bin holds programs that were unpacked there instead of being installed.
test: setup
	$(BIN)/python -m tests.needs
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(BIN)/pytest $(ARGS)

faults: setup
	$(BIN)/python -m tests.needs kafka
	$(BIN)/groundswell faults $(ARGS)

faults-mutants: setup
	$(BIN)/python -m tests.needs kafka
	$(BIN)/python -m tests.faults.mutants $(ARGS)

# What only the benchmark needs comes on top of what is there.
bench: setup
	$(UV) sync --locked --inexact --extra local --group bench --no-python-downloads --python $(PYTHON)
	$(BIN)/python -m tests.needs bench
	$(BIN)/groundswell bench $(ARGS)

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	$(BIN)/groundswell generated --check

# Not part of `check`: its answer changes without a change of ours, and it sends the packages' names to api.osv.dev.
audit-packages: .tools/uv/$(UV_VERSION)
	$(UV) audit --locked

clean:
	rm -rf .venv .tools .groundswell *.egg-info tests/contract/asyncapi/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find deploy services shared tests -name __pycache__ -type d -prune -exec rm -rf {} +

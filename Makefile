# Needs Python >= 3.11 and make only. `make help` prints each target with the text after its `##`.

PYTHON ?= python3
UV_VERSION := 0.13.9

UV := .tools/uv/bin/uv
BIN := .venv/bin
UNIT := tests/unit tests/contract/test_event_schemas.py tests/contract/test_failure_modes.py \
	tests/faults/judging/test_invariants.py tests/faults/judging/test_logs.py tests/faults/breaking/test_moments.py \
	tests/bench/test_against.py tests/bench/setup/test_backlog.py \
	tests/bench/results/test_costs.py tests/bench/results/test_figures.py

.DEFAULT_GOAL := setup
.PHONY: setup up demo unit test faults faults-mutants bench check audit-packages clean help

help:  ## print this list
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "  make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: .venv/.up-to-date  ## install everything, pinned, into .venv; the other targets do it first

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

up: setup  ## run the whole system on this machine, until Ctrl-C
	$(BIN)/groundswell up $(ARGS)

demo: setup  ## send a surge through the whole system and check it to the last signature
	$(BIN)/groundswell demo $(ARGS)

# Needs only Python: no server, no browser. Each file runs in one process, in order.
unit: setup  ## tests that need no server, in a minute (ARGS="-k signer" for some)
	$(BIN)/pytest -q -n 2 --dist loadfile --hypothesis-profile unit $(UNIT) $(ARGS)

# .tools/bin may hold programs that are not installed on the machine.
test: setup  ## all tests, on real parts (ARGS="tests/unit -k signer" for some)
	$(BIN)/python -m tests.needs
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(BIN)/pytest $(ARGS)

faults: setup  ## surges while everything fails (ARGS="--runs 100 --seed 1 --json")
	$(BIN)/python -m tests.needs kafka
	$(BIN)/groundswell faults $(ARGS)

faults-mutants: setup  ## break the protocol on purpose and see that the fault runs notice
	$(BIN)/python -m tests.needs kafka
	$(BIN)/python -m tests.faults.mutants $(ARGS)

# `--inexact` keeps installed packages: the benchmark's are added to them.
bench: setup  ## speed and cost, beside floors and peers; an hour when whole (ARGS="accept road --quick --json bench.json")
	$(UV) sync --locked --inexact --extra local --group bench --no-python-downloads --python $(PYTHON)
	$(BIN)/python -m tests.needs bench
	$(BIN)/groundswell bench $(ARGS)

check: setup  ## style, types, import rules, deploy files, generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/proposal.yml
	$(BIN)/groundswell generated --check

# Not part of `check`: its result changes without a change here, and it sends the packages' names to api.osv.dev.
audit-packages: .tools/uv/$(UV_VERSION)  ## known vulnerabilities of all pinned packages; asks osv.dev
	$(UV) audit --locked

clean:  ## remove all that make has made
	rm -rf .venv .tools .groundswell *.egg-info tests/contract/asyncapi/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find deploy services shared tests -name __pycache__ -type d -prune -exec rm -rf {} +

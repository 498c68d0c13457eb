# Everything a checkout can do. Nothing is needed but make and a Python from 3.11 on:
# the first target that needs it makes .venv, and an editable install follows the sources by itself.

PYTHON ?= python3

# The question reaches the program through the environment, as it was typed: neither make nor a shell reads it.
override Q := $(value Q)
export Q

BIN := .venv/bin
SERVERS := .venv-servers/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SERVERS_PIP := $(SERVERS)/python -m pip --disable-pip-version-check --quiet

.PHONY: help ask question test test-servers bench clean
.DELETE_ON_ERROR:

help:
	@echo 'make ask Q="..."   ask the model that is inside: no key, no network'
	@echo 'make test          ruff, mypy, pyright and every test'
	@echo 'make test-servers  the tests against transformers serve and llama_cpp.server'
	@echo 'make bench         the benchmarks, as tables'
	@echo 'make clean         remove .venv, caches and builds'
	@echo
	@echo 'PYTHON=python3.12 chooses the Python that .venv is made with (now: $(PYTHON)).'

# stdout is the answer and nothing else; what is said on the way goes to stderr.
ask: question .venv/.installed-ask
	@$(BIN)/sabir ask -- "$$Q" </dev/null

question:
	@test -n "$$Q" || { echo 'usage: make ask Q="What is the capital of France?"' >&2; exit 2; }

test: .venv/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest

# Apart from the others, since what it installs is large (torch) and has to be compiled (llama.cpp).
test-servers: .venv-servers/.installed
	$(SERVERS)/python -m pytest tests/real_servers

bench: .venv/.installed-test
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit; done

clean:
	rm -rf .venv .venv-servers .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.made .venv-servers/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Sabir needs Python 3.11 or newer, and "$(PYTHON)" is not: '"$$($(PYTHON) --version 2>&1)" >&2; \
	  echo 'Name another one, for example: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
	@echo 'making $(@D)' >&2
	@$(PYTHON) -m venv $(@D) >&2
	@touch $@

.venv/.installed-ask: pyproject.toml | .venv/.made
	@echo 'installing Sabir with its own small model into .venv (once)' >&2
	@$(PIP) install --editable '.[local,cli]' >&2
	@touch $@

# has all that `ask` needs, too
.venv/.installed-test: pyproject.toml | .venv/.made
	@echo 'installing Sabir and its tools into .venv (once)' >&2
	@$(PIP) install --editable '.[local,cli,pydantic,dev]' >&2
	@touch .venv/.installed-ask $@

# torch is taken from where pip is told to look, where it lies there, else as a build for CPUs: PyPI's is for CUDA, and
# several gigabytes large.
.venv-servers/.installed: pyproject.toml | .venv-servers/.made
	@echo 'installing the servers into .venv-servers (once); llama.cpp is compiled, which takes ten minutes' >&2
	@$(SERVERS_PIP) install --no-index --no-deps torch 2>/dev/null >&2 || \
	  $(SERVERS_PIP) install torch --extra-index-url https://download.pytorch.org/whl/cpu >&2
	@$(SERVERS_PIP) install 'torch>=2.6' 'transformers[serving]>=5.23,<6' 'gguf>=0.17' 'llama-cpp-python[server]>=0.3.36,<0.4' >&2
	@$(SERVERS_PIP) install --editable '.[cli]' 'pytest>=9,<10' 'trustme>=1.2' >&2
	@touch $@

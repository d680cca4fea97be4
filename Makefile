# make demo, make test, make ui, make study, make lint, make docs: each makes what it needs. Everything lives in .venv and data/.
.DELETE_ON_ERROR:
.PHONY: demo test deploy-test lint ui study docs audit constraints clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
LOCKED := $(PIP) --require-hashes --only-binary :all: --requirement
THIS := $(PIP) --no-build-isolation --editable .

demo: $(VENV)/.demo
	@$(BIN)/dqe demo

ui: $(VENV)/.demo
	@$(BIN)/dqe ui

# What the papers found, tried here by real training: the page is data/study/study.html.
study: $(VENV)/.test
	@$(BIN)/dqe study $(ARGS)

test: $(VENV)/.test
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# docker/ on a Docker of its own: as root on Debian, with docker.io, docker-compose and mmdebstrap. It takes a while.
deploy-test: $(VENV)/.test
	@DQE_DEPLOY_TEST=1 $(BIN)/python -m pytest -x tests/deploy/test_stack.py $(ARGS)

lint: $(VENV)/.lint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports --no-logo

# The generated pages of docs/, and the site of all pages in site/.
docs: $(VENV)/.docs
	@$(BIN)/python docs/make_reference.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "The site is in site/. To read it: $(BIN)/python -m http.server --directory site 8000"

# All that is installed has its version and the hash of its file in requirements/, and none of it is built here. torch is
# a build for CPUs alone where pip finds one; else it needs the libraries of CUDA, which are packages of their own.
$(VENV)/.demo: pyproject.toml requirements/demo.txt requirements/cpu.txt requirements/cuda.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (once, a few minutes) ..."
	@$(LOCKED) requirements/cpu.txt 2>/dev/null || true
	@$(LOCKED) requirements/demo.txt
	@case "$$($(BIN)/python -m pip show torch)" in *nvidia*) $(LOCKED) requirements/cuda.txt ;; esac
	@$(THIS)
	@touch $@

$(VENV)/.test: $(VENV)/.demo requirements/test.txt
	@$(LOCKED) requirements/test.txt
	@touch $@

$(VENV)/.lint: $(VENV)/.demo requirements/lint.txt
	@$(LOCKED) requirements/lint.txt
	@touch $@

$(VENV)/.docs: $(VENV)/.demo requirements/docs.txt
	@$(LOCKED) requirements/docs.txt
	@touch $@

# What is installed, against the known vulnerabilities.
audit: $(VENV)/.lint
	@$(BIN)/python requirements/audit.py

# Resolves what is installed: keeps the versions that are there, and adds what is new in pyproject.toml.
constraints: $(VENV)/.lint
	@$(BIN)/python requirements/compile.py $(ARGS)

clean:
	rm -rf $(VENV) data/store data/cache data/qdrant data/subsets data/warehouse.duckdb data/gallery.html data/gallery data/view

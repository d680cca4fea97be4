# make demo, make test, make ui, make lint, make docs: each makes what it needs. Everything lives in .venv and data/.
.DELETE_ON_ERROR:
.PHONY: demo test lint ui docs constraints clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt requirements/pinned.txt

demo: $(VENV)/.demo
	@$(BIN)/dqe demo

ui: $(VENV)/.demo
	@$(BIN)/dqe ui

test: $(VENV)/.test
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

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

$(VENV)/.demo: $(INPUTS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (once, a few minutes) ..."
	@$(PIP) --no-deps --require-hashes -r requirements/pinned.txt
	@$(PIP) --editable '.[sample,ui]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@$(PIP) --editable '.[sample,ui,test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.demo
	@$(PIP) --editable '.[sample,ui,lint]'
	@touch $@

$(VENV)/.docs: $(VENV)/.demo
	@$(PIP) --editable '.[sample,ui,docs]'
	@touch $@

# The versions that make and CI install. pip-tools resolves them again, in an environment of its own.
constraints:
	@rm -rf $(VENV)-constraints && $(PYTHON) -m venv $(VENV)-constraints
	@$(VENV)-constraints/bin/pip install --quiet --upgrade pip pip-tools
	@$(VENV)-constraints/bin/pip-compile --quiet --upgrade --strip-extras --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--output-file $(VENV)-constraints/all.txt requirements/pinned.in
	@awk 'NR == FNR { if ($$0 !~ /^#/) pinned[$$0]; next } /^[a-z]/ { keep = $$1 in pinned } keep' \
		requirements/pinned.in $(VENV)-constraints/all.txt > requirements/pinned.txt
	@$(VENV)-constraints/bin/pip-compile --quiet --upgrade --strip-extras --no-header --no-annotate \
		--extra sample --extra ui --extra test --extra lint --extra docs \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--output-file constraints.txt pyproject.toml
	@sed -i 's/+cpu$$//' constraints.txt
	@rm -rf $(VENV)-constraints

clean:
	rm -rf $(VENV) data/store data/cache data/qdrant data/subsets data/warehouse.duckdb data/gallery.html

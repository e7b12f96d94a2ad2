# `make` prints the targets. The first use of a target installs its needs in .venv.

FUZZ_SECONDS ?= 60
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

# With it set, every process that the tests start would compile the package again, and pytest all of its tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test docs fuzz lint format bench bench-full chaos clean

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo  ## run the demonstration: a durable census of the standard library
	$(BIN)/runic-redis demo

test: $(VENV)/test  ## run every test
	$(BIN)/python -m pytest -n auto --dist worksteal

# (With --quiet, --strict does not see warnings either.)
docs: $(VENV)/docs  ## build the documentation as a site, in site/: python3 -m http.server -d site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fuzz: $(VENV)/fuzz  ## fuzz each target by coverage, for FUZZ_SECONDS (60) each; the corpus and the findings are kept in .fuzz/
	for target in $$($(BIN)/python -m tests.fuzz_with_atheris --targets 2>/dev/null); do \
		echo "== $$target" && \
		$(BIN)/python -m tests.fuzz_with_atheris $$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || exit 1; \
	done

lint: $(VENV)/test  ## check format, style, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/test  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/bench  ## measure against others, on an embedded server: six minutes, report in bench-report/
	$(BIN)/runic-redis bench --out bench-report

bench-full: $(VENV)/bench  ## the same, up to 10 M events and 1 M workflows
	$(BIN)/runic-redis bench --full --out bench-report

SECONDS ?= 120
chaos: $(VENV)/test  ## break servers and connections under load for SECONDS=120, and print the result
	$(BIN)/python -m tests.chaos --seconds $(SECONDS)

clean:  ## remove the environment and the files of tools
	rm -rf $(VENV) .fuzz .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache bench-report build dist site

$(VENV)/demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,ui]'
	touch $@

$(VENV)/test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

$(VENV)/fuzz: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	touch $@

$(VENV)/bench: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	for package in umadb salamander-db dbos; do \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check $$package || echo "$$package: not measured"; \
	done
	touch $@

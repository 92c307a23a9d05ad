# make demo, make test: everything is set up in .venv on first use. Needs Python >= 3.11 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= demo
SEED ?= 0
CONSTRAINTS ?= -c constraints.txt

# The stamp is written only after pip has finished, so that a failed first try starts over.
.venv/installed: pyproject.toml constraints.txt
	@echo "setting up .venv: PyTorch and the rest, a minute or two"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[dev]'
	touch $@

.PHONY: install demo docs site test test-full lint clean
install: .venv/installed

demo: install
	$(BIN)/froster demo --seed $(SEED) --out $(OUT)

docs: install
	$(BIN)/python -m froster.report.methods docs/methods.md

site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html, or serve it: $(BIN)/mkdocs serve"

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# A process a core with one thread each, and one more; a file's tests stay together, for they share what is slow to
# make, and files go in the order of conftest.py. Compiled modules are kept: dozens of processes import them.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# What guards every part. Left out is what is marked slow: variants of what a quick test covers, and what takes figures.
test: lint
	$(PYTEST) -m "not slow"

test-full: lint
	$(PYTEST) --hypothesis-profile thorough

clean:
	rm -rf .venv demo site

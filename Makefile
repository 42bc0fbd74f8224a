# make run     an answer on simulated signals, from nothing but Python 3.11 and pip
# make test    set up and run every test (real data too where HPO_DATA is set)
# make check   format, lint, types, import contracts, tests
# make coverage  all tests, and which lines none of them runs: in nearly twice the time
# make hooks   the same checks before every commit
# make wheel   what is released: one wheel, in dist/
#
# PYTHON            the interpreter that makes the virtual environment
# CONSTRAINTS       the versions to install; empty takes the newest that pyproject.toml allows
# TORCH_INDEX_URL   one more package index, for a build of torch other than your default index gives
# TRIALS, TIME      size of `make run`
# JOBS              processes of `make test`; `make --jobs=2 cores` tests on two kinds of core at once
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
TRIALS ?= 30
TIME ?= 6m
JOBS ?= 2

# Where byte code is not to be written (images set this), each of the tests' many processes would compile all
# that it imports: five seconds of processor time with torch in place of two.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL))

# Other processors and libraries give other last bits, and a law holds on all of them: the tests of the model
# and the sampler again with the matrix products of two older processors (OpenBLAS's, which NumPy and SciPy
# multiply with), and those of the engine with torch's of the oldest (ATen's and MKL's: torch has no OpenBLAS).
CORES := Haswell Prescott
ON_OTHER_CORES := tests/test_analysis.py tests/test_ratio_sampler.py tests/test_search.py
AGAIN := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'not slow and not few_draws'

.PHONY: run test coverage cores $(CORES) torch check static format hooks wheel clean

run: $(VENV)/.installed
	$(BIN)/hpo run synthetic_rr --trials $(TRIALS) --timeout $(TIME)

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

coverage: PYTEST_ARGS += --cov --cov-report=term-missing:skip-covered
coverage: test

cores: $(CORES) torch

$(CORES): $(VENV)/.installed-dev
	OPENBLAS_CORETYPE=$@ $(AGAIN) $(ON_OTHER_CORES)

torch: $(VENV)/.installed-dev
	ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE $(AGAIN) tests/test_population.py

check: static test

static: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

hooks: $(VENV)/.installed-dev
	$(BIN)/pre-commit install

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# A stamp, so that a second `make` installs nothing: an install depends on these two files alone. Modules are
# compiled when they are first imported: compiling all of torch and the others takes half of an install's time.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --quiet --no-compile --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --quiet --no-compile --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*

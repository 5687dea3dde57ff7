# make demo   install, then run the main job on the bundled sample
# make test   install the test extras, then run the whole test suite
# make check  run linters, type checker, import contracts and tests, as CI does
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ECDREG := $(BIN)/ecdreg
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: install test-install demo test lint check clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^# //p' Makefile

install: $(VENV)/.installed

test-install: $(VENV)/.installed-test

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "error: $(PYTHON) is missing or older than Python 3.11; run: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "error: $(PYTHON) cannot create virtual environments; run: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml
	@echo "Installing ecdreg into $(VENV) (some minutes; PyTorch and the rest take 6.8 GB) ..."
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.python pyproject.toml
	@echo "Installing ecdreg and its test extras into $(VENV) (some minutes; PyTorch and the rest take 6.8 GB) ..."
	$(PIP) install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	@echo; echo "== 1/5  ingest 200 crystals with first-principles charge densities"
	$(ECDREG) ingest --fcc --source sample
	@echo; echo "== 2/5  train image, text, composition and density towers and their stack, for three targets"
	$(ECDREG) train stacked
	@echo; echo "== 3/5  predict the properties of K2S (mp-1022)"
	$(ECDREG) predict stacked mp-1022
	@echo; echo "== 4/5  search for crystals similar to K2S"
	$(ECDREG) similar mp-1022 -k 5
	@echo; echo "== 5/5  query the leaderboard in SQL"
	$(ECDREG) db shell -c "SELECT model, target, n_cv, cv_r2, cv_r2_sd, cv_rmse, n_holdout, holdout_r2, holdout_rmse FROM v_leaderboard"
	@echo; echo "The registry is kept (ecdreg db status prints its folder). Next steps:"
	@echo "  source $(VENV)/bin/activate"
	@echo "  ecdreg similar --text 'rock salt oxide' --where 'k_vrh > 100'"
	@echo "  ecdreg report stacked:k_vrh -o report.html"
	@echo "  ecdreg db shell -c \"SELECT formula, k_vrh FROM v_materials WHERE k_vrh > 250 ORDER BY k_vrh DESC LIMIT 5\""
	@echo "  ecdreg ingest --fcc --source path/to/your/folder/    # docs/howto/own_data.md"

test: export OMP_NUM_THREADS := 1
test: export OPENBLAS_NUM_THREADS := 1
test: $(VENV)/.installed-test
	@# One thread of linear algebra for each process: the tests use all cores already.
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

clean:
	rm -rf $(VENV) build dist *.egg-info

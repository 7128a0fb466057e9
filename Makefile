PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test setup

demo: .venv/run
	$(BIN)/python -m kd_jax.main --config=configs/umts_carousel.py

test: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile

setup: .venv/test

.venv/run: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.txt
	touch $@

.venv/test: .venv/run tests/requirements.txt
	$(BIN)/pip install -q --disable-pip-version-check -r tests/requirements.txt
	touch $@

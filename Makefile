# make demo and make test each work as the first command on a fresh machine with Python 3.10 to 3.12, git and make.
.PHONY: setup demo test check bench clean
.DEFAULT_GOAL := demo

PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
DEMO := out/demo.mp4

setup: .venv/.ready

.venv/.ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10, 3.11 or 3.12 found"; \
		echo "hint: install one, or name it: make PYTHON=/path/to/python3.11 setup"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv (downloads torch and others: some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[mediapipe,test]"
	@touch .venv/.ready

demo: setup
	@mkdir -p out
	@$(BIN)/mtvcraft animate assets/robot.png assets/drive.mp4 -o $(DEMO) --force

test: setup
	@$(MAKE) --no-print-directory check

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

bench: setup
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .venv out

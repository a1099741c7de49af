# make run and make test need Python >= 3.8 and nothing else.
PYTHON ?= python3
VENV   ?= .venv
SAMPLE ?= samples/vtest.avi
# A model of engines/ or an ONNX file of your own: make run MODEL=detector.onnx
MODEL  ?=
ARGS   ?=
BIN     = $(VENV)/bin

.PHONY: run test soak lint clean
run: $(VENV)/.installed $(SAMPLE)
	$(BIN)/edgecount run --source $(SAMPLE) $(if $(MODEL),--model $(MODEL)) $(ARGS)

test: $(VENV)/.tested
	$(BIN)/python -m pytest -q -m "not soak and not bench and not gpu" $(ARGS)

# Half an hour; EDGECOUNT_SOAK_S=28800 make soak runs a night.
soak: export EDGECOUNT_SOAK_S ?= 1800
soak: $(VENV)/.tested
	$(BIN)/python -m pytest -q -s -m soak tests/soak $(ARGS)

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(SAMPLE): | $(VENV)/.installed
	$(BIN)/edgecount sample $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "edgecount: $(PYTHON) cannot make a virtual environment; on Debian or Ubuntu run:" \
	       "sudo apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) samples build dist

# make run and make test need Python >= 3.8 and nothing else.
PYTHON ?= python3
VENV   ?= .venv
SAMPLE ?= samples/vtest.avi
# A model of engines/ or an ONNX file of your own: make run MODEL=detector.onnx
MODEL  ?=
ARGS   ?=
BIN     = $(VENV)/bin

.PHONY: run test soak lint kernels clean
run: $(VENV)/.installed $(SAMPLE)
	$(BIN)/edgecount run --source $(SAMPLE) $(if $(MODEL),--model $(MODEL)) $(ARGS)

# Side by side what needs no server, one after the other the rest, where times matter. No test
# chosen by ARGS in one half (5) is no failure.
PYTEST = $(BIN)/python -m pytest -q -m "not soak and not bench and not gpu"
APART  = tests/unit tests/contract tests/integration/toolchain
test: $(VENV)/.tested
	$(PYTEST) -n logical $(APART) $(ARGS) || [ $$? = 5 ]
	$(PYTEST) tests $(addprefix --ignore=,$(APART)) $(ARGS) || [ $$? = 5 ]

# Half an hour; EDGECOUNT_SOAK_S=28800 make soak runs a night.
soak: export EDGECOUNT_SOAK_S ?= 1800
soak: $(VENV)/.tested
	$(BIN)/python -m pytest -q -s -m soak tests/soak $(ARGS)

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Compiles the CUDA kernels for every board, without a GPU. No one NVRTC knows them all.
NVRTC = build/nvrtc
kernels: $(VENV)/.installed $(NVRTC)/cu11 $(NVRTC)/cu13
	$(BIN)/edgecount kernels --nvrtc $(NVRTC)/cu11 --arch sm_53 --arch sm_62 --arch sm_72 --arch sm_87
	$(BIN)/edgecount kernels --nvrtc $(NVRTC)/cu13 --arch sm_87 --arch sm_90 --arch sm_110

$(NVRTC)/cu11: PACKAGE = nvidia-cuda-nvrtc-cu11==11.8.89
$(NVRTC)/cu13: PACKAGE = nvidia-cuda-nvrtc==13.*
$(NVRTC)/cu11 $(NVRTC)/cu13: | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --target $@ "$(PACKAGE)"

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

# `make demo` and `make test` do their own set-up, in .venv. Another Python or torch: make PYTHON=python3.12 TORCH=torch test
PYTHON ?= python3
TORCH ?= torch==2.13.0
# what `make bundle` exports, else what is shipped of the preset; after `make train`: make bundle WEIGHTS=work/nano
WEIGHTS ?=
# what `make quantize`, `engine` and `bench` are for: docs/targets.md has them all
TARGET ?= cpu
# how long `make soak` runs
HOURS ?= 72

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

# keeps the run-time packages under 400 MB on disk: newer versions are 26 MB larger
SMALL := "opencv-python-headless<4.12"

.PHONY: demo test train ablations bundle evaluate quantize engine bench doctor bench-kernels soak lint wheel clean

demo: $(VENV)/run.stamp
	$(PY) -m flashlips_edge.demo

# two at once, each file's tests in one process and in order: most wait for a clock, a file or another process
test: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

train: $(VENV)/dev.stamp
	@command -v espeak-ng >/dev/null || { echo "espeak-ng is missing: sudo apt-get install espeak-ng" >&2; exit 1; }
	$(PY) -m flashlips_edge.training

# make bundle [PRESET=edge] [WEIGHTS=work/nano]: then --bundle edge
bundle: $(VENV)/dev.stamp
	$(PY) -m flashlips_edge.training.export --preset $(or $(PRESET),nano) --weights $(or $(WEIGHTS),weights/$(or $(PRESET),nano))

ablations: $(VENV)/dev.stamp
	$(PY) -m flashlips_edge.training.ablations --out out/ablations.json

evaluate: $(VENV)/dev.stamp
	$(PY) -m flashlips_edge.evaluation

quantize: $(VENV)/dev.stamp
	$(PY) -m quantize --target $(TARGET)

# make engine TARGET=orin [PRESET=edge] [WEIGHTS=work/edge/edge] [CALIBRATION=videos] [HOST=user@device]
engine: $(VENV)/dev.stamp
	$(PY) -m targets.build $(TARGET) $(if $(PRESET),--preset $(PRESET)) $(if $(WEIGHTS),--weights $(WEIGHTS)) \
		$(if $(CALIBRATION),--calibration $(CALIBRATION)) $(if $(HOST),--host $(HOST))

bench: $(VENV)/dev.stamp
	$(PY) -m benchmarks.engines $(TARGET) $(if $(PRESET),--preset $(PRESET))

doctor: $(VENV)/run.stamp
	$(PY) -m flashlips_edge.doctor

bench-kernels: $(VENV)/dev.stamp
	$(PY) -m kernels.bench

soak: $(VENV)/run.stamp
	$(PY) -m flashlips_edge.soak --hours $(HOURS) --report out/soak.json

lint: $(VENV)/dev.stamp
	$(PY) -m ruff check .
	$(PY) -m mypy

wheel: $(VENV)/bin/pip
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/run.stamp: pyproject.toml | $(VENV)/bin/pip
	$(PIP) --no-compile $(SMALL) --editable .
	@du -sm $(VENV) | awk '{ print "$(VENV): " $$1 " MB" }'
	@touch $@

# torch first: where its CPU build is at hand, nothing after it brings another
$(VENV)/dev.stamp: pyproject.toml | $(VENV)/bin/pip
	$(PIP) "$(TORCH)"
	$(PIP) --editable ".[build,dev]"
	@touch $@

define CHECK
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    sys.exit("Python 3.10 to 3.12 is needed, $(PYTHON) is %d.%d: name another, as in make PYTHON=python3.12 demo" % sys.version_info[:2])
try:
    import ensurepip, venv
except ImportError:
    sys.exit("Python's venv module is missing: sudo apt-get install python3-venv")
endef
export CHECK

$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c "$$CHECK"
	$(PYTHON) -m venv $(VENV)

# `make demo` and `make test` set up .venv first, where that is not done; a second call installs nothing.

VENV := .venv
STAMP := $(VENV)/.installed
RUN := $(VENV)/bin/python
# The first Python that the known-good line resolves on.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $(p))))
DEMO := work_dirs/pixpro_r50_demo

.PHONY: setup demo demos test lint format bench check-versions clean

setup: $(STAMP)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "densessl needs Python 3.11, 3.12 or 3.13; none was found. PYTHON=/path/to/python make …"; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[det,seg,onnx,regions,test]'
	touch $@

# The main job on built-in pictures: pretrain, export, load into a detector, check that nothing was lost.
demo: $(STAMP)
	$(RUN) tools/train.py configs/pixpro_r50.py --demo
	$(RUN) tools/export.py $(DEMO)/epoch_2.pth $(DEMO)/backbone_mmdet.pth --to mmdet \
		--into mmdet::retinanet/retinanet_r50_fpn_1x_coco.py

# Every config's demo.
demos: $(STAMP)
	set -e; for config in configs/*.py configs/mix/*.py configs/small/*.py; do $(RUN) tools/train.py $$config --demo; done

# One thread a process: two test processes with two threads each get into each other's way.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(STAMP)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(STAMP)
	$(RUN) benchmarks/data_path.py

# Fresh environments in a temporary folder, one at a time: VERSIONS="minimal original torch-2.14" (docs/install.md).
check-versions:
	$(PYTHON) tools/check_versions.py $(VERSIONS)

clean:
	rm -rf $(VENV) work_dirs

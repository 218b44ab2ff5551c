# make demo    from nothing to a trained, scored captioner on two ranks
# make test    the CPU test suite, but for what takes half a minute or more a test
# make test-all  all of it
# make lint    ruff and mypy
# make fuzz    wrong input by the thousand: 20 minutes a test, or IMGCAP_FUZZ_SECONDS each
# make docs    the pages as a site, in build/site; a link that leads nowhere is an error
#
# Each sets up the virtual environment first: the plain install for the demo, `[dev]` for the others.
# PYTHON=python3.12 VENV=/elsewhere/venv choose others.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PLAIN := $(VENV)/installed
DEV := $(VENV)/installed-dev
RANKS := OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc_per_node 2

TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist worksteal

.PHONY: demo test test-all fuzz lint docs install

install: $(PLAIN)

$(PLAIN): setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'error: imgcap needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(DEV): $(PLAIN)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

test: $(DEV)
	$(TESTS) -m 'not exhaustive'

# In two goes, since what tests leave in the memory of their processes adds up. Ranks that are pinned to their cores, beside
# another test on the same ones, have taken over 300 seconds for half a minute's work.
test-all: test
	$(TESTS) -m exhaustive --timeout 900

fuzz: $(DEV)
	IMGCAP_FUZZ_SECONDS=$${IMGCAP_FUZZ_SECONDS:-1200} $(TESTS) -s --timeout 0 tests/fuzz

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Each step takes up what an earlier call has done: `make demo` again trains no step twice.
demo: $(PLAIN)
	$(BIN)/python tools/build_shards.py demo --out shards/demo --workers 2
	$(RANKS) launch/train.py --config configs/demo.yaml
	$(RANKS) launch/evaluate.py runs/demo --split test --beam 5 'eval.metrics=[BLEU,METEOR,ROUGE-L,CIDEr]'
	$(BIN)/python tools/score.py --results runs/demo/results/test-captions.json --facts
	$(BIN)/python tools/caption.py runs/demo shards/demo-raw/scene-200000[0-5].jpg --attention runs/demo/samples/attention
	@echo 'Look at runs/demo/samples and runs/demo/curves.png, or: $(BIN)/tensorboard --logdir runs/demo/tensorboard'

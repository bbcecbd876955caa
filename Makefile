# The graph of the study. A point of the grid is a path, dataset/representation/model/fold/training, and a
# chapter at a point is one executed notebook next to the files it writes. `make` alone prints help.

BUILD    ?= build
DATA     ?= data
PARAMS   ?= params
DATASETS ?= demo

# An interpreter that is already right (PYTHON=, or the activated conda environment), or a .venv of our own.
conda  := $(filter adversarial-audio,$(CONDA_DEFAULT_ENV))
python := $(or $(PYTHON),$(if $(conda),python,.venv/bin/python))
ready  := $(if $(PYTHON)$(conda),,.venv/environment.yml)
plain  := $(if $(ready),$(or $(shell command -v python3.11),python3),$(python))

# The words reach the shell quoted, and are never expanded; axes.py refuses, or answers with assignments.
quoted = '$(subst ','\'',$(value $1))'
names := BUILD DATA PARAMS DATASETS REPRESENTATIONS MODELS FOLDS TRAININGS THREADS TIMEOUT FILE WEIGHTS LAB
$(foreach v,$(names),$(if $(findstring $$,$(value $v)),$(error $v='$(value $v)': a '$$' is not allowed)))
words := $(foreach v,$(names),$(if $(filter undefined,$(origin $v)),,$v=$(call quoted,$v)))
dry := $(if $(findstring n,$(firstword -$(MAKEFLAGS))),--dry)
answer := $(shell $(plain) -S -m lib.grid.axes $(dry) $(or $(call quoted,MAKECMDGOALS),help) $(words))
$(if $(filter-out 0,$(.SHELLSTATUS)),$(error $(or $(answer),$(plain): Python 3 is needed)))
$(foreach line,$(answer),$(eval $(subst &, ,$(line))))

# A chapter rests on copies of its source, settings and table (clips.csv). A dry run (-n) only names these.
inputs   := $(BUILD)/.inputs
axis      = $(word $1,$(subst /, ,$*))
settings  = $(inputs)/$(call axis,1)/$(basename $(@F)).yaml
sources   = $(inputs)/$(basename $(@F)).py $(settings)
data      = $(BUILD)/$(call axis,1)/01_data.ipynb
features  = $(BUILD)/$(call axis,1)/$(call axis,2)/02_features.ipynb
victim    = $(BUILD)/$*/$(if $(filter standard,$(call axis,5)),03_training,05_adversarial_training).ipynb
control   = $(BUILD)/$(*D)/standard/03_training.ipynb

# The demo is made for two cores and runs two cells at once, unless -jN says otherwise. N cells at once share
# the cores and the GPU, unless a launcher places each by itself.
ifeq ($(DATASETS)$(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),demo0)
MAKEFLAGS += -j2
endif
cores   := $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu)
jobs     = $(or $(patsubst -j%,%,$(filter -j%,$(MAKEFLAGS))),$(if $(filter -j,$(MAKEFLAGS)),$(cores),1))
share    = $(or $(THREADS),$(shell echo $$(($(cores) > $(jobs) ? $(cores) / $(jobs) : 1))))
threads  = $(eval threads := $(share))$(threads)
axes    := dataset representation model fold training
point    = $(foreach i,1 2 3 4 5,$(if $(call axis,$i),-p $(word $i,$(axes)) $(call axis,$i)))

# A process keeps up to 2 GiB of what it frees, for its next step, and huge pages halve the time of networks
# whose gradients are large (glibc and torch read these).
export MALLOC_MMAP_THRESHOLD_ := 33554432
export MALLOC_TRIM_THRESHOLD_ := 2147483647
export THP_MEM_ALLOC_ENABLE   := 1

# A launcher may lose a node and yet exit 0: the target must be another file than before (ls wakes up NFS).
define run
@was=$$(ls -i $@ 2>&1); \
STUDY_MAKE=$$(uname -n):$$PPID OMP_NUM_THREADS=$(threads) STUDY_CELLS=$(if $(LAUNCH),1,$(jobs)) \
  $(LAUNCH) $(python) -m lib.grid.execute notebooks/$(basename $(@F)).py $@ \
  --timeout $(or $(TIMEOUT),0) -f $(settings) --called $(PARAMS)/$(settings:$(inputs)/%=%) \
  $(addprefix --copy ,$(filter $(inputs)/%,$^)) -p build $(BUILD) $(point) $1 || exit; \
ls $(@D) >/dev/null 2>&1; [ -e $@ ] && [ "$$(ls -i $@)" != "$$was" ] || \
  { echo "FAILED $(basename $@): its runner ended without an error, but wrote no notebook" >&2; exit 1; }
endef

.SECONDEXPANSION:
.PRECIOUS: $(foreach c,$(basename $(notdir $(wildcard notebooks/0*.py))),$(BUILD)/%/$c.ipynb)

$(BUILD)/%/01_data.ipynb: $$(sources) $$(wildcard $(inputs)/$$*/clips.csv $(inputs)/$$*/recordings) | $(ready)
	$(call run,-p data_folder $(call quoted,DATA))
$(BUILD)/%/02_features.ipynb: $$(sources) $$(data) | $(ready); $(call run,-p together '$(together)')
$(BUILD)/%/03_training.ipynb: $$(sources) $$(features) | $(ready); $(run)
$(BUILD)/%/05_adversarial_training.ipynb: $$(sources) $$(features) $$(control) | $(ready); $(run)
$(BUILD)/%/04_attacks.ipynb: $$(sources) $$(victim) | $(ready); $(run)
$(BUILD)/%/06_analysis.ipynb: $$(sources) $$(attacked_$$*) | $(ready); $(run)
$(BUILD)/%/07_beyond.ipynb: $$(sources) $$(attacked_$$*) | $(ready); $(run)

.PHONY: help setup all data figures publish shelve book status refresh plan verify pack unpack lab clean \
  lint test test-all test-gpu FORCE
help: ## print this
	@$(plain) -S -m lib.grid.axes --usage $(firstword $(MAKEFILE_LIST))
$(again): FORCE
$(changed): FORCE ;
.venv/environment.yml: environment.yml
	@$(plain) -m lib.grid setup WANTED=$< MARK=$@
setup: $(ready) ## install the packages of environment.yml, once
all: $(cells) ## run the whole study at every point of the grid (default: the demo)
	@for d in $(DATASETS); do echo "$$d: read $(BUILD)/$$d/06_analysis.ipynb and $(BUILD)/$$d/figures"; done
data: $(foreach d,$(DATASETS),$(BUILD)/$d/01_data.ipynb) ## chapter 1: fetch, check and list the recordings
figures: $(ready) ## draw tables and figures again, from the rows that chapter 6 kept
	@for r in $(rows); do $(python) -m lib.analysis.report $$r || exit; done
publish: $(read) | $(ready) ## write notebooks/*.ipynb and figures/ of one run, to be committed
	@$(python) -m lib.grid publish $(words) CELLS='$^'
shelve: $(BUILD)/$(firstword $(DATASETS))/06_analysis.ipynb | $(ready) ## write figures/ alone
	@$(python) -m lib.grid shelve $(words)
book: $(uncopied) | $(ready) ## set chapters and figures as one site, for a browser without a network
	@$(python) -m lib.grid book $(words) CELLS='$^'
status: $(ready) ## list the cells that are to do, changed, failed, or older than their code
	@$(MAKE) -n --no-print-directory all | $(python) -m lib.grid status $(words)
refresh: $(cells) ## run those older than their code again, and what rests on them
plan: $(ready) ## estimate hours, disk and memory of a grid, from finished cells
	@$(MAKE) -n --no-print-directory all | $(python) -m lib.grid plan $(words)
pack: $(ready) ## write the finished cells to one archive: FILE=, WEIGHTS=1 for weights as well
	@$(MAKE) -n --no-print-directory all | $(python) -m lib.grid pack $(words)
unpack: $(ready) ## lay an archive of make pack out in BUILD: FILE=
	@$(python) -m lib.grid unpack $(words)
verify: $(ready) ## run a random tenth of the finished cells again and compare; SHARE=1 for all
	@OMP_NUM_THREADS=$(threads) $(python) -m lib.grid verify $(words) SHARE=$(call quoted,SHARE)
lint: $(ready) ## ruff
	@$(python) -m ruff check lib tests notebooks && $(python) -m ruff format --check lib tests notebooks
test: lint ## lint and the quick tests
	@OMP_NUM_THREADS=1 $(python) -m pytest -q -n $(cores) --maxprocesses 16
test-all: lint ## lint and all tests: faults, Slurm and browser too
	@OMP_NUM_THREADS=1 $(python) -m pytest -q -n $(cores) --maxprocesses 16 -m ""
test-gpu: $(ready) ## the tests that need a CUDA device
	@OMP_NUM_THREADS=2 $(python) -m pytest -q -n 4 -m gpu tests/test_gpu.py
bench-%: $(ready) ## measure: bench-attacks, -features, -gpu, -grid, -norms, -reference, -savings, -training
	@OMP_NUM_THREADS=1 $(python) -m tests.bench $* --build $(BUILD)
lab: $(ready) ## chapters in JupyterLab, to be executed by hand; LAB= passes arguments on
	@OMP_NUM_THREADS=$(threads) $(python) -m lib.grid lab $(words)
clean: ## remove what make has built
	@$(plain) -S -m lib.grid clean $(words)

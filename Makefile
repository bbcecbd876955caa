# The graph of the study. A point of the grid is a path, dataset/representation/model/fold/training, and a
# chapter at a point is one executed notebook beside the files it leaves. `make` alone prints help.

BUILD    ?= build
DATA     ?= data
PARAMS   ?= params
DATASETS ?= demo
LAUNCH   ?=
TIMEOUT  ?= 0

# Models and folds are a data set's own unless MODELS or FOLDS are given.
every_representation := stft dwt stft_tonnetz dwt_tonnetz
every_training       := standard adversarial
every_model          := googlenet alexnet resnet18 resnet34 resnet56 vgg16
models_demo          := alexnet resnet18
folds_demo           := 1
folds_urbansound8k   := 1 2 3 4 5 6 7 8 9 10
models = $(or $(MODELS),$(models_$1),$(every_model))
folds  = $(or $(FOLDS),$(folds_$1),1 2 3 4 5)

# Names end up in paths and in recipes: what could be read as a command is refused, unexpanded.
letters := a b c d e f g h i j k l m n o p q r s t u v w x y z
digits  := 0 1 2 3 4 5 6 7 8 9
letters += A B C D E F G H I J K L M N O P Q R S T U V W X Y Z $(digits) _ - .
signs   := ; & | < > ` " ' * ? \ $$ ( )
define newline


endef
less     = $(if $2,$(call less,$(subst $(firstword $2),,$1),$(wordlist 2,99,$2)),$1)
$(foreach v,DATASETS REPRESENTATIONS MODELS FOLDS TRAININGS TIMEOUT THREADS,$(if $(or \
  $(call less,$(subst $() $(),,$(value $v)),$(letters)),$(filter .% -%,$(value $v))),\
  $(error $v='$(value $v)': words of letters, digits, '_', '-' and '.' are wanted)))
$(foreach v,BUILD DATA PARAMS,$(if $(or $(if $(value $v),,empty),$(findstring $(newline),$(value $v)),\
  $(filter -%,$(firstword $(value $v))),$(strip $(foreach s,$(signs),$(findstring $s,$(value $v))))),\
  $(error $v='$(value $v)': a path without quotes and signs of the shell is wanted)))
$(foreach v,BUILD PARAMS,$(if $(or $(findstring $() $(),$(value $v)),\
  $(strip $(foreach s,% : { },$(findstring $s,$(value $v))))),\
  $(error $v='$(value $v)': a path without spaces, '%', ':' and braces is wanted)))
REPRESENTATIONS ?= $(every_representation)
TRAININGS       ?= $(every_training)
$(foreach v,DATASETS REPRESENTATIONS TRAININGS,$(if $($v),,$(error $v: none is given)))
$(foreach v,THREADS TIMEOUT,$(if $(or $(call less,$(value $v),$(digits)),$(word 2,$(value $v))),\
  $(error $v='$(value $v)': a whole number is wanted)))
$(if $(filter-out $(every_representation),$(REPRESENTATIONS)),\
  $(error REPRESENTATIONS='$(REPRESENTATIONS)': they are $(every_representation)))
$(if $(filter-out $(every_training),$(TRAININGS)),$(error TRAININGS='$(TRAININGS)': they are $(every_training)))
$(if $(filter 0,$(THREADS)),$(error THREADS=0: one at the least is wanted))
$(if $(TIMEOUT),,$(error TIMEOUT: seconds are wanted, 0 for no limit))
$(if $(or $(call less,$(subst $() $(),,$(value FOLDS)),$(digits) .),$(filter 0% .% %. %.0 %.0%,$(FOLDS))),\
  $(error FOLDS='$(value FOLDS)': numbers are wanted, such as 1, or 1.3 for fold 1 with seed 3))

# ------------------------------------------------------------------------------------------------- set-up
# An interpreter that is already right (PYTHON=, or the activated conda environment), or a .venv of our own.
ifneq ($(PYTHON),)
python := $(PYTHON)
else ifeq ($(CONDA_DEFAULT_ENV),adversarial-audio)
python := python
else
python := .venv/bin/python
ready  := .venv/environment.yml
endif

.venv/environment.yml: environment.yml
	@base=$$(command -v python3.11 || command -v python3); \
	"$$base" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "set-up: Python 3.11 is wanted; found $$($$base --version). PYTHON=... names another." >&2; exit 1; }; \
	mkdir -p .venv && exec 9> .venv/lock && $$base -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' || exit; \
	if cmp -s $< $@; then touch $@; exit; fi; \
	echo "set-up: installing the packages of environment.yml into .venv" && \
	$$base -m venv .venv && \
	sed -n 's/^ *- \([A-Za-z0-9_.-]*==[^ ]*\).*/\1/p' $< > .venv/requirements.txt && \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r .venv/requirements.txt && \
	cp $< $@

# --------------------------------------------------------------------------------------------------- grid
axes     := dataset representation model fold training
axis      = $(word $1,$(subst /, ,$*))
chapters  := $(sort $(basename $(notdir $(wildcard notebooks/0*.py))))

# A chapter rests on its source and its settings by content, the first also on a table of one's own: copies that
# change only where the text does.
inputs := $(BUILD)/.inputs
folder := $(subst $() ,\ ,$(DATA))
ifneq ($(filter-out help setup lint test test-all lab clean bench-%,$(or $(MAKECMDGOALS),help)),)
$(if $(wildcard $(PARAMS)/.),,$(error PARAMS=$(PARAMS): there is no such folder of settings))
$(if $(filter-out file,$(origin PARAMS)),$(foreach d,$(DATASETS),$(if $(wildcard $(PARAMS)/$d/.),,\
  $(error PARAMS=$(PARAMS): it holds no settings of $d))))
$(foreach f,$(foreach d,$(DATASETS),$(filter-out $(chapters:%=$(PARAMS)/$d/%.yaml),\
  $(wildcard $(PARAMS)/$d/*.yaml $(PARAMS)/$d/*.yml))),\
  $(error $f: no chapter reads it; settings are in $(chapters:%=%.yaml)))
$(shell set -e; keep() { cmp -s "$$1" $$2 || { cat "$$1" > $$2.$$$$; mv -f $$2.$$$$ $$2; }; }; \
  for d in $(DATASETS); do mkdir -p $(inputs)/$$d; for c in $(chapters); do \
  f=$(PARAMS)/$$d/$$c.yaml; [ -f $$f ] || f=/dev/null; keep $$f $(inputs)/$$d/$$c.yaml; done; \
  f=$(folder)/$$d/clips.csv; [ ! -f "$$f" ] || keep "$$f" $(inputs)/$$d/clips.csv; done; \
  for c in $(chapters); do keep notebooks/$$c.py $(inputs)/$$c.py; done)
$(if $(filter-out 0,$(.SHELLSTATUS)),$(error BUILD=$(BUILD): nothing can be written there))
endif

settings  = $(inputs)/$(call axis,1)/$(basename $(@F)).yaml
sources   = $(inputs)/$(basename $(@F)).py $(settings)
data      = $(BUILD)/$(call axis,1)/01_data.ipynb
features  = $(BUILD)/$(call axis,1)/$(call axis,2)/02_features.ipynb
victim    = $(BUILD)/$*/$(if $(filter standard,$(call axis,5)),03_training,05_adversarial_training).ipynb
control   = $(BUILD)/$(*D)/standard/03_training.ipynb
victims   = $(foreach r,$(REPRESENTATIONS),$(foreach m,$(call models,$1),$(foreach f,$(call folds,$1),\
              $(foreach t,$(TRAININGS),$(BUILD)/$1/$r/$m/$f/$t))))
attacked  = $(addsuffix /04_attacks.ipynb,$(call victims,$1))
told      = $(BUILD)/$1/06_analysis.ipynb $(BUILD)/$1/07_beyond.ipynb
cells     = $(foreach d,$(DATASETS),$(BUILD)/$d/01_data.ipynb $(REPRESENTATIONS:%=$(BUILD)/$d/%/02_features.ipynb) \
              $(foreach v,$(call victims,$d),$v/$(if $(filter %/standard,$v),03_training,05_adversarial_training).ipynb \
              $v/04_attacks.ipynb) $(call told,$d))

# A reader sees a run at one point: the first of the axes given, dwt/resnet18 where none are.
read_at   = $(BUILD)/$1/$(firstword $(if $(filter file,$(origin REPRESENTATIONS)),dwt,$(REPRESENTATIONS)))
read_for  = $(call read_at,$1)/$(firstword $(or $(MODELS),resnet18))/$(firstword $(call folds,$1))
to_read   = $(BUILD)/$1/01_data.ipynb $(call read_at,$1)/02_features.ipynb \
              $(call read_for,$1)/standard/03_training.ipynb \
              $(call read_for,$1)/$(firstword $(TRAININGS))/04_attacks.ipynb \
              $(call read_for,$1)/$(firstword $(filter-out standard,$(TRAININGS)) \
              adversarial)/05_adversarial_training.ipynb $(call told,$1)
copies   := $(basename $(notdir $(wildcard notebooks/0*.ipynb)))
uncopied  = $(foreach c,$(call to_read,$1),$(if $(filter $(basename $(notdir $c)),$(copies)),,$c))

# The demo is made for two cores and runs two cells at once, unless -jN says otherwise.
ifeq ($(DATASETS)$(filter -j%,$(MAKEFLAGS)),demo)
MAKEFLAGS += -j2
endif

# N cells at once (make -jN) share the cores and the GPU, unless a launcher places each by itself. Huge pages halve the time of networks whose
# gradients are large; memory that is kept, and not given back after each pass, saves a tenth.
cores   := $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu)
host    := $(shell uname -n)
jobs     = $(or $(patsubst -j%,%,$(filter -j%,$(MAKEFLAGS))),$(if $(filter -j,$(MAKEFLAGS)),$(cores),1))
threads  = $(or $(THREADS),$(shell n=$$(($(cores) / $(jobs))); echo $$((n > 0 ? n : 1))))
point    = $(foreach i,1 2 3 4 5,$(if $(call axis,$i),-p $(word $i,$(axes)) $(call axis,$i)))

# A launcher may lose a node and yet exit 0: the target must be another file than before. A network file system
# looks again where a folder is listed.
define run
@was=$$(ls -i $@ 2>&1); \
STUDY_MAKE=$(host):$$PPID OMP_NUM_THREADS=$(threads) STUDY_CELLS=$(if $(LAUNCH),1,$(jobs)) THP_MEM_ALLOC_ENABLE=1 \
  MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=2147483647 \
  $(LAUNCH) $(python) -m lib.grid.execute notebooks/$(basename $(@F)).py $@ \
  --timeout $(TIMEOUT) -f $(settings) --called $(PARAMS)/$(settings:$(inputs)/%=%) \
  $(addprefix --copy ,$(filter $(inputs)/%,$^)) -p build $(BUILD) $(point) $1 || exit; \
ls $(@D) >/dev/null 2>&1; [ -e $@ ] && [ "$$(ls -i $@)" != "$$was" ] || \
  { echo "FAILED $(basename $@): its runner ended without an error, yet the notebook is not there" >&2; exit 1; }
endef

.SECONDEXPANSION:
.PRECIOUS: $(foreach c,$(chapters),$(BUILD)/%/$c.ipynb)

$(BUILD)/%/01_data.ipynb: $$(sources) $$(wildcard $(inputs)/$$*/clips.csv) | $(ready)
	$(call run,-p data_folder $(folder))
$(BUILD)/%/02_features.ipynb: $$(sources) $$(data) | $(ready)
	$(run)
$(BUILD)/%/03_training.ipynb: $$(sources) $$(features) | $(ready)
	$(run)
$(BUILD)/%/05_adversarial_training.ipynb: $$(sources) $$(features) $$(control) | $(ready)
	$(run)
$(BUILD)/%/04_attacks.ipynb: $$(sources) $$(victim) | $(ready)
	$(run)
$(BUILD)/%/06_analysis.ipynb: $$(sources) $$(call attacked,$$*) | $(ready)
	$(run)
$(BUILD)/%/07_beyond.ipynb: $$(sources) $$(call attacked,$$*) | $(ready)
	$(run)

# -------------------------------------------------------------------------------------------------- verbs
.DEFAULT_GOAL := help
.PHONY: help setup all data figures publish shelve book status plan verify lint test test-all lab clean
peers     = $(if $(filter attacks features,$*),tests/bench/requirements.txt)

help: ## print this
	@echo "make VERB [DATASETS='demo esc10 esc50 urbansound8k'] [REPRESENTATIONS='$(REPRESENTATIONS)']"
	@echo "          [MODELS='$(every_model)'] [FOLDS='1 2 3'] [TRAININGS='$(TRAININGS)']"
	@echo "          [DATA=data] [BUILD=build] [PARAMS=params] [PYTHON=python] [LAUNCH='srun --gres=gpu:1'] [-k -jN]"
	@sed -n 's/^\([a-z%-]*\):.*## /  \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

setup: $(ready) ## install the packages of environment.yml, once

all: $(cells) ## the whole study at every point of the grid (default: the demo)
	@for d in $(DATASETS); do f=$(BUILD)/$$d/figures; ls $$f/*.md $$f/*.png | sed 's/^/  /'; \
	  echo "$$d: read $(BUILD)/$$d/06_analysis.ipynb, then 07_beyond.ipynb; tables (also CSV and LaTeX) and"; \
	  echo "  figures (also PDF and CSV) lie above, told in $$f/README.md"; done

data: $(foreach d,$(DATASETS),$(BUILD)/$d/01_data.ipynb) ## chapter 1: fetch, check and list the recordings

figures: $(ready) ## draw tables and figures again, from the rows that chapter 6 kept
	@for d in $(DATASETS); do rows=; for f in $(BUILD)/$$d/figures figures/$$d; do [ ! -d $$f/rows ] || \
	  { rows=$$f/rows; $(python) -m lib.analysis.report $$rows || exit; }; done; [ "$$rows" ] || \
	  { echo "figures: chapter 6 has left no rows of $$d in $(BUILD)/$$d/figures or figures/$$d" >&2; exit 1; }; done

publish: $(call to_read,$(firstword $(DATASETS))) | $(ready) ## notebooks/*.ipynb and figures/: one run, to be read and committed
	@$(python) -m lib.grid.publish $(BUILD) $^

shelve: $(BUILD)/$(firstword $(DATASETS))/06_analysis.ipynb | $(ready) ## figures/ alone: one more run beside the one whose copies are there
	@$(python) -m lib.grid.publish $(BUILD) $^ --figures-only

book: $(call uncopied,$(firstword $(DATASETS))) | $(ready) ## one site of chapters and figures, for a browser, without a network
	@$(python) -m lib.grid.book $(BUILD) $^

status: $(ready) ## what is finished, to do, failed, or older than its code
	@mkdir -p $(inputs)$(file >$(inputs)/cells,$(cells))
	@$(python) -m lib.grid.receipts --build $(BUILD) --cells $(inputs)/cells

plan: $(ready) ## what a grid will take, told from finished cells: hours, disk, memory
	@mkdir -p $(inputs)$(file >$(inputs)/cells,$(cells))
	@$(python) -m lib.grid.plan --build $(BUILD) --params $(PARAMS) --cells $(inputs)/cells

verify: $(ready) ## run a random tenth of the finished cells again: do they come out the same?
	@OMP_NUM_THREADS=$(threads) $(python) -m lib.grid.verify --build $(BUILD)

lint: $(ready) ## ruff
	@$(python) -m ruff check lib tests notebooks && $(python) -m ruff format --check lib tests notebooks

test: lint ## lint and the quick tests
	@$(python) -m pytest -q

test-all: lint ## lint and all tests: faults, Slurm and browser too
	@$(python) -m pytest -q -m ""

bench-%: $(ready) ## measure: bench-attacks, bench-features, bench-training, bench-grid
	@$(if $(peers),$(python) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(BUILD)/bench/peers -r $(peers) || echo "$@: not all peers of $(peers) could be installed" >&2)
	@OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=2147483647 PYTHONPATH=$(BUILD)/bench/peers $(python) -m tests.bench.$* --build $(BUILD)

lab: $(ready) ## JupyterLab on this machine only, with its token
	@$(python) -m jupyterlab --ServerApp.ip=localhost notebooks

clean: ## remove everything that was built
	@[ ! -e $(BUILD) ] || [ -d $(inputs) ] || [ -d $(BUILD)/bench ] || \
	  { echo "clean: BUILD=$(BUILD) is no folder that make has built in" >&2; exit 1; }
	rm -rf $(BUILD)

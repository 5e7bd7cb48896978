# Four commands: `make report`, `make paper`, `make test` and `make docs`. Each makes its own environment in .venv first.
PYTHON ?= python3
DATASET ?= JapaneseVowels
DATASETS ?= JapaneseVowels PenDigits LSST
OUT ?= reports
PAPER ?= paper
ARGS ?=
DATA_DIR ?=
CHECKPOINT ?=
BIN := .venv/bin
READY := .venv/.ready
# Names that nobody uses, and the order of imports (not where nbdev and ruff wrap them differently); width: tests/test_readable.py.
RUFF := --quiet --isolated --no-cache --select F,I --line-length 110 --config 'lint.isort.known-first-party=["tst_mi"]' \
	--config 'lint.isort.no-lines-before=["first-party"]' --config lint.isort.lines-after-imports=1 $(foreach m,analysis cli fast patching questions reporting training,--per-file-ignores tst_mi/$m.py:I)
ONE_LINE := import sys; sys.excepthook = lambda kind, error, trace: print('paper:', error, file=sys.stderr)

export DATASET OUT DATA_DIR CHECKPOINT

.PHONY: report paper test machines docs check smoke studies readme clean

# A report on one dataset: make report DATASET=LSST ARGS="-p design error -p seed 1"
# DATA_DIR names a folder of datasets, CHECKPOINT a .safetensors file. If there is no model yet it is trained first,
# with a progress bar. `.venv/bin/tst_mi report --help` lists what ARGS can hold.
report: $(READY)
	@$(BIN)/tst_mi report "$$DATASET" --out_dir "$$OUT" $(if $(DATA_DIR),--data_dir "$$DATA_DIR") $(if $(CHECKPOINT),--checkpoint "$$CHECKPOINT") $(ARGS)

# The figures and tables across datasets: a report on each of DATASETS, then make what spans them, in the folder PAPER.
paper: $(READY)
	@$(BIN)/python -c "$(ONE_LINE); from tst_mi.artifacts import check_folder; check_folder(sys.argv[1])" "$(PAPER)"
	@for name in $(DATASETS); do $(MAKE) --no-print-directory report DATASET="$$name" || exit 1; done
	@$(BIN)/python -c "$(ONE_LINE); from tst_mi.paper import paper; print(*paper(sys.argv[1], sys.argv[2], sys.argv[3:]), sep='\n')" "$(OUT)" "$(PAPER)" $(DATASETS)

test: check smoke
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile tests

# The same where arithmetic differs: more threads, narrower or no vector instructions, denormal numbers taken for zero. (About a
# quarter of an hour each; MKL takes no notice of MKL_ENABLE_INSTRUCTIONS on AMD processors, and does of MKL_CBWR.)
machines: $(READY)
	for setting in OMP_NUM_THREADS=1 OMP_NUM_THREADS=2 ATEN_CPU_CAPABILITY=default "ONEDNN_MAX_CPU_ISA=SSE41 DNNL_MAX_CPU_ISA=SSE41" \
		"MKL_ENABLE_INSTRUCTIONS=SSE4_2 MKL_CBWR=COMPATIBLE" PYTHONPATH=$(CURDIR)/tests/flush_denormal; do \
		echo "=== $$setting" && env $$setting $(MAKE) --no-print-directory test || exit 1; done

# The pages as a site: with Quarto where it is installed (its README then makes way for ours), otherwise with Sphinx, offline.
docs: .venv/.ready-docs
	@if command -v quarto >/dev/null; then $(BIN)/nbdev_docs && $(BIN)/python tools/readme.py; else $(BIN)/python tools/docs.py; fi

# Notebooks are clean and the library is what they export: on a copy, nothing changes. Nothing is imported for nothing.
check: $(READY)
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && \
	cp -R nbs tst_mi settings.ini setup.py README.md _quarto.yml "$$copy" && \
	(cd "$$copy" && "$(CURDIR)/$(BIN)/nbdev_clean" && "$(CURDIR)/$(BIN)/nbdev_export") && \
	diff -r --exclude=__pycache__ --exclude=.last_checked nbs "$$copy/nbs" && diff -r --exclude=__pycache__ tst_mi "$$copy/tst_mi" && \
	echo "notebooks are clean and in step with the library"
	@$(BIN)/ruff check $(RUFF) tst_mi

# Every notebook runs, and the report runs through papermill.
smoke: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/nbdev_test --do_print --timing
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	$(BIN)/papermill nbs/99_report.ipynb "$$out/report.ipynb" --no-progress-bar -p out_dir "$$out" -p max_pairs 40 -p n_boot 500 -p matchings 2 -p control_runs 1 -p placebo_runs 2 -p perturbation_seeds 1 -p ig_steps 3 -p design error -p seed 2 && \
	test -s "$$out/JapaneseVowels/summary.json" && echo "papermill ran the report"

# The studies in full, in place; their data are downloaded unless TST_MI_DATA names a folder.
studies: $(READY)
	cd nbs && for study in 8?_*.ipynb; do OMP_NUM_THREADS=1 ../$(BIN)/jupyter nbconvert --log-level=ERROR --to notebook --execute --inplace $$study || exit 1; done; rm -rf reports
	$(BIN)/nbdev_clean

readme: $(READY)
	$(BIN)/python tools/readme.py

$(READY): setup.py settings.ini constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tst_mi needs Python 3.10 or newer, found " + sys.version.split()[0] + "; try make PYTHON=python3.11")'
	@echo "installing into .venv (once; a minute or two)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(READY)

.venv/.ready-docs: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@

clean:
	rm -rf .venv _docs _proc build dist *.egg-info reports nbs/reports paper

# Every target sets itself up: a virtual environment in .venv, then the locked packages, whenever a lock file changes.

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
UV     := $(VENV)/bin/uv
COMPILE = $(UV) pip compile -q --universal --python-version 3.10 --generate-hashes --no-header --no-annotate

DATA    ?= auto
WEIGHTS ?= auto
SET     ?=
MODEL   ?= flowers
ENGINE  ?= auto
WEB     ?=
REVIEW  ?=
PYTEST  ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
NODE    := tests/serving/web
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' client/pyproject.toml)
TAG ?= $(VERSION)
DOCKER_BUILD ?=
BUILD_IMAGE = docker build $(DOCKER_BUILD) --build-arg VERSION=$(VERSION) --build-arg LICENSE=NOASSERTION \
  --build-arg REVISION=$$(git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)

# Python keeps what it compiled, even where the environment forbids it: without, TensorFlow takes twice as long to
# import, in every process.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: train compare serve web review images notebooks scale test lint bench lock clean help
.DEFAULT_GOAL := help

help:
	@echo 'make train [DATA=folder|tf_flowers|synthetic|auto] [WEIGHTS=imagenet|file|none|auto] [SET="trainer.epochs=2 ..."]'
	@echo 'make compare [DATA= WEIGHTS= SET=]   other models beside it, in one table'
	@echo 'make serve [MODEL=flowers] [ENGINE=docker|local|auto] [SERVE="--port 8500 ... -- server flags"]'
	@echo 'make notebooks [DATA=... WEIGHTS=... SET=...]   run the notebooks'
	@echo 'make web [MODEL=flowers] [WEB="--port 8080 --rest localhost:8501 ..."]'
	@echo 'make review [DATA= WEIGHTS= SET=] [REVIEW="--input unlabelled/ --port 8090 ..."]   decide on doubted labels'
	@echo 'make images [DOCKER_BUILD="--network host ..."]   the containers of the pipeline and of the web page'
	@echo 'make scale   what Kubeflow, Beam and buckets need: docs/scale.md'
	@echo 'make test    the tests            make lint   style, types and import rules'
	@echo 'make bench   ours beside a peer   make lock   renew the lock files'
	@echo 'make clean   remove the environment and cached artifacts; pushed models stay'

train: $(VENV)/.installed
	$(RUN) -m pipelines run --set 'examples.source=$(DATA)' 'model.weights=$(WEIGHTS)' $(SET)

compare: $(VENV)/.installed
	$(RUN) -m pipelines compare --set 'examples.source=$(DATA)' 'model.weights=$(WEIGHTS)' $(SET)

serve: $(VENV)/.installed
	@$(RUN) -m serving --model-name '$(MODEL)' --engine '$(ENGINE)' $(SERVE)

# The drawn flowers are what the committed output shows: make notebooks DATA=synthetic WEIGHTS=none
notebooks: $(VENV)/.installed-dev
	SET='examples.source=$(DATA) model.weights=$(WEIGHTS) $(SET)' \
	  $(VENV)/bin/jupyter execute --inplace $(sort $(wildcard notebooks/*.ipynb))

web: $(VENV)/.installed
	@$(RUN) -m client.browser.runtime || echo 'make web: nobody can look at photos on their own device'
	@$(RUN) -m serving.web --model-name '$(MODEL)' $(WEB)

review: $(VENV)/.installed
	@$(RUN) -m pipelines review $(REVIEW) --set 'examples.source=$(DATA)' 'model.weights=$(WEIGHTS)' $(SET)

images:
	$(BUILD_IMAGE) --tag flowers-pipeline:$(TAG) .
	$(BUILD_IMAGE) --tag flowers-web:$(TAG) --file serving/web/Dockerfile .

scale: $(VENV)/.installed-scale

test: $(VENV)/.installed-dev
	$(RUN) -m pytest $(PYTEST)

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.installed-dev
	$(RUN) -m benchmarks $(BENCH)

lock: $(UV)
	$(COMPILE) requirements-scale.in -o requirements-scale.txt
	$(COMPILE) -c requirements-scale.txt requirements.in -o requirements.txt
	$(COMPILE) requirements-dev.in -o requirements-dev.txt
	$(COMPILE) serving/web/requirements.in -o serving/web/requirements.txt

clean:
	rm -rf $(VENV) $(NODE)/node_modules runs .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(UV): requirements-uv.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit( \
	  f"TensorFlow 2.21 needs Python 3.10 to 3.13. Received: {v[0]}.{v[1]}. Choose one with PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@touch $(UV)

$(VENV)/.installed: requirements.txt $(UV)
	$(UV) pip install --quiet --python $(RUN) --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.installed-scale: requirements-scale.txt $(VENV)/.installed
	$(UV) pip install --quiet --python $(RUN) --require-hashes -r requirements-scale.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(NODE)/package-lock.json $(VENV)/.installed
	$(UV) pip install --quiet --python $(RUN) --require-hashes -r requirements-dev.txt
	@if command -v npm >/dev/null; then npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund --silent; \
	  else echo 'npm is not installed: the accessibility checks will be skipped'; fi
	@$(RUN) -m client.browser.runtime || echo 'the checks of looking at photos in a browser will be skipped'
	@touch $@

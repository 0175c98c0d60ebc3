# Needs: a Python of 3.12 or newer, and make. Everything else comes into .venv.
.DEFAULT_GOAL := help
.PHONY: benchmarks bootstrap checks contracts cost dataset-check dataset-import dataset-split diff deploy destroy doctor execution-policy head-off head-on help install install-deploy install-tests local local-servers local-status local-down lock new-task permissions reference releases report rollback route synth watch test test-all tests types faults snapshots schema clean
SHELL := /bin/sh
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Without Python's cache of compiled modules, each synthesis compiles all of aws_cdk again.
unexport PYTHONDONTWRITEBYTECODE

ENV ?= local
SCHEDULES ?= 200
SEED ?= 1
# What is installed into .venv: each level includes the one before it.
DEPLOYS := .venv/.installed-deploy
INSTALLED := .venv/.installed-local
TESTS := .venv/.installed-tests
CHECKS := .venv/.installed-checks
SOURCES := app.py stacks cdk_distilled_router operate local tests data benchmarks docs/reference examples/constructs examples/existing-job examples/network
FUNCTIONS := $(wildcard lambda/*/)
TIMED = $(if $(DURATIONS),--durations=$(DURATIONS))
# As it was typed: make would expand a dollar sign in it.
export ROUTE_QUERY := $(value QUERY)
export IMPORT_TEMPLATE := $(value TEMPLATE)

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { \
		count = split($$2, words, " "); line = sprintf("  make %-17s", $$1); \
		for (place = 1; place <= count; place++) { \
			if (length(line) + length(words[place]) >= 79) { print line; line = sprintf("%23s ", "") } \
			line = line " " words[place] } \
		print line }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## Create .venv and install what the local system needs

install-deploy: $(DEPLOYS)  ## Install only what deploys to AWS

install-tests: $(TESTS)  ## Install what the tests need as well

INSTALLER := $(addprefix local/,install.sh install.py requirements-uv.txt) $(addprefix operate/,requirements-node.txt cdk-cli/package-lock.json)

$(DEPLOYS): operate/requirements.txt $(INSTALLER)
	@sh local/install.sh deploy

$(INSTALLED): local/requirements.txt local/emulator/requirements.txt $(INSTALLER)
	@sh local/install.sh local

$(TESTS): requirements-dev.txt local/emulator/requirements.txt $(INSTALLER)
	@sh local/install.sh tests

$(CHECKS): requirements-dev.txt tests/checks/requirements.txt docs/reference/requirements.txt local/emulator/requirements.txt $(INSTALLER)
	@sh local/install.sh checks

local: $(INSTALLED)  ## Deploy into an AWS emulator on this machine, ask some queries [ENV=dev] [DATA=folder] [QUERIES=file]
	@python -m local up --environment "$(ENV)" $(if $(DATA),--data "$(DATA)") $(if $(QUERIES),--queries "$(QUERIES)")

local-servers: $(INSTALLED)  ## Start the emulator without our stacks, for an app of your own [REGION=us-west-2]
	@python -m local servers $(if $(REGION),--region "$(REGION)")

local-status: $(INSTALLED)  ## Show the local system's servers, stacks and release
	@python -m local status

local-down: $(INSTALLED)  ## Destroy the local stacks and stop the servers [FORCE=1: only stop the servers]
	@python -m local down $(if $(FORCE),--force)

route: $(DEPLOYS)  ## Ask the router: QUERY="red car driving at night" [ENV=local]
	@test -n "$$ROUTE_QUERY" || { echo 'A query is required: make route QUERY="red car driving at night"' >&2; exit 2; }
	@python -m operate route --environment "$(ENV)" -- "$$ROUTE_QUERY"

releases: $(DEPLOYS)  ## List all releases: state, share of the requests, scores, cost [ENV=local]
	@python -m operate releases --environment "$(ENV)"

report: $(DEPLOYS)  ## Fetch the newest report, and open it in a browser [ENV=local] [RELEASE=digest] [OUT=file]
	@python -m operate report --environment "$(ENV)" --release "$(RELEASE)" $(if $(OUT),--out "$(OUT)")

rollback: $(DEPLOYS)  ## Give all requests to the previous good release [ENV=local] [TO=digest] [GRADUAL=1: by steps]
	@python -m operate rollback --environment "$(ENV)" --to "$(TO)" $(if $(GRADUAL),--gradual)

head-off: $(DEPLOYS)  ## Switch classification heads off at once, without a deployment [ENV=local]
	@python -m operate head-off --environment "$(ENV)"

head-on: $(DEPLOYS)  ## Switch classification heads on again [ENV=local]
	@python -m operate head-on --environment "$(ENV)"

watch: $(DEPLOYS)  ## Follow the running release until it ends [ENV=local]
	@python -m operate watch --environment "$(ENV)"

cost: $(DEPLOYS)  ## Estimate what an environment costs, without access to AWS: ENV=dev [COUNT=1000000: queries a month]
	@python -m operate cost --environment "$(ENV)" $(if $(COUNT),--queries "$(COUNT)") $(if $(ROWS),--rows "$(ROWS)")

new-task: $(DEPLOYS)  ## Lay out a task's folder: NAME=support LABELS="billing,technical,account" [FOLDER=tasks/support]
	@test -n "$(NAME)" && test -n "$(LABELS)" || { echo 'Name and labels are required: make new-task NAME=support LABELS="billing,technical,account"' >&2; exit 2; }
	@python -m operate new-task "$(NAME)" --labels "$(LABELS)" $(if $(FOLDER),--folder "$(FOLDER)")

dataset-import: $(DEPLOYS)  ## Convert labelled rows of another form: FROM=openai FILE=theirs.jsonl OUT=rows.jsonl [TASK=] [REPLACE=1] [QUERY=] [ANSWER=] [LABEL=] [COUNT=] [TEMPLATE=] [TEACHER=] [FILTERS=] [WITHOUT_ANSWERS=1]
	@test -n "$(FROM)" && test -n "$(FILE)" && test -n "$(OUT)" || { echo 'Form and files are required: make dataset-import FROM=openai FILE=theirs.jsonl OUT=rows.jsonl' >&2; exit 2; }
	@python -m operate dataset-import "$(FILE)" --from "$(FROM)" --out "$(OUT)" $(if $(TASK),--task "$(TASK)") $(if $(REPLACE),--replace) \
		$(if $(QUERY),--query "$$ROUTE_QUERY") $(if $(ANSWER),--answer "$(ANSWER)") $(if $(LABEL),--label "$(LABEL)") $(if $(COUNT),--count "$(COUNT)") \
		$(if $(TEMPLATE),--template "$$IMPORT_TEMPLATE") $(if $(TEACHER),--teacher "$(TEACHER)") $(foreach one,$(FILTERS),--log-filter "$(one)") \
		$(if $(WITHOUT_ANSWERS),--without-answers)

dataset-split: $(DEPLOYS)  ## Split labelled rows: FILE=rows.jsonl TRAINING=training.jsonl HOLDOUT=holdout.jsonl [SHARE=0.2] [TASK=] [REPLACE=1]
	@test -n "$(FILE)" && test -n "$(TRAINING)" && test -n "$(HOLDOUT)" || { echo 'Three files are required: make dataset-split FILE=rows.jsonl TRAINING=training.jsonl HOLDOUT=holdout.jsonl' >&2; exit 2; }
	@python -m operate dataset-split "$(FILE)" --training "$(TRAINING)" --holdout "$(HOLDOUT)" $(if $(SHARE),--share "$(SHARE)") $(if $(TASK),--task "$(TASK)") $(if $(REPLACE),--replace)

dataset-check: $(DEPLOYS)  ## Check rows or raw queries: FILE=data/training.jsonl [HOLDOUT=] [FOR=prod] [METHOD=] [TASK=] [KEEP=10]
	@test -n "$(FILE)" || { echo 'A file is required: make dataset-check FILE=data/training.jsonl' >&2; exit 2; }
	@python -m operate dataset-check "$(FILE)" $(if $(HOLDOUT),--holdout "$(HOLDOUT)") $(if $(FOR),--environment "$(FOR)") $(if $(METHOD),--method "$(METHOD)") $(if $(TASK),--task "$(TASK)") $(if $(KEEP),--keep "$(KEEP)")

synth: $(DEPLOYS)  ## Write cdk.out, without access to AWS [ENV=local]
	@python -m operate synth --environment "$(ENV)"

bootstrap: $(DEPLOYS)  ## Prepare an AWS account and Region for the CDK, once: ENV=dev
	@python -m operate bootstrap --environment "$(ENV)"

doctor: $(DEPLOYS)  ## Check an account: credentials, models, quotas, stacks, leftovers; only reads [ENV=local]
	@python -m operate doctor --environment "$(ENV)"

diff: $(DEPLOYS)  ## Show what a deployment to AWS would change: ENV=dev [READ_ONLY=1: create no change set]
	@python -m operate diff --environment "$(ENV)" $(if $(READ_ONLY),--read-only)

deploy: $(DEPLOYS)  ## Deploy to AWS, with the credentials of your shell: ENV=dev [APPROVED=1: don't ask]
	@python -m operate deploy --environment "$(ENV)" $(if $(APPROVED),--approved)

destroy: $(DEPLOYS)  ## Remove a deployment from AWS: ENV=dev
	@python -m operate destroy --environment "$(ENV)"

test: $(TESTS)  ## Lint, check types and contracts, and run the quick tests: 6 minutes [DURATIONS=25]
	ruff check .
	ruff format --check .
	@# Side by side: much of a test is waiting.
	@$(MAKE) --no-print-directory -j 3 types contracts tests

types: $(TESTS)
	mypy $(SOURCES) $(FUNCTIONS)

contracts: $(TESTS)
	PYTHONPATH=.:lambda lint-imports

tests: $(TESTS)
	pytest $(TIMED)

test-all: test $(CHECKS)  ## The same, and then all other tests: deployments, faults, permissions, checkov: 25 minutes
	pytest tests -m slow -n 3 $(TIMED)

checks: $(CHECKS)  ## Check prod with checkov, and update docs/checks.md
	@python -m tests.checks
	pytest tests/checks

reference: $(CHECKS)  ## Write the API reference of the constructs into docs/reference/html/
	@PATH="$$(python -c 'from operate.cdk import tool_path; print(tool_path())')" \
		.venv/reference/bin/python -m sphinx -W -n --keep-going -q docs/reference docs/reference/html
	@echo "Open docs/reference/html/index.html in a browser."

faults: $(TESTS)  ## Deploy, update and destroy everything under random faults [SCHEDULES=200] [SEED=1]
	@python -m tests.faults --schedules "$(SCHEDULES)" --seed "$(SEED)"

benchmarks: $(TESTS)  ## Measure the router: against others, under load, at a cold start; 20 minutes on an otherwise idle machine
	python -m benchmarks.cold_start
	python -m benchmarks.load
	python -m benchmarks.router

snapshots: $(TESTS)  ## Update the snapshots of the templates
	pytest tests/snapshots --snapshot-update

permissions: $(TESTS)  ## Check the roles' permissions, and update docs/permissions.md [RECORD=1: record the calls again]
	@python -m tests.permissions $(if $(RECORD),--record)

execution-policy: $(TESTS)  ## Write policies for CloudFormation's role, to replace AdministratorAccess: ENV=dev
	@python -m operate execution-policy --environment "$(ENV)" --output execution-policy-$(ENV).json

lock: $(DEPLOYS)  ## Update the lock files from requirements*.in [UPGRADE=1: all packages] [PACKAGE=name: one]
	@sh local/lock.sh $(if $(UPGRADE),--upgrade) $(if $(PACKAGE),--upgrade-package "$(PACKAGE)")

schema: $(DEPLOYS)  ## Update docs/settings.md and environments/schema.json
	python -m stacks.settings

clean:  ## Remove build output and caches; the virtual environment and a running local system stay
	rm -rf cdk.out docs/reference/html .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

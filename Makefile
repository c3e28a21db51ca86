# One truth for commands: people, README and CI use these lines.
PYTHON ?= python3
BIN := .venv/bin
PREFIX ?= /usr/local
INSTALLED := $(PREFIX)/lib/nanobanana
# The lock files are complete: nothing is left to resolve. Left to itself pip would look at releases that are newer than the
# pinned ones wherever something is wanted with an extra, and fail at them.
LOCKED := --require-hashes --no-deps

CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "NanoBanana needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'

FAST := tests/catalogue/test_file.py tests/core/test_logs.py tests/core/test_pool.py tests/core/test_security.py tests/core/test_settings.py tests/docs tests/features \
  tests/generations tests/payments tests/providers tests/ratelimit/test_limit.py tests/ratelimit/test_memory.py tests/ratelimit/test_slots.py tests/web

.DEFAULT_GOAL := help
.PHONY: help run wheel test test-fast suite in-browser behind-proxies in-prometheus types documents test-browser proxies test-proxies test-clients screenshots check bench bench-scale bench-limits bench-overload bench-edge bench-provider bench-live bench-images bench-memory bench-uploads bench-console bench-migration bench-queue bench-money bench-async-beside rolling fuzz chaos settings-docs lock clean ha test-ops install uninstall dist

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/run.installed ## start NanoBanana on http://127.0.0.1:8000, with a PostgreSQL of its own
	@exec $(BIN)/nanobanana serve

wheel: .venv/run.installed ## build dist/nanobanana-VERSION-py3-none-any.whl, which pip installs anywhere
	@$(BIN)/pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist ./backend
	@ls dist/*.whl

install: ## install into PREFIX (/usr/local): bin/nanobanana, and all that it needs in lib/nanobanana
	@umask 022; [ "$(INSTALLED)/requirements.installed" -nt backend/requirements.txt ] || { \
	  $(CHECK_PYTHON) && $(PYTHON) -m venv --clear "$(INSTALLED)" && \
	  "$(INSTALLED)/bin/python" -m pip install -q --disable-pip-version-check $(LOCKED) -r backend/requirements.txt && \
	  touch "$(INSTALLED)/requirements.installed"; }
	@umask 022; "$(INSTALLED)/bin/python" -m pip install -q --disable-pip-version-check --force-reinstall --no-deps --no-build-isolation ./backend
	@umask 022; mkdir -p "$(PREFIX)/bin" && ln -sfn ../lib/nanobanana/bin/nanobanana "$(PREFIX)/bin/nanobanana"
	@"$(PREFIX)/bin/nanobanana" --version

uninstall: ## remove what make install has put into PREFIX, never the data
	rm -rf "$(INSTALLED)" "$(PREFIX)/bin/nanobanana"

dist: .venv/run.installed ## build wheel and source distribution in dist/: of one commit, the same bytes on every machine
	@mkdir -p dist
	@cd backend && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) ../$(BIN)/python -c \
	  "from flit_core.buildapi import build_sdist, build_wheel; build_sdist('../dist'); build_wheel('../dist')"
	@cd dist && sha256sum nanobanana-*

test: suite ## run all tests but those of `make check`, `make test-clients` and `make ha`, on a real PostgreSQL and Redis, with coverage, and in a browser if there is one
	@$(MAKE) --no-print-directory in-browser
	@$(MAKE) --no-print-directory -j 2 behind-proxies in-prometheus

in-browser: .venv/dev.installed
	@cd backend && if ../$(BIN)/python -m tests.browser.chromium; then ../$(BIN)/pytest -q -n 2 --dist worksteal tests/browser; else \
	  echo "There is no Chromium or Chrome here: the tests in a browser were left out. make test-browser installs one."; fi

behind-proxies: .venv/dev.installed
	@cd backend && if ../$(BIN)/python -m tests.proxies.programs; then ../$(BIN)/pytest -q tests/proxies; else \
	  echo "There is no nginx, Caddy or HAProxy here: the tests behind proxies were left out. make test-proxies installs them."; fi

in-prometheus: .venv/dev.installed
	@cd backend && if ../$(BIN)/python -m tests.ops.prometheus; then ../$(BIN)/pytest -q tests/ops; else \
	  echo "There is no Prometheus here: the tests of the dashboard and the alerts were left out. make test-ops installs it."; fi

test-fast: .venv/dev.installed ## run the tests that need neither PostgreSQL nor Redis nor another process, in seconds
	cd backend && ../$(BIN)/pytest -q --fast $(FAST)

suite: .venv/dev.installed
	cd backend && rm -rf .coverage && ../$(BIN)/python -W ignore::RuntimeWarning:slipcover.importer -m slipcover -m pytest -q -n 4 --dist worksteal --ignore=tests/chaos --ignore=tests/browser --ignore=tests/proxies --ignore=tests/clients --ignore=tests/ha --ignore=tests/ops --ignore=tests/docs --ignore=tests/test_schema.py --ignore=tests/test_wheel.py --ignore=tests/starts --ignore=tests/core/test_embedded.py --ignore=tests/core/test_embedded_files.py
	cd backend && ../$(BIN)/python -m slipcover --fail-under 95 --merge .coverage
	cd backend && ../$(BIN)/pytest -q -n 4 --dist worksteal tests/starts tests/core/test_embedded.py tests/core/test_embedded_files.py
	cd backend && ../$(BIN)/pytest -q tests/chaos

test-browser: .venv/dev.installed ## look at every page in a Chromium, which is installed where that is possible
	cd backend && ../$(BIN)/python -m tests.browser.chromium install && ../$(BIN)/pytest -q tests/browser

proxies: .venv/dev.installed ## install nginx, Caddy, HAProxy and PgBouncer for the tests, where that is possible
	cd backend && ../$(BIN)/python -m tests.proxies.programs install

test-proxies: proxies ## run real proxies in front of the server and of its database
	cd backend && ../$(BIN)/pytest -q tests/proxies

test-ops: .venv/dev.installed ## let a real Prometheus, which is installed where that is possible, read the dashboard and the alerts
	cd backend && ../$(BIN)/python -m tests.ops.prometheus install && ../$(BIN)/pytest -q tests/ops

test-clients: .venv/dev.installed ## let unmodified clients for Python and Node call the server; they are installed into .clients
	cd backend && ../$(BIN)/python -m tests.clients.environments && ../$(BIN)/pytest -q -n 2 --dist worksteal tests/clients

screenshots: .venv/dev.installed ## take pictures of every page, light, dark and on a phone, into screenshots/
	@mkdir -p screenshots
	cd backend && ../$(BIN)/python -m tests.browser.chromium install && SCREENSHOTS=../screenshots ../$(BIN)/pytest -q tests/browser
	@ls screenshots

check: .venv/dev.installed ## style, types, import contracts, schema equal to the models, documentation, a wheel that works
	cd backend && ../$(BIN)/ruff check . && ../$(BIN)/ruff format --check . && ../$(BIN)/lint-imports
	@$(MAKE) --no-print-directory -j 2 types documents

types: .venv/dev.installed
	cd backend && ../$(BIN)/mypy

documents: .venv/dev.installed
	cd backend && ../$(BIN)/pytest -q tests/test_schema.py tests/docs tests/test_wheel.py

bench: .venv/dev.installed ## generate against the bare FastAPI route and the tutorial way, or with BASE=<commit> against that, and there with MODELS=<n> models (needs wrk)
	cd backend && ../$(BIN)/python -m $(if $(BASE),benchmarks.base $(BASE) $(if $(MODELS),--models $(MODELS)),benchmarks.bench)

bench-scale: .venv/dev.installed ## what a request costs with a million keys and ten million rows (needs wrk)
	cd backend && ../$(BIN)/python -m benchmarks.scale

bench-limits: .venv/dev.installed ## what callers feel while Redis is in trouble
	cd backend && ../$(BIN)/python -m benchmarks.trouble

bench-overload: .venv/dev.installed ## goodput, refusals and health at ten times the capacity (needs wrk)
	cd backend && ../$(BIN)/python -m benchmarks.overload

bench-edge: .venv/dev.installed ## what a caller feels beside thousands who send slowly, never read or are idle, with SECONDS=<n> for so long
	cd backend && ../$(BIN)/python -m benchmarks.edge $(SECONDS)

bench-provider: .venv/dev.installed ## thousands of generations in flight on a provider that takes ten seconds
	cd backend && ../$(BIN)/python -m benchmarks.in_flight

bench-live: .venv/dev.installed ## pictures a second through a provider, beside LiteLLM and Portkey where npm and pip reach them (needs wrk)
	cd backend && ../$(BIN)/python -m benchmarks.live

bench-images: .venv/dev.installed ## images scaled and converted, against the commits BASE="<commit> <commit>"
	cd backend && ../$(BIN)/python -m benchmarks.images $(or $(BASE),b2aadd2 c6784d2)

bench-memory: .venv/dev.installed ## ten thousand pictures of two megabytes, drawn, kept, read and deleted
	cd backend && ../$(BIN)/python -m benchmarks.memory

bench-uploads: .venv/dev.installed ## fifty callers that send sixteen images of four megabytes each at once, to one process
	cd backend && ../$(BIN)/python -m benchmarks.uploads

bench-console: .venv/dev.installed ## how soon the page of keys is painted, in a Chromium
	cd backend && ../$(BIN)/python -m benchmarks.console

bench-migration: .venv/dev.installed ## migrate two million generations under traffic; what the schema costs recording
	cd backend && ../$(BIN)/python -m benchmarks.migration && ../$(BIN)/python -m benchmarks.recording

bench-queue: .venv/dev.installed ## what taking jobs costs however many wait; 100,000 of them drawn by four workers, fairly
	cd backend && ../$(BIN)/python -m benchmarks.queue_take && ../$(BIN)/python -m benchmarks.queue_drain

bench-money: .venv/dev.installed ## what a price adds to recording and settling, and to a call over HTTP, for one account and for a thousand (needs wrk)
	cd backend && ../$(BIN)/python -m benchmarks.money && ../$(BIN)/python -m benchmarks.partitions && ../$(BIN)/python -m benchmarks.priced_calls

bench-async-beside: .venv/dev.installed ## callers who wait, alone and beside 1,000 asynchronous calls a second, with BASE=<commit> against synchronous ones of that (needs wrk)
	cd backend && ../$(BIN)/python -m benchmarks.async_beside $(if $(BASE),--base $(BASE))

rolling: proxies ## restart and upgrade two servers behind nginx and HAProxy, under traffic, for about seven minutes
	cd backend && ../$(BIN)/python -m benchmarks.rolling

fuzz: .venv/dev.installed ## call every operation of the API with thousands of requests that are made at random, for minutes
	cd backend && FUZZ=long ../$(BIN)/pytest -q tests/test_fuzz.py

chaos: .venv/dev.installed ## break workers, connections and PostgreSQL under traffic, for minutes
	cd backend && CHAOS=long ../$(BIN)/pytest -q -s tests/chaos

ha: .venv/dev.installed ## lose the primary of three PostgreSQL hosts in every way, for minutes; Patroni is installed into .ha
	cd backend && ../$(BIN)/python -m tests.ha.programs && ../$(BIN)/pytest -q -s tests/ha

settings-docs: .venv/dev.installed ## write .env.example and the tables of docs/operations.md from the settings' fields
	cd backend && ../$(BIN)/python -m tests.docs.settings_pages

lock: .venv/dev.installed ## resolve the dependencies anew into the hash-pinned requirements
	cd backend && PATH="../$(BIN):$$PATH" ../scripts/lock.sh

clean: ## remove the environments and the caches, never the data
	rm -rf .venv .clients .ha backend/.coverage backend/.mypy_cache backend/.ruff_cache

.venv/run.installed: backend/requirements.txt backend/pyproject.toml
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check $(LOCKED) -r backend/requirements.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation --editable backend
	@touch $@

.venv/dev.installed: .venv/run.installed backend/requirements-dev.txt
	$(BIN)/pip install -q --disable-pip-version-check $(LOCKED) -r backend/requirements-dev.txt
	@touch $@

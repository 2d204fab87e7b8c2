# What a person types here: make demo, make test, make lint, make bench [QUICK=1], make clean.
# Each sets up .venv by itself (Python >= 3.11, hashes checked) and does so again when a lock file changes.

# Nothing that runs from here asks a name server, a public router, a gateway or the local network.
export MESHCALL_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --no-input
RUN := .venv/.installed
DEV := .venv/.installed-dev
BENCH := .venv/.installed-bench

.PHONY: demo test lint unit bench clean lock

demo: $(RUN)
	@.venv/bin/meshcall demo --out out/demo $(ARGS)

test: lint unit

lint: $(DEV)
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports

unit: $(DEV)
	@$(PY) -m pytest -n 2 --dist loadgroup $(ARGS)

bench: $(BENCH)
	@$(PY) tests/benchmarks/run_all.py $(if $(QUICK),--quick) $(ARGS)

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@.ci/venv

$(RUN): requirements.lock pyproject.toml | $(PY)
	@echo "Installing meshcall and what it needs into .venv ..."
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements-dev.lock $(RUN)
	@echo "Installing what the tests need into .venv ..."
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

$(BENCH): requirements-bench.lock $(DEV)
	@echo "Installing what the benchmarks need into .venv (pesq is compiled: it needs gcc) ..."
	@$(PIP) --require-hashes -r requirements-bench.lock || \
		echo "Without pesq and matplotlib: the benchmarks that need them say so."
	@touch $@

# For maintainers (needs uv): the newest versions that pyproject.toml allows, for all platforms.
LOCK = uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-config \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" pyproject.toml
lock:
	PATH="$$PATH:.venv/bin" $(LOCK) --group build -o requirements.lock
	PATH="$$PATH:.venv/bin" $(LOCK) --group build --extra dev -c requirements.lock -o requirements-dev.lock
	PATH="$$PATH:.venv/bin" $(LOCK) --group build --extra dev --extra bench -c requirements-dev.lock \
		-o requirements-bench.lock

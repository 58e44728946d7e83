# Two commands: `make demo` opens the dashboard on the embedded SAE, `make test` runs the tests that take seconds;
# `make test-all` goes on with the slow ones (matrices, kills, fuzzing, real servers).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
# Processes that tests are shared out to, a file at a time; each with one thread, for two that wait for each other on the
# same core take many times as long. Those marked `alone` (kills at moments of the clock, dozens of processes, browsers)
# have the machine for themselves, after the others.
WORKERS ?= 2

.PHONY: demo docs test test-all test-installed browser check lint types arrows format bench bench-quality bench-peers

$(READY): pyproject.toml requirements/lock.txt requirements/embedded.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c requirements/lock.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/embedded.txt
	touch $(READY)

demo: $(READY)
	$(BIN)/interp dashboard

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile

test-all: test browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'slow and not alone' -n $(WORKERS) --dist loadfile
	$(BIN)/python -m pytest -m 'slow and alone'

# A wheel in a fresh environment with the newest versions of everything, used from another folder; reaches the package index.
test-installed:
	$(PYTHON) tests/installed.py

# What tests/browser.py opens by Playwright, which brings no browser of its own here; where apt is not, install a Chromium or
# let CHROMIUM be its program.
browser:
	@test -n "$(CHROMIUM)" || command -v chromium chromium-browser google-chrome chrome > /dev/null || \
		{ apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium > /dev/null; }

# The documentation as a site, in site/; fails for a link that leads nowhere.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

check: $(READY) lint types arrows test

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

arrows: $(READY)
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The other libraries that benchmarks compare with, in an environment of their own.
.peers/.ready: requirements/lock.txt requirements/peers.txt requirements/peers-nodeps.txt
	$(PYTHON) -m venv --clear .peers
	.peers/bin/python -m pip install --quiet --upgrade pip
	.peers/bin/python -m pip install --quiet -c requirements/lock.txt -r requirements/peers.txt
	.peers/bin/python -m pip install --quiet --no-deps -r requirements/peers-nodeps.txt
	touch .peers/.ready

.peers-dashboard/.ready: requirements/peers-dashboard.txt
	$(PYTHON) -m venv --clear .peers-dashboard
	.peers-dashboard/bin/python -m pip install --quiet -r requirements/peers-dashboard.txt
	# Built for another torch, and not needed: transformers imports it if it is there.
	.peers-dashboard/bin/python -m pip uninstall --quiet --yes torchvision torchaudio
	touch .peers-dashboard/.ready

bench-peers: .peers/.ready .peers-dashboard/.ready

bench: $(READY) bench-peers browser
	$(BIN)/python benchmarks/harvest.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/index.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/sharing.py
	$(BIN)/python benchmarks/steering.py
	$(BIN)/python benchmarks/dashboard.py

# Hours: trains SAEs of four libraries on the same rows. What was done is not repeated.
bench-quality: $(READY) bench-peers
	$(BIN)/python recipes/smollm2.py texts harvest
	$(BIN)/python benchmarks/end_to_end.py
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/recovery.py

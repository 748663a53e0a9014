# Two commands do all the set-up on a fresh Debian or Ubuntu machine (as root or with sudo): `make demo`, `make test`.
SHELL := /bin/bash
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
PYTHON ?= $(shell for p in /usr/bin/python3 python3; do command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
BIN := .venv/bin
ARGS ?=
NUMBERS := docs/performance

PACKAGES := python3-venv python3-dev gcc pkg-config libsystemd-dev
TEST_PACKAGES := sudo ffmpeg openssl curl systemd dbus iproute2 procps util-linux fuse3 etcd-server glib-networking prometheus chromium python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base \
	gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-tools \
	vlc-bin vlc-plugin-base

# $(call install,PACKAGES): only what is missing, so that a second run needs neither root nor a network
define install
@missing=$$(for p in $(1); do dpkg-query -W -f='$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
if [ -n "$$missing" ]; then \
	echo "installing" $$missing; \
	$(SUDO) apt-get -qq -o DPkg::Lock::Timeout=300 update && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $$missing >/dev/null; \
fi
endef

.PHONY: footage health help demo demo-fleet test pythons check lint types layers js clean packages test-packages js-packages install uninstall bench bench-fleet chaos chaos-fleet soak fuzz screenshots
help:
	@echo "make demo   install what is missing, run camserver on simulated cameras until Ctrl-C (ARGS=\"--seconds 20\")"
	@echo "make demo-fleet   three hosts on this machine share 60 simulated cameras; one of them is killed"
	@echo "make test   install what is missing, pass all tests"
	@echo "make check  lint, types, import layers"
	@echo "make bench  one picture, beside other programs: 40 minutes; writes docs/performance.md"
	@echo "make bench-fleet  fleets of up to 10,000 cameras: an hour and a quarter; as root"
	@echo "sudo make install / uninstall   the daemon under systemd"

packages:
	$(call install,$(PACKAGES))

test-packages: packages
	$(call install,$(TEST_PACKAGES))

js-packages:
	$(call install,node-typescript)

.venv/.installed: pyproject.toml constraints.txt | packages
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt wheel setuptools
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/.installed
	@$(BIN)/camserver demo $(ARGS)

# three hosts on one machine, and a real etcd; one of the hosts is killed
demo-fleet: test-packages .venv/.installed
	@$(BIN)/python tests/demo_fleet.py $(ARGS)

# the real scene of the tests of picture health: one file of a large package, which is not installed
CLIP := .footage/vtest.avi
footage: $(CLIP)
$(CLIP):
	@mkdir -p .footage && cd .footage && rm -f *.deb && \
	{ apt-get -q download opencv-doc || { $(SUDO) apt-get -q update && apt-get -q download opencv-doc; }; } && \
	dpkg-deb --fsys-tarfile opencv-doc_*.deb | tar -x --strip-components=7 ./usr/share/doc/opencv-doc/examples/data/vtest.avi && \
	rm -f *.deb

# what the judge of pictures finds and what it calls a fault without one: the table in docs/health.md
health: .venv/.installed $(CLIP)
	@$(BIN)/python tests/health_table.py $(ARGS)

# four at a time: most of them wait
test: test-packages .venv/.installed $(CLIP)
	$(BIN)/pytest -n 4 --dist worksteal $(ARGS)

# the unit tests on every other Python >= 3.11 that this machine has
pythons: packages .venv/.installed
	@tests/pythons.sh

lint: .venv/.installed
	$(BIN)/ruff check camserver tests
	$(BIN)/ruff format --check --quiet camserver tests

types: .venv/.installed
	$(BIN)/mypy

layers: .venv/.installed
	$(BIN)/lint-imports

# the wall page's JavaScript, typed by JSDoc
js: js-packages
	tsc --noEmit --allowJs --checkJs --strict --noUnusedLocals --noUnusedParameters --noImplicitReturns --target es2022 \
		--module es2022 --moduleResolution node --lib es2022,dom,dom.iterable camserver/api/wall/*.js

check: lint types layers js

# what the README shows
screenshots: test-packages .venv/.installed
	$(BIN)/python tests/screenshots.py docs/screenshots

.venv/.bench: .venv/.installed
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

# one picture, beside other programs: 40 minutes. ARGS: --rounds 3 --scene plain
bench: test-packages .venv/.bench
	@mkdir -p $(NUMBERS)
	$(BIN)/python tests/bench/bench_snapshot.py --json $(NUMBERS)/snapshot.json $(ARGS)
	$(BIN)/python tests/bench/performance.py
	$(BIN)/python tests/bench/bench_health.py
	$(BIN)/python tests/bench/bench_leases.py

# fleets on this machine: an hour and a quarter. ARGS, for the first two: --minutes 1
bench-fleet: .venv/.bench
	@mkdir -p $(NUMBERS)
	$(BIN)/python tests/bench/bench_fleet.py --cameras 1000 --interval 60s --json $(NUMBERS)/fleet-1000.json $(ARGS)
	$(BIN)/python tests/bench/bench_fleet.py --cameras 100 --interval 5s --json $(NUMBERS)/fleet-100.json $(ARGS)
	$(BIN)/python tests/bench/bench_growth.py --json $(NUMBERS)/growth.json
	$(BIN)/python tests/bench/performance.py

# ARGS: --minutes 30 --seed 1
chaos: test-packages .venv/.installed
	$(BIN)/python tests/chaos.py $(ARGS)

# ARGS: --minutes 30 --seed 1 --nodes 3
chaos-fleet: test-packages .venv/.installed
	$(BIN)/python tests/chaos_fleet.py $(ARGS)

# ARGS: --minutes 60 --cameras 200 --interval 10s
soak: test-packages .venv/.installed
	$(BIN)/python tests/soak.py $(ARGS)

# ARGS: libFuzzer's options for each target, e.g. -max_total_time=600; what it learnt stays in .fuzz
FUZZED := session description packets http
fuzz: .venv/.installed
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	@for target in $(FUZZED); do \
		mkdir -p .fuzz/$$target; \
		$(BIN)/python tests/fuzz/fuzz.py $$target .fuzz/$$target tests/fuzz/corpus/$$target -max_len=4000 \
			-artifact_prefix=.fuzz/$$target- $(if $(ARGS),$(ARGS),-max_total_time=60) || exit 1; \
	done

install: packages
	systemd/install.sh

uninstall:
	systemd/install.sh --uninstall

clean:
	rm -rf .venv .venv-* camserver-demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz

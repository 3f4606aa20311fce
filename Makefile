# make demo, make test: each sets itself up in .venv first. `make help` lists the rest.

export PYTHON ?= python3
BIN := .venv/bin
IN_VENV := .venv/.installed
COVERED := pywg/noise/*,pywg/wire/*,pywg/device/*,pywg/config/*

PACKETS := $(addprefix tests/system/test_,interop.py bad_input.py default_route.py reload.py \
	capture.py metrics.py top_and_events.py new.py) \
	'tests/system/test_up_down.py::test_two_hosts_ping_each_other_through_the_tunnel[pywgd]' \
	tests/system/test_monitor.py::test_ipv4_is_taken_when_ipv6_leads_nowhere \
	$(addprefix tests/system/test_pywgd.py::test_, \
		a_device_opened_by_its_caller_carries_packets an_interface_moved_to_another_namespace_keeps_working \
		wg_quick_brings_it_up_and_down without_ipv6_it_works_over_ipv4 \
		it_becomes_another_user_and_still_removes_its_socket it_keeps_only_the_capabilities_that_it_needs \
		marks_low_ports_and_another_namespace_still_work) \
	$(addprefix tests/system/test_faults.py::test_, \
		the_network_may_go_and_come_be_renamed_and_lose_ipv6 \
		out_of_descriptors_packets_go_on_and_commands_work_again_when_there_are_some)
export FUZZ_SECONDS ?= 4
MINUTES ?= 60

.PHONY: help demo test test-unit test-simulator test-system test-portable fuzz soak lint docs bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 23

$(BIN)/python:
	tools/system-packages base
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(IN_VENV): $(BIN)/python pyproject.toml $(wildcard setup.py pywg/datapath/*.pyx pywg/datapath/*.pxd pywg/datapath/*.h)
	$(BIN)/python -m pip install --quiet --editable .
	@$(BIN)/pywg --version
	@touch $@

$(IN_VENV)-%: $(IN_VENV) pyproject.toml
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@

demo: $(IN_VENV) ## two hosts, a tunnel, a third host behind it; half a minute, the first time two
	@tools/system-packages demo
	@$(BIN)/python demo/demo.py

test: lint test-unit test-simulator test-system test-portable ## everything

lint: $(IN_VENV)-test ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test-unit: $(IN_VENV)-test ## modules, the protocol on a virtual clock, both data paths compared; needs no rights
	$(BIN)/python -m pytest -n auto tests/unit tests/spec --cov --cov-report=
	$(BIN)/coverage report --include='$(COVERED)' --fail-under=95 --skip-covered

test-simulator: $(IN_VENV)-test ## a year of a pair and an hour of a thousand peers, on a virtual clock
	$(BIN)/python -m pytest -n auto tests/simulator

test-system: $(IN_VENV)-test ## real tunnels between namespaces, with every peer that is installed
	@tools/system-packages demo test
	@tools/in-namespaces tools/test-twice $(BIN)/python -m pytest tests/system

test-portable: $(IN_VENV)-test ## those of them that carry packets, once more on the portable data path
	@tools/system-packages demo test
	@PYWG_DATAPATH=portable tools/in-namespaces tools/test-twice $(BIN)/python -m pytest $(PACKETS)

fuzz: $(IN_VENV)-test $(IN_VENV)-fuzz ## whatever reads strangers' bytes, FUZZ_SECONDS each; C under AddressSanitizer
	@tools/system-packages fuzz
	$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS) $(ARGS)

soak: $(IN_VENV)-test ## rekeys, moves, reloads and churn of peers under load, for MINUTES
	@tools/system-packages demo test
	@tools/in-namespaces $(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

docs: $(IN_VENV)-docs ## HTML and man pages, in docs/_build
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html
	$(BIN)/sphinx-build -q -W -b man docs docs/_build/man

bench: $(IN_VENV)-bench ## measures against other programs; ARGS='--help' tells how
	@tools/system-packages demo test
	@$(BIN)/python -m bench $(ARGS)

clean: ## removes what was built
	rm -rf .venv build dist docs/_build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info

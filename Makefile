# The two to begin with: `make demo` and `make test`. PG_CONFIG=… chooses the PostgreSQL, as with PGXS.
# Each target installs what it needs first (scripts/setup), and says so.

SHELL := /bin/bash
export PG_CONFIG DESTDIR

.DEFAULT_GOAL := all
.PHONY: all help setup install uninstall installcheck package test lint bench pg-regress chaos mutants fuzz demo demo-stop clean

all: ## build the extension (release) into .build
	@scripts/setup build
	@scripts/install build

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## install everything that any target needs
	@scripts/setup build servers versions redis-servers lint

install: ## build and install into the PostgreSQL of PG_CONFIG (DESTDIR is honoured); with sudo, only what was built
	@scripts/install install

uninstall: ## remove what install has installed
	@scripts/install uninstall

installcheck: ## pg_regress and pg_isolation_regress topics, on throw-away servers
	@scripts/setup build servers versions
	@scripts/test installcheck

package: ## a Debian package and a tar file in .build
	@scripts/setup build
	@scripts/install package

test: ## all the tests, on PostgreSQL 15, 16 and 18, a part of them with older and newer Redis and Valkey (PG_CONFIG=…, PG_REDIS_CACHE_REDIS=…: on that one)
	@scripts/setup build servers versions redis-servers
	@scripts/test

lint: ## formatting, clippy, documentation, licences, shell scripts; any warning is an error
	@scripts/setup build versions lint
	@scripts/lint

bench: ## measure, and write to bench/results
	@scripts/setup build servers
	@PG_REDIS_CACHE_BINDIR=$$(scripts/stage --release) bench/run

pg-regress: ## PostgreSQL's own tests with every table tapped, compared with a run without the library
	@scripts/setup build servers pg-regress
	@scripts/pg-regress

chaos: ## faults at random, on one Redis, behind sentinels and on a cluster, for CHAOS_SECONDS (600) each; writes docs/CHAOS.md
	@scripts/setup build servers
	@scripts/chaos

mutants: ## leave out one condition of the rules after the other; the tests have to notice each
	@scripts/setup build servers
	@scripts/mutants

fuzz: ## run each fuzz target for FUZZ_SECONDS (60)
	@scripts/setup build fuzz
	@scripts/fuzz

demo: ## start a throw-away PostgreSQL and Redis, and show what the extension does
	@scripts/setup build servers
	@scripts/demo start

demo-stop: ## stop the demo's servers and remove their data
	@scripts/demo stop

clean: ## remove what was built (not the tools in .build/tools)
	@scripts/demo stop
	@scripts/clean

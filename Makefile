# The two commands, and what they are made of. Everything that is missing is installed or provisioned on the way.

.PHONY: demo test bench build man check install clean help

# Where `install` puts what `build` has built. DESTDIR goes in front, for packages.
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
BUILT ?= target/release

# Where `bench` writes its report.
REPORT ?= artifacts/bench

help: ## What can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: build ## Boot two guests with a card each and move messages between them
	@target/release/vianic demo

test: ## Everything, end to end in QEMU too, with one summary
	@ci/test.sh

bench: build ## Measure the card beside the machine's limits and its peers; the report is artifacts/bench/report.html
	@target/release/vianic bench --all --peers --cpus 1 --report '$(REPORT)'

build: ## The vianic command and the card
	@ci/dependencies.sh
	@cargo build --release --quiet -p vianic -p vianic-device -p vianic-tools -p vipl

man: ## The manual, in target/man: man -M target/man vipl
	@install -d target/man/man3 target/man/man7
	@install -m 644 guest-driver/vipl/man/*.3 target/man/man3
	@install -m 644 guest-driver/vipl/man/*.7 target/man/man7
	@echo "man -M target/man vipl"

check: ## What is quick: format, lints, tests without QEMU
	@ci/test.sh quick

install: ## Install VIPL, its manual and the tools, once built, under PREFIX (/usr/local)
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' BINDIR='$(BINDIR)' LIBDIR='$(LIBDIR)' \
		INCLUDEDIR='$(INCLUDEDIR)' MANDIR='$(MANDIR)' BUILT='$(BUILT)' guest-driver/vipl/install.sh

clean: ## Remove what was built here; the cache of packages and images stays (vianic doctor says where)
	@cargo clean

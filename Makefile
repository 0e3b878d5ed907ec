# Sluice: everything a developer or an operator does from a checkout. `make help` lists the targets.
SHELL      := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
BIN     := bin
PREFIX  ?= /usr
DESTDIR ?=
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
# gotestsum prints one line per package and the runner's own summary at the end.
TEST    := $(GO) tool gotestsum --format pkgname --
# Tests in the lab wait for peers, retries and time-outs most of the time.
LABTEST := $(TEST) -timeout 40m -parallel 4 -tags labtest
DAEMONS := sluiced sluice-intercept sluice-observe sluice

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { \
		kind = match($$1, /^(test|bench|soak)/) ? substr($$1, 1, RLENGTH) : ""; \
		lines[kind] = lines[kind] sprintf("  %-29s %s\n", $$1, $$2) \
	} END { \
		printf "%s\nTests:\n%s\nBenchmarks, with results in docs/benchmarks.md, filter.md and containment.md:\n%s\nLong campaigns, with results in docs/campaigns.md:\n%s", \
			lines[""], lines["test"], lines["bench"], lines["soak"] }' $(MAKEFILE_LIST)

.PHONY: build
build: ## the programs, in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ $(DAEMONS:%=./cmd/%)

.PHONY: deps
deps: ## install what build, tests and lab need (Debian packages; needs root)
	scripts/deps

.PHONY: demo
demo: deps build ## the whole path on this machine, with real mail servers, in under five minutes
	$(GO) run ./scripts/lab/cmd/lab demo --bin $(BIN)

.PHONY: lab
lab: deps build ## open the lab network and the gateway to play with, until Ctrl-C
	$(GO) build -o $(BIN)/lab ./scripts/lab/cmd/lab
	$(BIN)/lab up --gateway --bin $(BIN)

.PHONY: test
test: deps build ## all four tiers; fails where one could not run
	$(TEST) -race -timeout 20m ./...
	$(TEST) -run WeighLittle ./proxy
	$(TEST) -timeout 10m -tags bpftest ./bpf/...
	$(TEST) -timeout 10m -tags nettest ./intercept/... ./cmd/sluice-intercept/... ./scripts/bench/... ./proxy/spool
	SLUICE_BIN=$(CURDIR)/$(BIN) $(LABTEST) ./scripts/lab/...

.PHONY: test-unit
test-unit: ## tier 0: Go only, with the race detector but for what is weighed
	$(TEST) -race -timeout 20m ./...
	$(TEST) -run WeighLittle ./proxy

.PHONY: test-bpf
test-bpf: ## tier 2: the kernel's programs, in the kernel (root)
	$(TEST) -timeout 10m -tags bpftest ./bpf/...

.PHONY: test-net
test-net: ## tier 1: rules, routes, sockets in namespaces of their own (root)
	$(TEST) -timeout 10m -tags nettest ./intercept/... ./cmd/sluice-intercept/... ./scripts/bench/... ./proxy/spool

.PHONY: test-lab
test-lab: build ## tier 3: customer, gateway, internet, real mail servers (root)
	SLUICE_BIN=$(CURDIR)/$(BIN) $(LABTEST) ./scripts/lab/...

.PHONY: bench
bench: deps build bench-kernel bench-memory ## packets, idle sessions, then CPU per message, messages/s and latency beside plain forwarding and a bare relay (25 minutes)
	$(GO) run ./scripts/bench --binaries $(BIN) $(BENCHFLAGS)

.PHONY: bench-memory
bench-memory: deps build ## what 10,000 idle sessions cost the gateway, and 1,000 to slow destinations, process and kernel (four minutes)
	$(GO) run ./scripts/bench memory --binaries $(BIN) $(MEMORYFLAGS)

.PHONY: bench-containment
bench-containment: ## stolen accounts among 200 customers on a simulated clock: what escapes, who is hurt, beside plain hourly limits and nothing (ten minutes)
	SLUICE_CONTAINMENT=full $(GO) test -count 1 -v -timeout 60m -run TestContainment ./scripts/containment

.PHONY: bench-containment-targets
bench-containment-targets: ## likewise, the filter that the targets are stated for and the shipped model alone (a few minutes)
	SLUICE_CONTAINMENT=targets $(GO) test -count 1 -v -timeout 60m -run TestContainment ./scripts/containment

.PHONY: bench-containment-seeds
bench-containment-seeds: ## likewise, the shipped model with ten different draws of customers and thieves (ten minutes)
	SLUICE_CONTAINMENT=seeds $(GO) test -count 1 -v -timeout 60m -run TestContainment ./scripts/containment

.PHONY: bench-containment-classifier
bench-containment-classifier: ## likewise, small, with the shipped model in the oracle's place (a minute)
	SLUICE_CONTAINMENT=classifier $(GO) test -count 1 -v -timeout 30m -run TestContainment ./scripts/containment

.PHONY: bench-locks
bench-locks: build ## from a lock to its enforcement, with 100,000 users and 10,000 other locks (root)
	SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 10m -tags benchtest -run TestLockLatency ./cmd/sluiced

.PHONY: bench-kernel
bench-kernel: deps ## nanoseconds per packet, forwarding, connections and memory beside nftables and connection tracking (about five minutes)
	$(GO) run ./scripts/bench kernel $(KERNELFLAGS)

.PHONY: soak-restarts
soak-restarts: deps build ## kills, restarts, upgrades and reloads under load, 20 of each (about a minute)
	SLUICE_SOAK=20 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 60m -tags labtest -run TestRestartsUnderLoad ./scripts/lab

.PHONY: soak-handovers
soak-handovers: deps build ## 20 hand-overs of sluiced and 100 reloads under load (about a minute)
	SLUICE_SOAK=20 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 20m -tags labtest -run TestHandOversUnderLoad ./scripts/lab

.PHONY: soak-packets
soak-packets: ## 5 million random packets: the kernel's programs against the model (root; about five minutes)
	SLUICE_PACKETS=5000000 $(GO) test -count 1 -v -timeout 60m -tags bpftest -run TestRandomPackets ./bpf

.PHONY: soak-upgrades
soak-upgrades: deps build ## 20 upgrades of sluice-intercept with maps carried over, 40 killed starts, under load (about two minutes)
	SLUICE_SOAK=20 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 30m -tags labtest -run TestHelperUpgradesUnderLoad ./scripts/lab

.PHONY: soak-failmodes
soak-failmodes: deps build ## seven ways for sluiced to be away, each until closed sources are reset (about two minutes)
	SLUICE_SOAK=2 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 20m -tags labtest -run TestFailModes ./scripts/lab

.PHONY: soak-observe
soak-observe: deps build ## the same traffic in shadow and only observed, 8,000 messages: equal decisions (about three minutes)
	SLUICE_SOAK_MESSAGES=8000 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 30m -tags labtest -run TestObserveDecidesLikeShadow ./scripts/lab

.PHONY: soak-spool
soak-spool: deps build ## the spool: 10,000 crashes and 10,000 lives on failing disks in process, 200 real kills, 200 of sluiced at work, a queue of a million (some ten minutes, 4 GB of disk)
	SLUICE_SOAK=10000 $(GO) test -count 1 -v -timeout 60m -run 'Crashes|FailingDisk|KilledProcess' ./proxy/spool
	SLUICE_SOAK=200 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 60m -tags labtest -run TestQueueOutlivesKills ./scripts/lab
	SLUICE_DELIVERIES=1000000 $(GO) test -count 1 -v -timeout 60m -run TestManyDeliveries ./proxy/spool

.PHONY: bench-spool
bench-spool: ## 10 KiB messages: commits per second with 1, 10 and 100 sessions; kept, delivered and removed; CPU of each
	$(GO) test -run XXX -bench Commit -benchtime 5s ./proxy/spool
	$(GO) test -run XXX -bench Deliver -benchtime 10s ./proxy/delivery

.PHONY: bench-smarthost
bench-smarthost: deps build ## the smarthost beside Postfix: messages per second and CPU of each, with 1, 10 and 100 sessions (two minutes, root)
	$(GO) run ./scripts/bench smarthost --binaries $(BIN) $(SMARTHOSTFLAGS)

.PHONY: bench-store
bench-store: ## settings of 100,000 users, a million identities, limits, lists, and the message log: per message, per change, per search
	$(GO) test -run XXX -bench . -benchmem ./filter/policy ./filter/identity ./filter/limit ./filter/sender ./cmd/internal/msglog

.PHONY: bench-users
bench-users: ## 100,000 users with a million identities: look-up, limits, lock decision, change of settings, memory of each (a minute)
	SLUICE_USERS=100000 $(GO) test -count 1 -v -timeout 20m -run TestManyUsers ./cmd/sluiced

.PHONY: soak-interfaces
soak-interfaces: ## 4,000 customer interfaces at the start, 4,000 more that come, all that go (a few minutes)
	SLUICE_SOAK=4000 $(GO) test -count 1 -v -timeout 20m -tags nettest -run TestManyInterfaces ./cmd/sluice-intercept

.PHONY: bench-filter
bench-filter: ## what the content filter is worth on the development corpus, beside bogofilter, SpamAssassin and Rspamd where they are installed or unpacked (ten minutes)
	$(GO) run ./scripts/model figures -plot docs/calibration.svg $(FILTERFLAGS)

.PHONY: bench-weights
bench-weights: ## what the points of SpamAssassin and Rspamd add to what content says by itself: fitted, and measured on the test split (ten minutes)
	$(GO) run ./scripts/model weights $(FILTERFLAGS)

.PHONY: soak-plugins
soak-plugins: deps build ## plug-ins that answer after 30 s, with the time that they are given by default (two minutes)
	SLUICE_SOAK=1 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 10m -tags labtest -run TestEveryMessageIsAnswered ./scripts/lab

.PHONY: soak-filter
soak-filter: ## messages of any structure, charset and brokenness, of up to 50 MB, archives and HTML that grow among them: judged in bounded time and memory; fuzzing (ten minutes)
	SLUICE_SOAK=300 $(GO) test -count 1 -v -timeout 30m -run TestAnythingIsJudged ./filter/content
	$(GO) test -run '^$$' -fuzz '^FuzzRead$$' -fuzztime 1m ./filter/content/view
	$(GO) test -run '^$$' -fuzz '^FuzzCheck$$' -fuzztime 1m ./filter/content/rules
	$(GO) test -run '^$$' -fuzz '^FuzzMarks$$' -fuzztime 1m ./filter/content
	$(GO) test -run '^$$' -fuzz '^FuzzAnswers$$' -fuzztime 1m ./filter/scanner
	$(GO) test -run '^$$' -fuzz '^FuzzSignatures$$' -fuzztime 1m ./filter/sign

.PHONY: bench-campaign
bench-campaign: ## each cluster of the development corpus as one account's burst: what passes before it is held, good bursts stopped; look-ups, memory (two minutes)
	$(GO) run ./scripts/model campaigns $(FILTERFLAGS)
	$(GO) test -run XXX -bench . -benchtime 2s ./filter/campaign

.PHONY: model
model: ## the shipped model anew, from the development corpus
	$(GO) run ./scripts/model build $(FILTERFLAGS)

.PHONY: bench-latency
bench-latency: deps build ## how long one message takes to a distant destination, directly and through the gateway (two minutes)
	SLUICE_LATENCY=full SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 10m -tags labtest -run TestFasterThanDirect ./scripts/lab

.PHONY: soak-starttls
soak-starttls: deps build ## 10,000 sessions whose client encrypts, to destinations that break it: none in plain text (about two minutes)
	SLUICE_SOAK_SESSIONS=10000 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 30m -tags labtest -run TestNeverPlainAfterSTARTTLS ./scripts/lab

.PHONY: soak-smuggling
soak-smuggling: ## every way to write an end of data or a reply, in every cut, in both directions; all texts of 8 bytes; fuzzing (about five minutes)
	SLUICE_SOAK=1 $(GO) test -count 1 -timeout 30m -run 'Smuggled|HoldNoCommands|InAnyOrder|TestEveryShortMessage' ./proxy ./proxy/smtp
	$(GO) test -run '^$$' -fuzz '^FuzzReplies$$' -fuzztime 1m ./proxy
	$(GO) test -run '^$$' -fuzz '^FuzzSession$$' -fuzztime 1m ./proxy
	$(GO) test -run '^$$' -fuzz '^FuzzData$$' -fuzztime 1m ./proxy/smtp

.PHONY: soak-flood
soak-flood: deps build ## one host opens 8,000 connections a second for 20 s while 100 others send mail, on each path (two minutes)
	SLUICE_SOAK=20 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 10m -parallel 1 -tags labtest -run TestFloodOfConnections ./scripts/lab

.PHONY: soak-hostile
soak-hostile: deps build ## a good client alone for 60 s, then beside 1,000 hostile sessions and hostile destinations: its latency, sluiced's memory (about five minutes)
	SLUICE_SOAK=60 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 20m -tags labtest -run TestHostileSessions ./scripts/lab

.PHONY: soak-log
soak-log: ## 50 million rows of the message log, then searches by user, sender, recipient, id, client and time: p50, p99 (a quarter of an hour, 7 GB of disk)
	SLUICE_LOG_ROWS=50000000 $(GO) test -count 1 -v -timeout 120m -run TestSearchesAmongMany ./cmd/internal/msglog

.PHONY: soak-settings
soak-settings: deps build ## 900 changes of settings among 100,000 users, by API and command: the time until a reply shows it (about a minute)
	SLUICE_SOAK=1 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 10m -tags labtest -run TestSettingsAreInForceAtOnce ./scripts/lab

.PHONY: soak-proof
soak-proof: deps build ## 5,000 good messages, until what the content filter has learnt may refuse by itself (half a minute)
	SLUICE_SOAK_MESSAGES=5000 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 10m -tags labtest -run TestWhatWasLearntHasToProveItself ./scripts/lab

.PHONY: soak-large
soak-large: deps build ## 100 messages of 50 MiB at once in bounded memory, in one process and through sluiced (a few minutes, 5 GiB of temporary files)
	SLUICE_LARGE=100x50 $(GO) test -count 1 -v -timeout 30m -run TestLargeMessages ./proxy
	SLUICE_LARGE=100x50 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 20m -tags labtest -run TestManyLargeMessages ./scripts/lab

.PHONY: soak-million
soak-million: deps build ## a million prefixes from a list to the kernel, single changes, restarts, memory (minutes)
	SLUICE_PREFIXES=1000000 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 20m -tags labtest -run TestMillion ./scripts/lab

.PHONY: soak-peers
soak-peers: deps build ## a hundred odd, real and signed messages from every foreign client to every foreign server, with and without the gateway (ten minutes)
	for part in 0 1 2 3; do SLUICE_PART=$$part SLUICE_LETTERS=25 SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 20m -tags labtest -run TestForeignPeers ./scripts/lab; done

.PHONY: soak-fidelity
soak-fidelity: deps build ## every message of the corpus through sessions of each kind: identical bytes (half an hour)
	SLUICE_FIDELITY=all SLUICE_BIN=$(CURDIR)/$(BIN) $(GO) test -count 1 -v -timeout 60m -tags labtest -run TestMessagesKeepTheirBytes ./scripts/lab

.PHONY: generate
generate: ## BPF bindings, man pages, example configuration
	$(GO) generate ./...

.PHONY: lint
lint: ## gofmt, vet, staticcheck, shellcheck, generated files are current
	scripts/lint

.PHONY: install
install: build ## into PREFIX (/usr), with units and an example configuration
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(BIN)/sluiced $(BIN)/sluice-intercept $(BIN)/sluice-observe $(DESTDIR)$(PREFIX)/sbin/
	install -m 0755 $(BIN)/sluice $(DESTDIR)$(PREFIX)/bin/
	scripts/install "$(DESTDIR)" "$(PREFIX)"

.PHONY: uninstall
uninstall: ## what install copied; first stop both services and run sluice-intercept cleanup
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,sbin/sluiced sbin/sluice-intercept sbin/sluice-observe bin/sluice)
	scripts/install --remove "$(DESTDIR)" "$(PREFIX)"

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) out

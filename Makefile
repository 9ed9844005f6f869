# Everything is built into bin/, tools and test hosts are kept in .cache/.
GO ?= go
BIN := bin
CACHE := .cache
TOOLS := $(CACHE)/tools
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
PACKAGES := ./...
FUZZTIME ?= 30s
SOAK ?= 30m
GOTESTFLAGS ?=

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: $(BIN)/tfdrift-bridge $(BIN)/libtfdrift.so ## Build the bridge and the plugin into bin/.

.PHONY: $(BIN)/tfdrift-bridge
$(BIN)/tfdrift-bridge:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./bridge

.PHONY: $(BIN)/libtfdrift.so
$(BIN)/libtfdrift.so:
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '-s -w' -buildmode=c-shared -o $@ ./plugin

.PHONY: run
run: build ## Build everything and show the demo on http://127.0.0.1:8080.
	$(BIN)/tfdrift-bridge run --demo

.PHONY: test
test: build host $(TOOLS)/helm e2e/ws/node_modules ## Run every test, with the race detector, and again without cgo.
	TFDRIFT_BIN=$(CURDIR)/$(BIN) $(GO) test $(GOTESTFLAGS) -race $(PACKAGES)
	TFDRIFT_BIN=$(CURDIR)/$(BIN) CGO_ENABLED=0 $(GO) test $(GOTESTFLAGS) $(PACKAGES)

.PHONY: check
check: test lint ## What CI runs: the tests, the linters, go vet and the generated files.
	$(GO) vet $(PACKAGES)

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Run the linters of .golangci.yml.
	$(TOOLS)/golangci-lint run $(PACKAGES)

.PHONY: bench
bench: $(TOOLS)/benchstat ## Run the benchmarks; ratios stand in the figures named *_ratio.
	$(GO) test -run '^$$' -bench . -benchmem -count 6 $(PACKAGES) | tee $(CACHE)/bench.txt
	$(TOOLS)/benchstat $(CACHE)/bench.txt

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME.
	@for pkg in $$($(GO) list $(PACKAGES)); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; \
	done

.PHONY: generate
generate: ## Write anew what is made from code: golden files, field tables, the chart's copy of the rules.
	cp rules/tfdrift_rules.yaml rules/config.d/tfdrift.yaml charts/tfdrift-falco/files/
	$(GO) test ./bridge/wire -run Golden -update
	$(GO) test ./plugin/field -run Readme -update

.PHONY: soak
soak: build ## Watch rotating records and states for SOAK and print memory, goroutines and descriptors.
	TFDRIFT_BIN=$(CURDIR)/$(BIN) TFDRIFT_SOAK=$(SOAK) $(GO) test -count 1 -timeout 0 -v -run '^TestSoak$$' ./e2e

.PHONY: e2e-falco
e2e-falco: build ## Run rules and records through a real Falco: make e2e-falco FALCO=/path/to/falco.
	e2e/falco/run.sh "$(FALCO)"

.PHONY: host
host: ## Unpack the test host for the plugin (Debian's sysdig) into .cache/, where apt is to be had.
	@e2e/host/get.sh $(CURDIR)/$(CACHE)/sysdig || [ -z "$$CI" ]

$(TOOLS)/golangci-lint: e2e/tools/go.mod
	$(GO) build -C e2e/tools -o $(CURDIR)/$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(TOOLS)/helm: e2e/tools/go.mod
	$(GO) build -C e2e/tools -o $(CURDIR)/$@ helm.sh/helm/v3/cmd/helm

$(TOOLS)/benchstat: e2e/tools/go.mod
	$(GO) build -C e2e/tools -o $(CURDIR)/$@ golang.org/x/perf/cmd/benchstat

e2e/ws/node_modules: e2e/ws/package-lock.json
	npm ci --prefix e2e/ws --no-audit --no-fund --silent
	@touch $@

.PHONY: clean
clean: ## Remove what was built, but not the cache.
	rm -rf $(BIN)

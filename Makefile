# `make` prints the targets. CI runs `make test` and `make interop`.

GO       ?= go
BIN      := bin
TOOLS    := $(CURDIR)/.tools
LINT     := $(TOOLS)/golangci-lint-v2.15.0
SEED     ?=
PLAN     ?=
WHOLE    ?=
RUNS     ?= 10000
POINTS   ?= 2000
DURATION ?= 10m
FUZZTIME ?= 30s
FLOOR    ?= 95
PKGS     := ./...
# Pure packages: what must stay free of I/O, and what coverage is counted for.
PURE     := ./bitmap ./activitylog ./metadata ./replication ./replication/state ./replication/wire
# Tests of real programs wait more than they work: so many packages are tested side by side.
BESIDE   := -p 4
# What has goroutines or locks (internal/lint).
RACED    := ./aoe ./aoe/netif ./aoe/packet ./block/faulty ./block/file ./block/mem ./block/record ./block/remote ./cmd/replblk ./cmd/vblade ./internal/buffer ./internal/chaos ./internal/control ./nbd ./node ./node/transport

export CGO_ENABLED ?= 0
# For all that is built, so that nothing is built twice, with it and without.
export GOFLAGS ?= -trimpath

.PHONY: help build deps test check unit race sim crash proof mutants mutants-fast kill-points soak track-record fuzz bench bench-vm demo interop cover pairs clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/' | expand -t 16

build: ## static replblk and vblade into bin/
	$(GO) build -trimpath -o $(BIN)/ ./cmd/...

deps: ## install the Debian packages that tests and the demo use (root)
	@scripts/deps.sh

test: ## everything that must hold; CI runs this. With WHOLE=1 the whole proof, not a sample
	@MAKE="$(MAKE)" scripts/steps.sh deps check unit race $(if $(WHOLE),proof,sim) mutants-fast
	@echo "make test: all passed"

check: $(LINT) ## gofmt, vet, linters, tidy modules, import graph
	$(GO) mod tidy -diff
	$(LINT) run $(PKGS)
	@mkdir -p $(BIN)
	$(GO) test -vet=off -count=1 -v ./internal/lint >$(BIN)/lint.log || { cat $(BIN)/lint.log; exit 1; }
	@grep 'fault catalogue' $(BIN)/lint.log

unit: build ## unit, golden and process-level tests, fuzz corpora
	$(GO) test -vet=off -count=1 $(BESIDE) -timeout 20m $$($(GO) list $(PKGS) | grep -v /internal/lint)

race: ## what has goroutines under the race detector, each concurrent path once
	CGO_ENABLED=1 $(GO) test -vet=off -race -short $(BESIDE) -timeout 20m $(RACED)

sim: ## simulated clusters: RUNS seeds, one SEED, or a PLAN
	$(GO) test ./sim -run 'TestSim$$' -v -count=1 -timeout 3h -args $(if $(SEED),-sim.seed=$(SEED) -sim.v,$(if $(PLAN),-sim.plan=$(abspath $(PLAN)) -sim.v,-sim.runs=$(RUNS)))

crash: ## a crash at every event of the scripts, in twelve variants
	$(GO) test ./sim -run 'TestCrashAtEveryEvent' -v -count=1 -timeout 60m -args -sim.stride=1

proof: build deps ## the figures of docs/testing.md: simulator, crashes, tables, kill points
	@RUNS=$(RUNS) POINTS=$(POINTS) scripts/proof.sh

mutants: ## plant every bug of sim/mutants and see that it is found
	$(GO) run ./sim/mutants

mutants-fast: ## those that are found within seconds
	$(GO) run ./sim/mutants -fast

kill-points: build deps ## kill real daemons, or fail their disks, at POINTS system calls
	$(GO) run ./soak kill-points -points $(POINTS) $(if $(SEED),-seed $(SEED))

soak: build deps ## cycles of fault, heal and compare with real daemons, for DURATION
	$(GO) run ./soak run -duration $(DURATION) $(if $(SEED),-seed $(SEED))

track-record: ## show every bug of docs/track-record.md on the code before its fix
	@grep '^scripts/before.sh' docs/track-record.md | while read -r line; do eval "$$line" || exit 1; done

fuzz: ## every fuzz target for FUZZTIME
	@scripts/fuzz.sh $(FUZZTIME)

demo: build deps ## the main job in a minute: mirror, kill, fail over, resync (no root needed)
	@demo/run.sh

bench: build deps ## measure against named peers in the same run; writes bench/out/
	@bench/run.sh

bench-vm: build deps ## beside the kernel's drbd, both in the same two virtual machines (root); writes bench/out/vm.md
	$(GO) run ./bench/vm

interop: build ## against the kernel's own drbd in virtual machines (root; ten minutes)
	$(GO) test -tags interop ./interop -v -count=1 -timeout 60m

cover: ## statement coverage of the core and the codecs by tests and simulator; below FLOOR percent it fails
	@mkdir -p $(BIN)
	@scripts/cover.sh $(FLOOR) $(BIN)/cover.out $(PURE)

pairs: ## events that a core was given in each state it can be in, by tests and simulator; what never came
	$(GO) run ./sim/pairs -v -max 50

clean: ## remove what was built
	rm -rf $(BIN) bench/out

$(LINT):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	@mv $(TOOLS)/golangci-lint $@

# walbaton. `make quick` needs only Go and two minutes; `make demo` and `make test` install what is missing (Debian, root).

tools := $(or $(WALBATON_TOOLS),$(HOME)/.cache/walbaton/tools)

.PHONY: quick test full soak demo lint

# Where goroutines live. archiver/wal, durable and leader/patroni have none, nor has the one test that is skipped: `make test` has them too.
races := ./leader ./leader/dcs/... ./archiver ./archiver/queue ./archiver/seal ./archiver/store/...

quick: ## go vet, every unit test and script, and what has goroutines once more under the race detector; installs nothing
	go vet ./...
	go test -short ./...
	go test -race -short -skip '^TestP4OneBaton$$' $(races)

test: ## everything on real servers, and the drills; installs what is missing and builds it once
	.ci/install
	@mkdir -p bin && go build -o bin/suite ./.ci/suite && exec bin/suite

full: test ## the drills 1 to 10 on every DCS, too; and would the tests notice it if walbaton were wrong? within 150 minutes
	bin/suite -full -packages=false -drills TestDrillFull
	bin/suite -dcs consul,zookeeper,kubernetes
	go run ./.ci/mutants

soak: ## 200 random role changes on real clusters and 50,000 simulated ones, some hours: writes docs/reliability/soak.json
	.ci/install
	@mkdir -p bin && go build -o bin/suite ./.ci/suite && exec bin/suite -soak 200 -seeds 50000 -lanes 2 -limit 10h

demo: ## watch a cluster lose its primary and the archive lose nothing; KEEP=1 leaves it running
	@.ci/install demo
	@echo "building walbaton and the demo: about a minute the first time"
	@mkdir -p bin && export CGO_ENABLED=0 GOTMPDIR=$$(mktemp -d) && trap 'rm -rf "$$GOTMPDIR"' EXIT && trap 'exit 130' INT TERM HUP && \
		go build -o bin/walbaton ./sidecar && go build -o bin/ ./sidecar/walbaton-wal ./examples/quickstart
	@WALBATON_BIN="$(CURDIR)/bin" exec bin/quickstart

# Debian has postgres and pg_ctl outside of PATH; drills and the demo call them by name. Root may build in another user's
# clone, where git tells Go nothing.
demo test full soak: export PATH := $(PATH):/usr/lib/postgresql/15/bin
demo test full soak: export GOFLAGS := $(GOFLAGS) -buildvcs=false

bench: ## measure it on this machine, beside other tools: writes docs/benchmark.md; 40 minutes, FULL=1 some hours; wants the machine for itself
	.ci/install && .ci/build-tools minio && mkdir -p bin && go build -o bin/benchmark ./examples/benchmark && exec bin/benchmark $(if $(FULL),-full)

lint: $(tools)/staticcheck@v0.7.0 ## go vet, staticcheck, gofmt; reports large files, functions and interfaces
	go vet -tags servers,drills ./... ./.ci/mutants ./.ci/sizes ./.ci/suite
	$< -tags servers,drills ./...
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "not gofmt-ed: see above" >&2; exit 1; }
	go run ./.ci/sizes

$(tools)/%:
	.ci/build-tools $(firstword $(subst @, ,$*))

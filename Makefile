# walbaton. `make quick` needs only Go and two minutes; `make demo` and `make test` install what is missing (Debian, root).

tools := $(or $(WALBATON_TOOLS),$(HOME)/.cache/walbaton/tools)

.PHONY: quick test lint

quick: ## unit tests and scripts, then the libraries under the race detector; installs nothing
	go vet ./...
	go test ./...
	go test -race -short ./leader/... ./archiver/...

test: quick

lint: $(tools)/staticcheck@v0.7.0 ## go vet, staticcheck, gofmt; reports large files, functions and interfaces
	go vet -tags servers,drills ./... ./.ci/sizes
	$< -tags servers,drills ./...
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "not gofmt-ed: see above" >&2; exit 1; }
	go run ./.ci/sizes

$(tools)/%:
	.ci/build-tools $(firstword $(subst @, ,$*))

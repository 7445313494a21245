# Everything builds without cgo. What each target needs is in the README.
export CGO_ENABLED = 0
GO ?= go
# Where go install puts the servers that tests start.
export PATH := $(PATH):$(shell $(GO) env GOPATH)/bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS = -s -w -X main.version=$(VERSION)
FUZZTIME ?= 5s
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

MINIO = github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c

.PHONY: build test race fuzz bench check cross sdk conformance man nightly

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/imgferry ./cmd/imgferry

test:
	$(GO) test -timeout 20m ./...

# The race detector itself needs cgo.
race:
	CGO_ENABLED=1 $(GO) test -race -timeout 40m ./...

# Each fuzz target for FUZZTIME, one after the other.
fuzz:
	GO='$(GO)' FUZZTIME='$(FUZZTIME)' ./testdata/fuzz-all.sh

bench:
	$(GO) run ./bench

check:
	test -z "$$(gofmt -l .)"
	$(GO) vet ./...
	$(GO) vet -tags conformance ./conformance
	$(GO) run $(STATICCHECK) ./...

cross:
	@for os in linux darwin windows; do for arch in amd64 arm64; do \
		echo "$$os/$$arch"; ext=; [ $$os = windows ] && ext=.exe; \
		GOOS=$$os GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/imgferry-$$os-$$arch$$ext ./cmd/imgferry || exit 1; \
	done; done

# Manual pages, from the text of --help.
man:
	rm -rf dist/man/man1
	$(GO) run -ldflags '$(LDFLAGS)' ./cmd/imgferry man dist/man/man1

# Every kind of disk image that qemu-img writes, read here and there. Needs qemu-utils.
conformance:
	$(GO) test -tags conformance -count 1 -timeout 60m ./conformance

# The vendor's SDK against the sandbox. It is a module of its own.
sdk: build
	cd sdktest && IMGFERRY_BINARY=$(CURDIR)/bin/imgferry $(GO) test -count 1 ./...

# What takes too long for every change: all of the above whole, uploads to a second independent store,
# many more faults and kills, and fuzzing by the minute.
nightly: conformance
	command -v minio >/dev/null || $(GO) install $(MINIO)
	IMGFERRY_LONG=1 $(GO) test -timeout 120m ./...
	$(MAKE) fuzz FUZZTIME=60s

# The few verbs people use. What each check does is in .ci/run.
.PHONY: build test lint fmt proto-lint python-test demo tour figures dist systemd-test ci

build:       ; cargo build --workspace
test:        ; cargo test --workspace
lint:        ; .ci/run format clippy docs dependencies
fmt:         ; cargo fmt --all
proto-lint:  ; .ci/run proto
python-test: ; .ci/run python
demo:        ; cargo run -- demo
tour:        ; cargo run -- demo --tour
figures:     ; .ci/run release
dist:        ; packaging/dist.sh
systemd-test:; .ci/run systemd
ci:          ; .ci/run

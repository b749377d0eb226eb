#!/usr/bin/env bash
# Everything that a release hands out, in target/dist: the Debian package, a tarball, a bill of materials (CycloneDX), and
# checksums of all. The tools that it needs go into target/ci.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/ci/cargo
cargo_deb=3.8.0
cyclonedx=0.5.9
out=target/dist made=target/package

tool() {
    local name=$1 version=$2
    [[ -x $tools/bin/$name && $(cat "$tools/$name.version" 2>/dev/null) == "$version" ]] && return
    # A quick build: they run for a second.
    cargo install --debug --quiet --locked --root "$tools" --target-dir target/ci/build "$name@$version"
    echo "$version" >"$tools/$name.version"
}

tool cargo-deb $cargo_deb
tool cargo-cyclonedx $cyclonedx
export PATH=$tools/bin:$PATH

cargo build --release --locked --bin b2binpay-broker
broker=target/release/b2binpay-broker
version=$("$broker" --version | awk '{ print $2 }')
machine=$(uname -m)-linux
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# What the program says of itself.
rm -rf "$made" "$out"
mkdir -p "$made/completions" "$out"
"$broker" man --dir "$made/man"
"$broker" completions bash >"$made/completions/b2binpay-broker.bash"
"$broker" completions zsh >"$made/completions/_b2binpay-broker"
"$broker" completions fish >"$made/completions/b2binpay-broker.fish"

# What Debian's tools read; what changed stands in CHANGELOG.md.
cat >"$made/changelog" <<CHANGES
b2binpay-broker ($version-1) stable; urgency=medium

  * What changed: /usr/share/doc/b2binpay-broker/CHANGELOG.md

 -- The b2binpay-broker developers <maintainers@b2binpay-broker.invalid>  $(date -R -u -d "@$SOURCE_DATE_EPOCH")
CHANGES

cargo deb --quiet --no-build --no-strip --output "$out/"

# The product's crates with their versions and licences; what only builds or tests it is left out.
bill=b2binpay-broker-$version.cdx
cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --override-filename "$bill"
mv "$bill.json" "$out/"
rm -f "simulator/$bill.json"

name=b2binpay-broker-$version-$machine
tree=$made/$name
mkdir -p "$tree/man" "$tree/docs"
cp "$broker" README.md CHANGELOG.md SECURITY.md LICENSE-MIT LICENSE-APACHE "$tree/"
cp -r "$made/completions" proto systemd "$tree/"
cp "$made"/man/*.1 "$tree/man/"
cp docs/*.md docs/*.toml "$tree/docs/"
cp packaging/sysusers.conf "$tree/systemd/sysusers.conf"
tar --sort=name --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "$made" -c "$name" | gzip -n >"$out/$name.tar.gz"

(cd "$out" && sha256sum -- * >SHA256SUMS)
ls -l "$out"

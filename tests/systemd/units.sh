#!/usr/bin/env bash
# Callers by their systemd unit, on a real systemd: boots one in a container over this very system, runs the broker there as
# the service that we ship, and calls it from three services: the one that the policy names, another, and a user's own
# service of the same name. Needs root. Arguments: the broker's and the simulator's programs.
set -euo pipefail

broker=$(realpath "$1") simulator=$(realpath "$2")
here=$(realpath "$(dirname "$0")")
shipped=$(realpath "$here/../../systemd/b2binpay-broker.service")
work=$(mktemp -d /tmp/b2bp-systemd.XXXXXX)
machine=b2bp-units-$$
nspawn=

cleanup() {
    status=$?
    if [[ $status != 0 && -n ${init:-} ]]; then
        inside journalctl --no-pager -n 80 -o cat || true
    fi
    if [[ -n $nspawn ]]; then
        kill "$nspawn" 2>/dev/null || true
        wait "$nspawn" 2>/dev/null || true
    fi
    umount -l "$work/root" 2>/dev/null || true
    umount -l "$work" 2>/dev/null || true
    rmdir "$work" 2>/dev/null || true
}
trap cleanup EXIT

fail() { echo "$*" >&2; exit 1; }

# Waits until a command succeeds; half a minute at the most.
until_it() {
    local what=$1 tries
    shift
    for ((tries = 0; tries < 300; tries++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "$what: not within 30 s"
}

inside() { nsenter -t "$init" -a env -i PATH=/usr/local/bin:/usr/bin:/bin "$@"; }

# ---- a system of its own, over this one

mount -t tmpfs -o mode=755 b2bp "$work"
mkdir "$work"/{upper,work,root}
mount -t overlay b2bp -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
root=$work/root
install -D -m 755 "$broker" "$root/usr/local/bin/b2binpay-broker"
install -D -m 755 "$simulator" "$root/usr/local/bin/b2binpay-simulator"
: >"$root/etc/machine-id"
# A host name's and a clock's services have no part in this.
rm -f "$root"/etc/systemd/system/*.wants/*
for account in b2binpay-broker:401 payer:1000; do
    sed -i "/:x:${account#*:}:/d; /^${account%:*}:/d" "$root/etc/passwd" "$root/etc/group"
    echo "${account%:*}:x:${account#*:}:${account#*:}::/:/bin/sh" >>"$root/etc/passwd"
    echo "${account%:*}:x:${account#*:}:" >>"$root/etc/group"
done

settings=$root/etc/b2binpay-broker
mkdir -p "$settings"
echo key >"$settings/api-key"
echo secret >"$settings/api-secret"
echo callback >"$settings/callback-secret"
chmod 600 "$settings"/*
cat >"$settings/config.toml" <<'CONFIG'
[upstream]
api = "v3"
base_url = "http://127.0.0.1:8080"
[credentials]
key_file = "api-key"
secret_file = "api-secret"
callback_secret_file = "callback-secret"
[[caller]]
name = "payouts"
systemd_unit = "payouts.service"
allow = ["GetAccessToken"]
[log]
level = "debug"
CONFIG
chmod 644 "$settings/config.toml"

units=$root/etc/systemd/system
install -m 644 "$shipped" "$units/b2binpay-broker.service"
cat >"$units/simulator.service" <<'UNIT'
[Service]
ExecStart=/usr/local/bin/b2binpay-simulator --listen 127.0.0.1:8080 --key key --secret secret --callback-secret callback
UNIT
# All as the same user: nothing but the unit tells them from each other.
for name in payouts other; do
    cat >"$units/$name.service" <<UNIT
[Service]
Type=oneshot
User=payer
ExecStart=/bin/sh -c '/usr/local/bin/b2binpay-broker token --json >/tmp/$name.out 2>/tmp/$name.err; echo \$? >/tmp/$name.exit'
UNIT
done
# And the user's own, with a name that is not the user's to give.
mkdir -p "$root/etc/systemd/user"
sed -e '/^User=/d' -e 's,/tmp/payouts,/tmp/own,g' "$units/payouts.service" >"$root/etc/systemd/user/payouts.service"
# What a login would have made, without the services that do it.
mkdir -p "$units/user@1000.service.d"
cat >"$units/user@1000.service.d/test.conf" <<'UNIT'
[Service]
PAMName=
Environment=XDG_RUNTIME_DIR=/run/user/1000
UNIT
cat >"$units/user-runtime-dir@1000.service" <<'UNIT'
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/install -d -o payer -g payer -m 700 /run/user/1000
UNIT

# ---- boot

systemd-nspawn -q --private-network -D "$root" -b --register=no --keep-unit --machine="$machine" \
    systemd.unit=basic.target >"$work/console" 2>&1 &
nspawn=$!
find_init() { init=$(pgrep -P "$nspawn" | head -n 1) && [[ -n $init ]]; }
until_it "the container starts" find_init
find_init
until_it "systemd is up" inside systemctl is-active basic.target
echo "booted: $(inside systemctl --version | head -n 1); control groups of PID 1:"
inside cat /proc/1/cgroup | grep -E '^0::|name=systemd'

inside systemctl start simulator.service b2binpay-broker.service
until_it "the broker listens" inside test -S /run/b2binpay-broker/broker.sock

# ---- who is let in

expect() {
    local name=$1 wanted=$2 got
    got=$(inside cat "/tmp/$name.exit") || fail "$name did not run"
    echo "$name: exit $got; $(inside cat "/tmp/$name.err" | head -n 1)"
    [[ $got == "$wanted" ]] || fail "$name: exit $got instead of $wanted"
}

inside systemctl start payouts.service
expect payouts 0
inside grep -q access_token /tmp/payouts.out || fail "payouts got no token"

inside systemctl start other.service
expect other 77

inside systemctl start user@1000.service
inside setpriv --reuid 1000 --regid 1000 --clear-groups env XDG_RUNTIME_DIR=/run/user/1000 \
    systemctl --user start payouts.service
expect own 77

# What the broker knew of each.
log=$(inside journalctl --no-pager -o cat -u b2binpay-broker.service)
for words in '"unit":"payouts.service"' '"unit":"other.service"' "its control group is no system service's"; do
    [[ $log == *"$words"* ]] || fail "the log never says: $words"
done
echo "callers are known by their units"

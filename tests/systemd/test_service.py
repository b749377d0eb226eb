"""The life of the service on a host, as an operator sees it: from the package's installation to its purge."""

import datetime
import json
import re
import subprocess
import time

import pytest

from conftest import CALLBACK_SECRET, KEY, SECRET, simulator_unit
from machine import until

UNIT = "b2binpay-broker.service"
SOCKET = "/run/b2binpay-broker/broker.sock"
SETTINGS = "/etc/b2binpay-broker"
SIMULATOR = "http://127.0.0.1:8080"
LOAD = ["/srv/python/bin/python", "/srv/project/tests/systemd/load.py"]

CALLERS = """
[[caller]]
name = "payer"
unix_user = "payer"
allow = ["GetAccessToken", "WatchAccessToken"]
[[caller]]
name = "payouts"
systemd_unit = "payouts.service"
allow = ["GetAccessToken"]
"""


def status(machine, *arguments):
    return json.loads(machine.ok("b2binpay-broker", "status", "--json", *arguments))


def have_calls_left(machine):
    """Waits until a process that starts now can call the upstream at once, and need not wait for its turn."""
    until(lambda: status(machine)["budget"]["available"] > 0, "a call is left")


def token(machine, user="payer", *arguments):
    return machine.run("b2binpay-broker", "token", *arguments, user=user)


def simulator(machine, *words):
    return machine.ok("b2binpay-simulator", words[0], "--simulator", SIMULATOR, *words[1:])


def note_calls(machine):
    """Keeps what this simulator knows of the calls that it got."""
    machine.calls += json.loads(simulator(machine, "calls", "--json"))["calls"]


def end_simulator(machine):
    note_calls(machine)
    machine.ok("systemctl", "stop", "simulator.service")


def fault(machine, *words):
    simulator(machine, "fault", *words)


def put_secret(machine, name, content, folder=SETTINGS):
    """As the package says it at its installation."""
    machine.ok("install", "-m", "0640", "-g", "b2binpay-broker", "/dev/stdin", f"{folder}/{name}", stdin=f"{content}\n")


def put_secrets(machine, key=KEY, secret=SECRET, folder=SETTINGS):
    put_secret(machine, "api-key", key, folder)
    put_secret(machine, "api-secret", secret, folder)
    put_secret(machine, "callback-secret", CALLBACK_SECRET, folder)


def configured(machine):
    """The packaged configuration, for the simulator and with callers."""
    text = (machine.root / "etc/b2binpay-broker/config.toml").read_text()
    text, replaced = re.subn(r'(?m)^environment = "production".*$', f'base_url = "{SIMULATOR}"', text)
    assert replaced == 1
    return text.replace("# [[caller]]\n# name = \"payouts\"", CALLERS + "\n# [[caller]]\n# name = \"payouts\"", 1)


def status_text(machine, unit=UNIT):
    return machine.show(unit, "StatusText")


# ---- installing


def test_the_package_installs_starts_nothing_and_says_what_to_do(machine, package):
    (machine.root / "root/b2binpay-broker.deb").write_bytes(package.read_bytes())
    said = machine.ok("dpkg", "-i", "/root/b2binpay-broker.deb")
    assert "installed and not started" in said and "systemctl enable --now b2binpay-broker" in said, said
    for unit in (UNIT, "b2binpay-broker.socket"):
        assert machine.run("systemctl", "is-enabled", unit).stdout.strip() == "disabled"
        assert machine.run("systemctl", "is-active", unit).stdout.strip() == "inactive"
    assert machine.ok("stat", "-c", "%U:%G %a", SETTINGS).strip() == "root:b2binpay-broker 750"
    assert machine.ok("stat", "-c", "%U:%G %a", f"{SETTINGS}/config.toml").strip() == "root:b2binpay-broker 640"
    # What the package says, word for word, with a terminal's part played by a pipe.
    assert "install -m 0640 -g b2binpay-broker /dev/stdin /etc/b2binpay-broker/api-key" in said


def test_units_are_as_strict_as_they_say(machine):
    for unit in (UNIT, "b2binpay-broker@.service"):
        path = f"/usr/lib/systemd/system/{unit}"
        machine.ok("systemd-analyze", "security", "--offline=yes", "--threshold=14", path)
    for unit in (UNIT, "b2binpay-broker.socket", "b2binpay-broker@x.service", "b2binpay-broker@x.socket"):
        machine.ok("systemd-analyze", "verify", "--man=no", unit)


def test_without_credentials_it_does_not_run_and_says_which_file_is_missing(machine):
    assert machine.run("systemctl", "start", UNIT).returncode != 0
    assert machine.show(UNIT, "ExecMainStatus") == "78"
    assert machine.show(UNIT, "NRestarts") == "0", "it does not mend itself"
    assert "credentials.key_file: there is no such file" in machine.journal("-u", UNIT)
    machine.ok("systemctl", "reset-failed", UNIT)


def test_who_waits_for_a_service_that_cannot_start_is_refused_in_the_end(machine):
    machine.ok("systemctl", "start", "b2binpay-broker.socket")
    waiting = machine.start("b2binpay-broker", "token", "--timeout", "60s", user="payer", stderr=subprocess.PIPE)
    until(lambda: machine.show("b2binpay-broker.socket", "ActiveState") == "failed", "systemd gives it up")
    _, told = waiting.communicate(timeout=60)
    assert waiting.returncode == 69, told
    machine.ok("systemctl", "reset-failed", UNIT, "b2binpay-broker.socket")


def test_it_is_active_when_it_has_a_token_and_tells_how_it_is(machine):
    put_secrets(machine)
    machine.write(f"{SETTINGS}/config.toml", configured(machine), mode=0o640)
    machine.ok("chgrp", "b2binpay-broker", f"{SETTINGS}/config.toml")
    checked = machine.ok("b2binpay-broker", "check", "--online")
    assert "error" not in checked, checked
    fault(machine, "late_answer", "by=3s")
    starting = machine.start("systemctl", "enable", "--now", UNIT)
    until(lambda: "STARTING" in status_text(machine), "it tells that it starts")
    assert machine.show(UNIT, "ActiveState") == "activating"
    assert starting.wait(timeout=20) == 0
    assert machine.show(UNIT, "ActiveState") == "active"
    text = status_text(machine)
    assert re.fullmatch(r"FRESH, ready, with a token for callers until 2\S+ \S+Z", text), text
    assert text in machine.ok("systemctl", "status", UNIT)
    assert status(machine)["state"] == "FRESH"


def test_a_start_takes_less_than_half_a_second_beside_the_upstream(machine):
    have_calls_left(machine)
    machine.ok("systemctl", "stop", UNIT)
    began = time.monotonic()
    machine.ok("systemctl", "start", UNIT)
    took = time.monotonic() - began
    began, ended = (int(machine.show(UNIT, f"{name}TimestampMonotonic")) for name in ("InactiveExit", "ActiveEnter"))
    print(f"\nfrom `systemctl start` to active: {(ended - began) / 1000:.0f} ms by systemd, the simulator's answer included; "
          f"{took * 1000:.0f} ms with the command's own start")
    assert ended - began < 500_000


# ---- callers


def test_callers_are_told_from_each_other(machine):
    got = token(machine, "payer", "--json")
    assert got.returncode == 0 and json.loads(got.stdout)["token_type"] == "Bearer", got.stderr
    denied = token(machine, "stranger")
    assert denied.returncode == 77 and "CALLER_UNKNOWN" in denied.stderr, denied.stderr
    # Root looks after it, and gets no token.
    denied = machine.run("b2binpay-broker", "token")
    assert denied.returncode == 77 and "METHOD_NOT_ALLOWED" in denied.stderr, denied.stderr


def test_a_service_is_known_by_its_unit_and_nobody_can_borrow_its_name(machine):
    """All as the same user: nothing but the unit tells them from each other."""
    # A user of no rule, since a process that matches two callers is denied.
    for name in ("payouts", "other"):
        machine.unit(f"{name}.service", f"""[Service]
Type=oneshot
User=stranger
ExecStart=/bin/sh -c 'b2binpay-broker token --json >/tmp/{name}.out 2>/tmp/{name}.err; echo $? >/tmp/{name}.exit'
""")
    own = (machine.root / "etc/systemd/system/payouts.service").read_text()
    own = own.replace("User=stranger\n", "").replace("/tmp/payouts", "/tmp/own")
    machine.write("/etc/systemd/user/payouts.service", own)
    # What a login would have made, without the services that do it.
    machine.write("/etc/systemd/system/user@4002.service.d/test.conf",
                  "[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/4002\n")
    machine.unit("user-runtime-dir@4002.service", """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/install -d -o stranger -g stranger -m 700 /run/user/4002
""")
    machine.ok("systemctl", "start", "payouts.service", "other.service", "user@4002.service")
    machine.ok("env", "XDG_RUNTIME_DIR=/run/user/4002", "systemctl", "--user", "start", "payouts.service", user="stranger")
    for name, exit_code in (("payouts", "0"), ("other", "77"), ("own", "77")):
        told = machine.ok("cat", f"/tmp/{name}.exit", f"/tmp/{name}.err")
        assert told.split()[0] == exit_code, f"{name}: {told}"
    machine.ok("systemctl", "stop", "user@4002.service")


# ---- what goes wrong


def test_killed_it_serves_again_within_two_seconds_and_keeps_the_budget(machine):
    have_calls_left(machine)
    used = status(machine)["budget"]["used"]
    before = machine.show(UNIT, "MainPID")
    began = time.monotonic()
    machine.ok("kill", "-KILL", before)
    got = token(machine)
    took = time.monotonic() - began
    assert got.returncode == 0, got.stderr
    assert machine.show(UNIT, "MainPID") != before
    print(f"\nfrom kill -9 to a token: {took * 1000:.0f} ms")
    assert took < 2
    assert status(machine)["budget"]["used"] > used, "the new process knows what the old one spent"


def test_wedged_it_is_restarted_by_the_watchdog(machine):
    before = machine.show(UNIT, "MainPID")
    restarts = int(machine.show(UNIT, "NRestarts"))
    machine.ok("kill", "-STOP", before)
    until(lambda: int(machine.show(UNIT, "NRestarts")) > restarts, "the watchdog acts")
    until(lambda: token(machine).returncode == 0, "it serves again")
    assert "Watchdog timeout" in machine.journal("-u", UNIT)


def test_without_its_upstream_it_starts_says_so_and_gets_well_by_itself(machine):
    end_simulator(machine)
    machine.ok("systemctl", "restart", UNIT)
    assert machine.show(UNIT, "ActiveState") == "active"
    text = status_text(machine)
    assert text.startswith("STARTING, not ready, since 2"), text
    assert "connect" in text.lower(), text
    refused = token(machine, "payer", "--timeout", "1s")
    assert refused.returncode == 69, refused.stderr
    machine.ok("systemctl", "start", "simulator.service")
    until(lambda: status_text(machine).startswith("FRESH, ready"), "it gets well")
    assert token(machine).returncode == 0


# ---- changing


def test_a_reload_takes_over_new_credentials_or_says_why_not(machine):
    have_calls_left(machine)
    generation = status(machine)["credentials"]["generation"]
    put_secret(machine, "api-secret", "not-the-secret-5a5a5a5a")
    refused = machine.run("systemctl", "reload", UNIT)
    assert refused.returncode != 0, "a refusal is seen"
    assert "reload refused" in machine.journal("-u", UNIT, "-n", "40")
    assert machine.show(UNIT, "ActiveState") == "active"
    assert status(machine)["credentials"]["generation"] == generation
    assert token(machine).returncode == 0

    # Regenerated at B2BINPAY.
    end_simulator(machine)
    machine.unit("simulator.service", simulator_unit("sysd-key-2-b7a3", "sysd-secret-2-08d1e"))
    machine.ok("systemctl", "start", "simulator.service")
    put_secrets(machine, "sysd-key-2-b7a3", "sysd-secret-2-08d1e")
    machine.ok("systemctl", "reload", UNIT)
    assert status(machine)["credentials"]["generation"] == generation + 1


def test_a_stop_lets_a_call_under_way_finish(machine):
    held = json.loads(token(machine, "payer", "--json").stdout)
    have_calls_left(machine)
    fault(machine, "late_answer", "by=2s")
    waiting = machine.start("b2binpay-broker", "token", "--json", "--rejected", held["token_id"], user="payer",
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: "late_answer" in simulator(machine, "calls", "--json"), "the upstream is asked")
    machine.ok("systemctl", "stop", "b2binpay-broker.socket")
    out, error = waiting.communicate(timeout=20)
    assert waiting.returncode == 0, error
    assert json.loads(out)["token_id"] != held["token_id"]
    assert machine.run("systemctl", "is-active", UNIT).stdout.strip() == "inactive"
    assert not (machine.root / SOCKET.lstrip("/")).exists()
    machine.ok("systemctl", "start", UNIT)


def test_twenty_restarts_under_load_lose_no_call(machine):
    restarts, apart, rate = 20, 7, 200
    load = machine.start(*LOAD, SOCKET, rate, restarts * apart + 5, user="payer",
                         stdout=subprocess.PIPE)
    assert load.stdout.readline() == "calling\n"
    pids = {machine.show(UNIT, "MainPID")}
    began = time.monotonic()
    for number in range(restarts):
        time.sleep(max(0.0, began + number * apart - time.monotonic()))
        machine.ok("systemctl", "restart", UNIT)
        pids.add(machine.show(UNIT, "MainPID"))
    told = load.communicate(timeout=60)[0]
    verdict = json.loads(told.splitlines()[-1])
    print(f"\n{restarts} restarts, {apart} s apart: {verdict}")
    assert len(pids) == restarts + 1
    assert verdict["calls"] >= restarts * apart * rate * 0.9, "the load was not what it should be"
    assert verdict["failures"] == {}, verdict


# ---- credentials that systemd keeps


def test_encrypted_credentials_need_no_file_in_the_clear(machine):
    machine.ok("install", "-d", "-m", "0700", "/etc/credstore.encrypted", f"/etc/systemd/system/{UNIT}.d")
    files = {"api-key": "sysd-key-2-b7a3", "api-secret": "sysd-secret-2-08d1e", "callback-secret": CALLBACK_SECRET}
    lines = ["[Service]"]
    for name, secret in files.items():
        path = f"/etc/credstore.encrypted/b2binpay-broker.{name}"
        machine.ok("systemd-creds", "encrypt", "--with-key=host", f"--name={name}", "-", path, stdin=secret)
        machine.ok("rm", f"{SETTINGS}/{name}")
        lines.append(f"LoadCredentialEncrypted={name}:{path}")
    machine.unit(f"{UNIT}.d/credentials.conf", "\n".join(lines) + "\n")
    machine.ok("systemctl", "restart", UNIT)
    until(lambda: status_text(machine).startswith("FRESH"), "it logs in")
    sources = json.dumps(status(machine)["credentials"])
    assert f"/run/credentials/{UNIT}/api-secret" in sources, sources
    machine.ok("rm", "-r", f"/etc/systemd/system/{UNIT}.d")
    put_secrets(machine, "sysd-key-2-b7a3", "sysd-secret-2-08d1e")
    machine.ok("systemctl", "daemon-reload")


# ---- several sets


def test_two_instances_share_one_budget(machine):
    for name in ("one", "two"):
        folder = f"{SETTINGS}/{name}"
        machine.ok("install", "-d", "-m", "0750", "-g", "b2binpay-broker", folder)
        machine.ok("cp", "-p", f"{SETTINGS}/config.toml", f"{folder}/config.toml")
        put_secrets(machine, "sysd-key-2-b7a3", "sysd-secret-2-08d1e", folder)
    machine.ok("systemctl", "enable", "--now", "b2binpay-broker@one.service", "b2binpay-broker@two.service")
    for name in ("one", "two"):
        endpoint = f"unix:/run/b2binpay-broker/{name}/broker.sock"
        assert token(machine, "payer", "--endpoint", endpoint).returncode == 0
        until(lambda: status_text(machine, f"b2binpay-broker@{name}.service").startswith("FRESH"), "it is well")
    # Each knows of the others' calls, as soon as it looks.
    used = status(machine, "--endpoint", "unix:/run/b2binpay-broker/two/broker.sock")["budget"]["used"]
    assert used >= 3, "of the plain one's and both instances' logins it knows of fewer"
    machine.ok("systemctl", "reload", "b2binpay-broker@one.service")


# ---- upgrading, leaving


@pytest.fixture(scope="module")
def newer(machine, package, tmp_path_factory):
    """The same package with a higher version and another default in its configuration."""
    folder = tmp_path_factory.mktemp("newer")
    subprocess.run(["dpkg-deb", "-R", package, folder / "tree"], check=True)
    control = folder / "tree/DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: (.*)$", r"Version: \1+newer", control.read_text()))
    config = folder / "tree/etc/b2binpay-broker/config.toml"
    config.write_text(config.read_text().replace("# /etc", "# What a newer version says.\n# /etc", 1))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", folder / "tree", folder / "newer.deb"], check=True, stdout=subprocess.DEVNULL)
    (machine.root / "root/newer.deb").write_bytes((folder / "newer.deb").read_bytes())


def test_an_upgrade_keeps_what_the_operator_wrote_and_loses_no_call(machine, newer):
    before = {unit: machine.show(unit, "MainPID") for unit in (UNIT, "b2binpay-broker@one.service")}
    load = machine.start(*LOAD, SOCKET, 100, 25, user="payer", stdout=subprocess.PIPE)
    assert load.stdout.readline() == "calling\n"
    machine.ok("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "-i", "--force-confdef", "--force-confold", "/root/newer.deb")
    verdict = json.loads(load.communicate(timeout=60)[0].splitlines()[-1])
    assert verdict["failures"] == {}, verdict
    for unit, pid in before.items():
        assert machine.show(unit, "MainPID") != pid, "the new program runs"
        assert machine.show(unit, "ActiveState") == "active"
    assert SIMULATOR in machine.ok("cat", f"{SETTINGS}/config.toml")
    assert machine.ok("stat", "-c", "%U:%G %a", SETTINGS).strip() == "root:b2binpay-broker 750"


def test_never_more_calls_than_the_limit_in_all_of_this(machine):
    note_calls(machine)
    times = sorted(datetime.datetime.fromisoformat(call["time"]) for call in machine.calls)
    minute = datetime.timedelta(seconds=60)
    most = max(sum(1 for other in times if time <= other < time + minute) for time in times)
    print(f"\ncalls to the upstream: {len(times)}, {most} at the most in any 60 s")
    assert len(times) > 30 and most <= 15
    assert not [call for call in machine.calls if call["status"] == 429]


def test_nothing_secret_is_in_the_journal(machine):
    journal = machine.journal()
    assert "new access token" in journal, "the search looks at what the broker wrote"
    for secret in (KEY, SECRET, CALLBACK_SECRET, "sysd-key-2-b7a3", "sysd-secret-2-08d1e", "not-the-secret-5a5a5a5a", "eyJ"):
        lines = [line for line in journal.splitlines() if secret in line and "b2binpay-simulator" not in line]
        assert lines == [], secret


def test_removed_it_stops_and_purged_it_leaves_nothing(machine):
    machine.ok("dpkg", "--remove", "b2binpay-broker")
    for unit in (UNIT, "b2binpay-broker@one.service", "b2binpay-broker.socket"):
        assert machine.run("systemctl", "is-active", unit).stdout.strip() in ("inactive", "unknown")
    assert machine.run("systemctl", "--failed", "--no-legend", "--plain").stdout == ""
    assert SIMULATOR in machine.ok("cat", f"{SETTINGS}/config.toml"), "a remove is no purge"
    assert machine.run("find", "/etc/systemd", "-lname", "*b2binpay-broker*").stdout == ""
    machine.ok("dpkg", "--purge", "b2binpay-broker")
    for path in (SETTINGS, "/var/lib/b2binpay-broker", "/var/log/b2binpay-broker", "/run/b2binpay-broker"):
        assert machine.run("test", "-e", path).returncode != 0, path

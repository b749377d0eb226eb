"""One machine for all tests, on which the package is installed as an operator does it. The tests tell one story, in their
order: what one leaves behind, the next finds."""

import os
import pathlib

import pytest

from machine import Machine

KEY, SECRET, CALLBACK_SECRET = "sysd-key-7f31c0aa", "sysd-secret-20b9e4d1", "sysd-callback-55c7f0e2"

SIMULATOR_UNIT = """[Service]
ExecStart=/usr/local/bin/b2binpay-simulator --listen 127.0.0.1:8080 --api v3 --key {key} --secret {secret} \
    --callback-secret {callback} {more}
"""


def simulator_unit(key=KEY, secret=SECRET, more=""):
    return SIMULATOR_UNIT.format(key=key, secret=secret, callback=CALLBACK_SECRET, more=more)


def pytest_collection_modifyitems(items):
    # Each takes up where the one before it ended.
    items.sort(key=lambda item: (item.path.name, item.reportinfo()[1]))


@pytest.fixture(scope="session")
def package():
    return pathlib.Path(os.environ["B2BINPAY_BROKER_DEB"]).resolve()


@pytest.fixture(scope="session")
def machine():
    machine = Machine(f"b2bp-{os.getpid()}")
    try:
        machine.boot()
        simulator = pathlib.Path(os.environ["B2BINPAY_SIMULATOR_BIN"])
        target = machine.root / "usr/local/bin/b2binpay-simulator"
        target.write_bytes(simulator.read_bytes())
        target.chmod(0o755)
        for user, uid in (("payer", 4001), ("stranger", 4002)):
            machine.ok("useradd", "--uid", str(uid), "--user-group", "--no-create-home", user)
        # Python may be root's own, and the other users are to run it, too. It is this machine's view alone.
        machine.ok("chmod", "o+x", "/root")
        machine.unit("simulator.service", simulator_unit())
        machine.ok("systemctl", "start", "simulator.service")
        yield machine
    finally:
        machine.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    machine = item.funcargs.get("machine")
    if report.failed and machine and machine.init:
        journal = machine.run("journalctl", "--no-pager", "-n", "60", "-o", "short-precise").stdout
        report.sections.append(("the machine's journal", journal))
    return report

"""Starts the real programs: the simulator on a free port, the broker on a socket in a folder of its own."""

import atexit
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import pytest

HERE = pathlib.Path(__file__).parent
PROTO = HERE.parent.parent / "proto"

# No step of these tests takes longer on a slow machine, unless something is broken.
DEADLINE = 20


def _make_stubs():
    import grpc_tools
    from grpc_tools import protoc

    out = tempfile.mkdtemp(prefix="b2bp-stubs-")
    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path) for path in PROTO.rglob("*.proto"))
    options = [f"-I{PROTO}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(["protoc", *options, *files]) == 0, "the stubs could not be made"
    return out


# Before the test modules are imported, since they import the stubs.
STUBS = _make_stubs()
sys.path.insert(0, STUBS)
atexit.register(shutil.rmtree, STUBS, ignore_errors=True)


def program(variable):
    path = os.environ.get(variable)
    assert path, f"{variable} must name the program; `make python-test` sets it"
    return path


def until(condition, what):
    """Looks again and again, until `condition` gives something."""
    ends = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < ends, f"{what}: not within {DEADLINE} s"
        time.sleep(0.002)
    return found


class Simulator:
    """B2BINPAY on this machine."""

    KEY, SECRET, CALLBACK_SECRET = "py-key-91c4", "py-secret-5e07", "py-callback-secret-d3a2"

    def __init__(self, *arguments):
        credentials = ["--key", self.KEY, "--secret", self.SECRET, "--callback-secret", self.CALLBACK_SECRET]
        command = [program("B2BINPAY_SIMULATOR_BIN"), "--listen", "127.0.0.1:0", "--json", *credentials, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = json.loads(self.process.stdout.readline())["base_url"]

    def control(self, path, order):
        """The answer of the control API to `order`, as bytes."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/_simulator/{path}", json.dumps(order).encode(), headers)
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return answer.read()

    def callback(self, **spec):
        """The body of a callback."""
        return self.control("callbacks", {"callback": spec})

    def wallet_status(self, access_token):
        """What the API answers to a request with this token."""
        headers = {"Authorization": f"Bearer {access_token}"}
        request = urllib.request.Request(f"{self.url}/wallet/", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            return refused.code

    def stop(self):
        self.process.terminate()
        self.process.wait(DEADLINE)
        self.process.stdout.close()


class Broker:
    """The product, serving this very user."""

    ALLOWED = ["GetAccessToken", "WatchAccessToken", "VerifySign", "Health", "Reflection", "Admin"]

    def __init__(self, simulator, api, secret=Simulator.SECRET, log="trace", more="", files=None):
        # Another user must be able to reach the socket, so the folder is not pytest's, which is private.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="b2bp-"))
        self.folder.chmod(0o755)
        self.socket = self.folder / "broker.sock"
        self.secrets = [Simulator.KEY, secret, Simulator.CALLBACK_SECRET]
        (self.folder / "state").mkdir()
        for name, content in [("key", Simulator.KEY), ("secret", secret), ("callback", Simulator.CALLBACK_SECRET)]:
            (self.folder / name).touch(0o600)
            (self.folder / name).write_text(content + "\n")
        for name, content in (files or {}).items():
            (self.folder / name).touch(0o600)
            (self.folder / name).write_bytes(content)
        callback = 'callback_secret_file = "callback"' if api == "v3" else ""
        (self.folder / "config.toml").write_text(f"""
            [upstream]
            api = "{api}"
            base_url = "{simulator.url}"
            [credentials]
            key_file = "key"
            secret_file = "secret"
            {callback}
            [state]
            directory = "{self.folder}/state"
            [[listen]]
            unix = "{self.socket}"
            [[caller]]
            name = "python"
            unix_user = "{os.geteuid()}"
            allow = {json.dumps(self.ALLOWED)}
            [log]
            level = "{log}"
            {more}
        """)
        command = [program("B2BINPAY_BROKER_BIN"), "serve", "--config", self.folder / "config.toml"]
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until(self._answers, "the broker listens")
        except BaseException:
            self.kill()
            raise

    def _answers(self):
        assert self.process.poll() is None, f"the broker ended:\n{self.log()}"
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def log(self):
        return (self.folder / "log").read_text()

    def stop(self):
        """Stops it politely, and looks through its log for what must not stand there."""
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(DEADLINE) == 0, self.log()
            log = self.log()
            told = [secret for secret in self.secrets if secret in log]
            assert not told, f"{len(told)} secrets stand in the log:\n{log}"
        finally:
            self.kill()

    def kill(self):
        """Ends it, if it still runs, and removes what it left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def stopped_in_the_end(thing):
    try:
        yield thing
    finally:
        if thing.process.poll() is None:
            thing.stop()


@pytest.fixture(scope="session")
def simulator():
    with stopped_in_the_end(Simulator()) as simulator:
        yield simulator


@pytest.fixture(scope="session", params=["v2", "v3"])
def api(request):
    return request.param


@pytest.fixture(scope="session")
def broker(simulator, api):
    # The same simulator sees two brokers one after the other; each has a record of call times of its own.
    with stopped_in_the_end(Broker(simulator, api)) as broker:
        yield broker


@pytest.fixture
def channel(broker):
    from broker_client import open_channel

    with open_channel(broker.socket) as channel:
        yield channel

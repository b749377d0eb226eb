"""Who gets in, seen by clients that are not ours: three users over the socket, and certificates over TCP."""

import json
import os
import pathlib
import re
import subprocess
import sys

import grpc
import pytest
from b2binpay.broker.v1 import token_broker_pb2 as messages, token_broker_pb2_grpc as services

from broker_client import reason
from conftest import DEADLINE, STUBS, Broker, stopped_in_the_end, until
from pki import HOUR, Authority

PAYOUTS = "spiffe://example.org/payouts"

# Three numbers that are nobody's on an ordinary machine.
READER, VERIFIER, STRANGER = 54_001, 54_002, 54_003


def users(allowed):
    return "\n".join(
        f'[[caller]]\nname = "{name}"\nunix_user = "{user}"\nallow = {json.dumps(allow)}' for name, user, allow in allowed
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_three_users_over_the_socket_may_do_what_the_policy_gives_each(simulator):
    allowed = [("reader", READER, ["GetAccessToken"]), ("verifier", VERIFIER, ["VerifySign", "Health"])]
    with stopped_in_the_end(Broker(simulator, "v3", more=users(allowed))) as broker:

        def outcomes(user):
            script = pathlib.Path(__file__).parent / "stranger.py"
            environment = {"PYTHONPATH": STUBS, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
            command = [sys.executable, str(script), str(broker.socket), str(user)]
            ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3 * DEADLINE)
            assert ran.returncode == 0, ran.stderr
            return ran.stdout.splitlines()

        # A token, and the broker's health.
        assert outcomes(READER) == ["let in", "PERMISSION_DENIED METHOD_NOT_ALLOWED"]
        assert outcomes(VERIFIER) == ["PERMISSION_DENIED METHOD_NOT_ALLOWED", "let in"]
        assert outcomes(STRANGER) == ["UNAUTHENTICATED CALLER_UNKNOWN"] * 2


class Port:
    """A broker on a TCP port, and whom it believes."""

    def __init__(self, simulator):
        self.servers, self.clients = Authority("servers"), Authority("clients")
        self.revoked = self.clients.issue(uris=[PAYOUTS])
        server = self.servers.issue(hosts=["localhost"], addresses=["127.0.0.1"])
        files = {
            "server.pem": server.cert,
            "server.key": server.key,
            "clients.pem": self.clients.pem,
            "clients.crl": self.clients.revoke(self.revoked),
        }
        more = f"""
            [[listen]]
            tcp = "127.0.0.1:0"
            cert = "server.pem"
            key = "server.key"
            client_ca = "clients.pem"
            client_crl = ["clients.crl"]
            [[caller]]
            name = "payouts"
            spiffe_id = "{PAYOUTS}"
            allow = ["GetAccessToken"]
        """
        self.broker = Broker(simulator, "v3", log="debug", more=more, files=files)
        self.process, self.stop = self.broker.process, self.broker.stop
        serving = until(lambda: re.search(r'"socket":"(127\.0\.0\.1:\d+)"', self.broker.log()), "the port is told")
        self.address = serving[1]

    def call(self, identity, authority=None):
        """A token for whoever has this certificate, or the error."""
        credentials = grpc.ssl_channel_credentials(
            (authority or self.servers).pem,
            identity and identity.key,
            identity and identity.cert,
        )
        with grpc.secure_channel(self.address, credentials) as channel:
            stub = services.TokenBrokerServiceStub(channel)
            try:
                return stub.GetAccessToken(messages.GetAccessTokenRequest(), timeout=DEADLINE)
            except grpc.RpcError as error:
                return error


@pytest.fixture(scope="module")
def port(simulator):
    with stopped_in_the_end(Port(simulator)) as port:
        yield port


def test_the_right_certificate_gets_a_token(port):
    token = port.call(port.clients.issue(uris=[PAYOUTS]))
    assert token.token_type == "Bearer", token
    port.broker.secrets.append(token.access_token)


def test_a_name_that_the_policy_does_not_know_is_told_so(port):
    for identity in [
        port.clients.issue(uris=["spiffe://example.org/other"]),
        port.clients.issue(uris=[PAYOUTS, PAYOUTS]),
        port.clients.issue(hosts=["payouts.example.org"]),
    ]:
        error = port.call(identity)
        assert (error.code(), reason(error)) == (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ("of a strange authority", "its certificate is of no authority"),
        ("expired", "its certificate has expired"),
        ("not valid yet", "its certificate is not valid yet"),
        ("revoked", "its certificate is revoked"),
        ("none", "it shows no certificate"),
    ],
)
def test_any_other_certificate_does_not_get_in_and_the_log_says_why(port, which, told):
    identity = {
        "of a strange authority": lambda: Authority("strangers").issue(uris=[PAYOUTS]),
        "expired": lambda: port.clients.issue(uris=[PAYOUTS], begins=-2 * HOUR, ends=-HOUR),
        "not valid yet": lambda: port.clients.issue(uris=[PAYOUTS], begins=HOUR, ends=2 * HOUR),
        "revoked": lambda: port.revoked,
        "none": lambda: None,
    }[which]()
    error = port.call(identity)
    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
    until(lambda: f"TLS handshake failed: {told}" in port.broker.log(), told)


def test_a_client_that_does_not_believe_the_broker_does_not_call_it(port):
    error = port.call(port.clients.issue(uris=[PAYOUTS]), authority=port.clients)
    assert error.code() == grpc.StatusCode.UNAVAILABLE, error

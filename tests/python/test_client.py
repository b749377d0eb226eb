"""What a service written in Python sees of the broker."""

import json
import os
import pathlib
import subprocess
import sys

import grpc
import pytest
from b2binpay.broker.v1 import broker_admin_pb2 as admin_messages, broker_admin_pb2_grpc as admin_services
from b2binpay.broker.v1 import token_broker_pb2 as messages, token_broker_pb2_grpc as services
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from broker_client import details, open_channel, reason
from conftest import DEADLINE, STUBS, Broker, Simulator, stopped_in_the_end

TOKENS = "b2binpay.broker.v1.TokenBrokerService"


@pytest.fixture
def tokens(channel):
    return services.TokenBrokerServiceStub(channel)


def get(tokens, timeout=DEADLINE, **request):
    return tokens.GetAccessToken(messages.GetAccessTokenRequest(**request), timeout=timeout)


def verify(tokens, **request):
    return tokens.VerifySign(messages.VerifySignRequest(**request), timeout=DEADLINE)


def refused(call):
    """The error that `call` must end in."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


# ---- tokens


def test_a_token_opens_the_api(tokens, broker, simulator, api):
    token = get(tokens)
    broker.secrets.append(token.access_token)
    assert simulator.wallet_status(token.access_token) == 200
    assert simulator.wallet_status("not-a-token") == 401
    assert (token.token_type, token.base_url, token.api_version) == ("Bearer", simulator.url, api)
    assert len(token.token_id) == 16
    assert 0 < token.valid_for.ToSeconds() <= 3600


def test_everybody_gets_the_same_token(tokens, broker):
    with open_channel(broker.socket) as another:
        assert get(tokens).token_id == get(services.TokenBrokerServiceStub(another)).token_id


def test_a_watcher_is_told_the_current_token_and_each_that_follows():
    # The limit is out of the way here: what is looked at is the schedule.
    plenty = "[upstream.budget]\nrequests = 1000\n[token]\nrefresh_at = 0.2"
    with (
        stopped_in_the_end(Simulator("--access-lifetime", "8s", "--limit", "1000")) as simulator,
        stopped_in_the_end(Broker(simulator, "v2", more=plenty)) as broker,
        open_channel(broker.socket) as channel,
    ):
        stub = services.TokenBrokerServiceStub(channel)
        stream = stub.WatchAccessToken(messages.WatchAccessTokenRequest(), timeout=DEADLINE)
        first, second, third = next(stream), next(stream), next(stream)
        assert first.reason == messages.TOKEN_REASON_CURRENT
        assert (second.reason, third.reason) == (messages.TOKEN_REASON_ROTATED,) * 2
        assert len({each.token.token_id for each in (first, second, third)}) == 3
        assert simulator.wallet_status(third.token.access_token) == 200
        broker.secrets += [each.token.access_token for each in (first, second, third)]

        # A broker that stops says so to those who watch.
        broker.stop()
        error = refused(lambda: [next(stream) for _ in range(100)])
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert reason(error) == "SHUTTING_DOWN"


def test_more_validity_than_tokens_have_is_refused(tokens):
    get(tokens)
    error = refused(lambda: get(tokens, min_validity=Duration(seconds=100_000)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason(error) == "VALIDITY_TOO_LONG"


def test_wrong_credentials_are_said_to_be_an_operators_matter(simulator, api):
    with (
        stopped_in_the_end(Broker(simulator, api, secret="py-not-the-secret")) as broker,
        open_channel(broker.socket) as channel,
    ):
        # After wrong credentials the broker pauses for ten seconds at least: no try can help this call in time.
        error = refused(lambda: get(services.TokenBrokerServiceStub(channel), timeout=5))
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert reason(error) == "CREDENTIALS_REJECTED"
        assert details(error, error_details_pb2.RetryInfo) is None


# ---- callbacks


def test_a_genuine_callback_is_valid(tokens, simulator, api):
    body = simulator.callback(api=api, amount="1.50", exp=2, tracking_id="order-é-1")
    found = verify(tokens, callback=body)
    assert found.verdict == messages.VERDICT_VALID, found.reason
    assert found.key_generation == messages.KEY_GENERATION_CURRENT
    said = found.callback
    assert (said.kind, said.status, said.amount, said.tracking_id) == ("deposit", 2, "1.50", "order-é-1")
    assert list(said.authenticated_fields) == ["status", "amount", "tracking_id", "time"]


def test_a_changed_amount_is_invalid(tokens, simulator, api):
    found = verify(tokens, callback=simulator.callback(api=api, form={"amount_changed": "9.3"}))
    assert found.verdict == messages.VERDICT_INVALID
    assert not found.HasField("callback")


def test_a_callback_without_a_transfer_is_unsigned_and_proves_nothing(tokens, simulator, api):
    found = verify(tokens, callback=simulator.callback(api=api, form="no_transfer"))
    assert found.verdict == messages.VERDICT_UNSIGNED
    assert list(found.callback.authenticated_fields) == []


def test_what_the_sign_does_not_cover_can_be_changed(tokens, simulator, api):
    # The trap that authenticated_fields is there for.
    body = json.loads(simulator.callback(api=api))
    body["data"]["id"] = "666"
    for resource in body["included"]:
        if resource["type"] == "currency":
            resource["attributes"]["alpha"] = "BTC"
    found = verify(tokens, callback=json.dumps(body).encode())
    assert found.verdict == messages.VERDICT_VALID, found.reason
    assert found.callback.id == "666"
    assert "id" not in found.callback.authenticated_fields


def test_an_old_callback_is_stale_only_where_that_was_asked(tokens, simulator, api):
    body = simulator.callback(api=api, time="2022-07-15T16:53:30.326479Z")
    assert verify(tokens, callback=body).verdict == messages.VERDICT_VALID
    found = verify(tokens, callback=body, max_age=Duration(seconds=3600))
    assert found.verdict == messages.VERDICT_STALE


def test_what_is_no_callback_is_an_error_that_names_the_fields(tokens):
    error = refused(lambda: verify(tokens, callback=b'{"data": {"type": "refund"}}'))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason(error) == "MALFORMED_CALLBACK"
    violations = details(error, error_details_pb2.BadRequest).field_violations
    assert {"data.type", "data.id"} <= {violation.field for violation in violations}


# ---- who may what


def test_a_method_that_is_not_allowed_is_refused_by_name(tokens):
    signed = messages.SignedMessage(message=b"guess", sign="0" * 64)
    error = refused(lambda: verify(tokens, signed_message=signed))
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED
    assert reason(error) == "METHOD_NOT_ALLOWED"
    assert "VerifySign:message" in error.details()


def test_a_method_that_is_not_there_is_said_not_to_be(channel):
    call = channel.unary_unary(f"/{TOKENS}/Refund", request_serializer=bytes, response_deserializer=bytes)
    error = refused(lambda: call(b"", timeout=DEADLINE))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert reason(error) == "METHOD_UNKNOWN"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_stranger_gets_nothing(broker):
    here = pathlib.Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([STUBS, str(here)])}
    command = [sys.executable, here / "stranger.py", broker.socket, "65533"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3 * DEADLINE)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split("\n") == ["UNAUTHENTICATED CALLER_UNKNOWN"] * 2 + [""]


# ---- what every gRPC service has


def test_health_follows_readiness(channel, tokens):
    health = health_pb2_grpc.HealthStub(channel)
    get(tokens)
    for service in ["", TOKENS, f"{TOKENS}/VerifySign"]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service
    error = refused(lambda: health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=DEADLINE))
    assert error.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_describes_the_services(channel):
    # grpcio's client speaks v1alpha.
    described = ProtoReflectionDescriptorDatabase(channel)
    expected = {TOKENS, "b2binpay.broker.v1.BrokerAdminService", "grpc.health.v1.Health"}
    assert expected <= set(described.get_services())
    file = described.FindFileContainingSymbol(TOKENS)
    methods = {method.name for service in file.service for method in service.method}
    assert methods == {"GetAccessToken", "WatchAccessToken", "VerifySign"}


def test_the_status_says_how_it_is(channel, tokens, api):
    token = get(tokens)
    admin = admin_services.BrokerAdminServiceStub(channel)
    status = admin.GetStatus(admin_messages.GetStatusRequest(), timeout=DEADLINE)
    assert (status.state, status.ready) == (admin_messages.BROKER_STATE_FRESH, True)
    assert (status.token.token_id, status.api_version) == (token.token_id, api)
    assert (status.budget.limit, status.budget.window.ToSeconds()) == (15, 60)
    assert [caller.name for caller in status.callers] == ["python"]
    assert status.callers[0].last_token_id == token.token_id


# ---- the trap of grpcio over Unix sockets


def test_without_the_authority_option_no_call_gets_through(broker):
    with open_channel(broker.socket, authority=False) as channel:
        error = refused(lambda: get(services.TokenBrokerServiceStub(channel)))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "RST_STREAM" in error.details(), "the README quotes it"
    with open_channel(broker.socket) as channel:
        assert get(services.TokenBrokerServiceStub(channel)).access_token

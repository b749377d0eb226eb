"""Calls for a token at a steady rate over one channel, as a service written in Python does, and tells how it went.

Arguments: the socket, calls a second, seconds. A JSON object comes out: calls, failures (their reasons, counted), and the
longest that one call took."""

import collections
import json
import pathlib
import sys
import tempfile
import threading
import time

import grpc
import grpc_tools
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def stubs():
    out = tempfile.mkdtemp(prefix="b2bp-stubs-")
    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path) for path in PROTO.rglob("*.proto"))
    assert protoc.main(["protoc", f"-I{PROTO}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}", *files]) == 0
    sys.path.insert(0, out)


def main():
    socket, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    stubs()
    from b2binpay.broker.v1 import token_broker_pb2, token_broker_pb2_grpc

    channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")])
    broker = token_broker_pb2_grpc.TokenBrokerServiceStub(channel)
    lock, failures, slowest, open_calls = threading.Lock(), collections.Counter(), [0.0], []

    def begin():
        began = time.monotonic()
        call = broker.GetAccessToken.future(token_broker_pb2.GetAccessTokenRequest(), wait_for_ready=True, timeout=15)

        def ended(call):
            took = time.monotonic() - began
            with lock:
                slowest[0] = max(slowest[0], took)
                if call.code() is not grpc.StatusCode.OK:
                    failures[f"{call.code().name}: {call.details()}"] += 1

        call.add_done_callback(ended)
        open_calls.append(call)

    # The first call connects; then load begins, and says so.
    broker.GetAccessToken(token_broker_pb2.GetAccessTokenRequest(), wait_for_ready=True, timeout=15)
    print("calling", flush=True)
    starts = time.monotonic()
    number = 0
    while (due := starts + number / rate) < starts + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        begin()
        number += 1
    for call in open_calls:
        call.exception()
    channel.close()
    print(json.dumps({"calls": number, "failures": failures, "slowest_s": round(slowest[0], 3)}), flush=True)


main()

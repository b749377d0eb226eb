"""Measures the release build at rest on this machine, prints what was found, and fails where a figure is missed.

`cargo bench --bench footprint` measures more, over many starts, and is not a gate.
"""

import os
import pathlib
import sys
import time

# First: it makes the stubs that the next lines import.
from conftest import DEADLINE, Broker, Simulator, program, stopped_in_the_end

from b2binpay.broker.v1 import token_broker_pb2 as messages, token_broker_pb2_grpc as services
from broker_client import open_channel

MB = 1_000_000
IDLE_SECONDS = 30


def token(broker):
    with open_channel(broker.socket) as channel:
        stub = services.TokenBrokerServiceStub(channel)
        return stub.GetAccessToken(messages.GetAccessTokenRequest(), timeout=DEADLINE)


def resident_bytes(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def cpu_nanoseconds(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def main():
    missed = []

    def figure(name, found, limit, unit):
        verdict = "" if found < limit else "  MISSED"
        print(f"{name:<40} {found:8.2f} {unit:<4} (limit {limit} {unit}){verdict}")
        missed.extend([name] if verdict else [])

    figure("stripped binary", os.path.getsize(program("B2BINPAY_BROKER_BIN")) / MB, 12, "MB")
    with stopped_in_the_end(Simulator()) as simulator, stopped_in_the_end(Broker(simulator, "v3", log="info")) as broker:
        token(broker)
        pid = broker.process.pid
        spent, began = cpu_nanoseconds(pid), time.monotonic()
        time.sleep(IDLE_SECONDS)
        busy = (cpu_nanoseconds(pid) - spent) / ((time.monotonic() - began) * 1e9)
        figure("resident memory at rest", resident_bytes(pid) / MB, 15, "MB")
        figure("idle CPU of one core", busy * 100, 0.2, "%")
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


main()

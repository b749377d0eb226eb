"""Calls the broker as another user, and prints what came of it. Arguments: the socket, the user's number.

A process of its own: it gives root away, for good, once everything that only root can read is imported.
"""

import os
import sys

import grpc
from b2binpay.broker.v1 import token_broker_pb2 as messages, token_broker_pb2_grpc as services
from grpc_health.v1 import health_pb2, health_pb2_grpc

from broker_client import open_channel, reason


def outcome(call):
    try:
        call()
    except grpc.RpcError as error:
        return f"{error.code().name} {reason(error)}"
    return "let in"


def main():
    socket, user = sys.argv[1], int(sys.argv[2])
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    with open_channel(socket) as channel:
        tokens, health = services.TokenBrokerServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        print(outcome(lambda: tokens.GetAccessToken(messages.GetAccessTokenRequest(), timeout=10)))
        print(outcome(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=10)))


main()

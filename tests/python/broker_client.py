"""Calling the broker over its Unix socket: a channel that works, and errors that programs can read."""

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# Over a Unix socket, grpcio makes the request's authority from the socket's path ("%2Frun%2F…"), which is no valid
# host, and servers that check it close the stream. Any valid one will do.
AUTHORITY = ("grpc.default_authority", "localhost")


def open_channel(socket, authority=True):
    """A channel to the broker. `authority=False` shows what happens without the option."""
    return grpc.insecure_channel(f"unix:{socket}", options=[AUTHORITY] if authority else [])


def details(error, kind):
    """The detail of this kind that an error of the broker carries, or None."""
    status = rpc_status.from_call(error)
    for packed in status.details if status else ():
        message = kind()
        if packed.Unpack(message):
            return message
    return None


def reason(error):
    """What went wrong, for programs: `google.rpc.ErrorInfo.reason`."""
    info = details(error, error_details_pb2.ErrorInfo)
    assert info is not None, f"no ErrorInfo in {error!r}"
    assert info.domain == "b2binpay-broker"
    return info.reason

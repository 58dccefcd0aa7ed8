"""The echo service of the foreign tests with grpcio. Prints its port; serves until its input ends."""
import sys
import time
from concurrent import futures

import grpc


def unary(request, context):
    wanted = ("x-plain", "x-bytes-bin")
    context.send_initial_metadata([pair for pair in context.invocation_metadata() if pair[0] in wanted])
    context.set_trailing_metadata((("x-trailer", "after"), ("x-trailer-bin", b"\x00\xff")))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-why", "asked"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "n\u00f6t here: 100%")


def slow(request, context):
    time.sleep(20)
    return request


def many(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def count(requests, context):
    return b"%d" % sum(1 for _ in requests)


def echo(requests, context):
    yield from requests


def halfway(request, context):
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "halfway")


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Many": grpc.unary_stream_rpc_method_handler(many),
    "Count": grpc.stream_unary_rpc_method_handler(count),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Halfway": grpc.unary_stream_rpc_method_handler(halfway),
}
limits = [("grpc.max_receive_message_length", 8 << 20)]
server = grpc.server(futures.ThreadPoolExecutor(16), options=limits)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
server.stop(0)

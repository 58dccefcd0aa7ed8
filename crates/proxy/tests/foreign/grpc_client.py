"""Calls the echo service at the address given with grpcio; says what it did, fails loudly."""
import queue
import sys

import grpc

address = sys.argv[1]
limits = [("grpc.max_receive_message_length", 8 << 20)]
channel = grpc.insecure_channel(address, options=limits)


def call(kind, name):
    return getattr(channel, kind)("/test.Echo/" + name)


def code_of(run):
    try:
        run()
    except grpc.RpcError as error:
        return error
    raise SystemExit("no error came")


answer, done = call("unary_unary", "Unary").with_call(
    b"hello", metadata=(("x-plain", "a b"), ("x-bytes-bin", b"\x01\xfe")), timeout=20)
assert answer == b"hello", answer
initial = dict(done.initial_metadata())
trailing = dict(done.trailing_metadata())
assert initial["x-plain"] == "a b" and initial["x-bytes-bin"] == b"\x01\xfe", initial
assert trailing["x-trailer"] == "after" and trailing["x-trailer-bin"] == b"\x00\xff", trailing
assert done.code() == grpc.StatusCode.OK

large = bytes(3 << 20)
assert call("unary_unary", "Unary")(large, timeout=30) == large

error = code_of(lambda: call("unary_unary", "Fail")(b"", timeout=20))
assert error.code() == grpc.StatusCode.NOT_FOUND, error
assert error.details() == "n\u00f6t here: 100%", error.details()
assert dict(error.trailing_metadata())["x-why"] == "asked"

error = code_of(lambda: call("unary_unary", "Slow")(b"", timeout=0.5))
assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error

error = code_of(lambda: call("unary_unary", "Unknown")(b"", timeout=20))
assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

assert list(call("unary_stream", "Many")(b"200", timeout=20)) == [b"%d" % n for n in range(200)]
assert list(call("unary_stream", "Many")(b"0", timeout=20)) == []
assert call("stream_unary", "Count")(iter([b"x" * 1000] * 300), timeout=20) == b"300"
assert call("stream_unary", "Count")(iter([]), timeout=20) == b"0"
words = [b"w" * n for n in range(0, 60000, 3000)]
assert list(call("stream_stream", "Echo")(iter(words), timeout=20)) == words

# Each word waits for the echo of the one before: nothing may be held back.
words = queue.Queue()
words.put(b"0")
turn = []
for word in call("stream_stream", "Echo")(iter(words.get, None), timeout=20):
    turn.append(word)
    words.put(b"%d" % len(turn) if len(turn) < 20 else None)
assert turn == [b"%d" % n for n in range(20)], turn

got = []
stream = call("unary_stream", "Halfway")(b"", timeout=20)
error = code_of(lambda: got.extend(stream))
assert error.code() == grpc.StatusCode.DATA_LOSS and error.details() == "halfway", error

cancelled = call("stream_stream", "Echo")(iter([b"a"]), timeout=20)
assert next(cancelled) == b"a"
cancelled.cancel()

calls = [call("unary_unary", "Unary").future(b"%d" % n, timeout=30) for n in range(100)]
assert [c.result() for c in calls] == [b"%d" % n for n in range(100)]
print("all right")

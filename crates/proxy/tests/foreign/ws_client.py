"""Talks to the echo server at the address given with Python's websockets; fails loudly."""
import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def main():
    url = "ws://" + sys.argv[1] + "/ws?a=b"
    async with connect(url, subprotocols=["echo.v1", "echo.v2"], max_size=8 << 20) as socket:
        assert socket.subprotocol == "echo.v2", socket.subprotocol
        for message in ["hello", "", "\u00e9\u20ac", b"\x00\xff" * 10, b"", "x" * 70000, bytes(2 << 20)]:
            await socket.send(message)
            assert await socket.recv() == message
        for number in range(200):
            await socket.send(str(number))
        assert [await socket.recv() for _ in range(200)] == [str(n) for n in range(200)]
        await asyncio.wait_for(await socket.ping(), 10)
        await socket.send("bye")
        try:
            await socket.recv()
            raise SystemExit("no end came")
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 4001 and closed.rcvd.reason == "as asked", closed
    several = [connect(url, subprotocols=["echo.v2"]) for _ in range(20)]
    for each in several:
        async with each as socket:
            await socket.send("one of many")
            assert await socket.recv() == "one of many"
    print("all right")


asyncio.run(asyncio.wait_for(main(), 60))

"""An echo server with Python's websockets. Prints its port; serves until its input ends."""
import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        if message == "bye":
            await socket.close(4001, "as asked")
            return
        await socket.send(message)


async def main():
    async with serve(echo, "127.0.0.1", 0, subprotocols=["echo.v2"], max_size=8 << 20) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())

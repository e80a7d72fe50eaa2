"""Many clients of an echo server at once: python3 asyncio_clients.py PORT COUNT. Prints how many were echoed."""

import asyncio
import sys


async def ask(number, connected):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    await connected.wait()
    text = b"client %d\n" % number
    for _ in range(5):
        writer.write(text)
        await writer.drain()
        assert await reader.readexactly(len(text)) == text
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    return 1


async def main():
    count = int(sys.argv[2])
    connected = asyncio.Barrier(count)
    print(sum(await asyncio.gather(*(ask(number, connected) for number in range(count)))))


asyncio.run(asyncio.wait_for(main(), 100))

"""Clients of the echo and of the chat: clients.py HOST:PORT."""

import asyncio
import json
import sys

import websockets

LARGE = bytes(range(256)) * 4096  # a mebibyte


async def echo(address):
    async with websockets.connect(f"ws://{address}/echo") as socket:
        for message in ["", "hello", "ä" * 40000, b"", LARGE]:
            await socket.send(message)
            assert await socket.recv() == message
        # A message in fragments.
        await socket.send(["one ", "two ", "three"])
        assert await socket.recv() == "one two three"
        await (await socket.ping())
    assert socket.close_code == 1000, socket.close_code

    async with websockets.connect(f"ws://{address}/echo") as socket:
        await socket.send(LARGE + b"x")
        try:
            await socket.recv()
            raise AssertionError("it is too long")
        except websockets.ConnectionClosed:
            assert socket.close_code == 1009, socket.close_code


async def event(socket):
    return json.loads(await socket.recv())


async def chat(address):
    count = 50
    # What nobody reads must not keep the client from the answer to its close.
    members = [
        await websockets.connect(f"ws://{address}/socket", max_queue=None)
        for _ in range(count)
    ]
    for number, member in enumerate(members):
        await member.send(f"member {number}")
        welcome = await event(member)
        assert len(welcome["names"]) == number + 1, welcome
    await asyncio.gather(*(member.send("hello") for member in members))

    async def heard(member):
        order = []
        while len(order) < count:
            happened = await event(member)
            if happened["kind"] == "said":
                order.append(happened["name"])
        return order

    orders = await asyncio.gather(*map(heard, members))
    assert len(set(orders[0])) == count
    assert all(order == orders[0] for order in orders)
    await asyncio.gather(*(member.close() for member in members))
    assert all(member.close_code == 1000 for member in members)


async def main(address):
    await echo(address)
    await chat(address)
    print("the echo and the chat are as expected")


asyncio.run(main(sys.argv[1]))

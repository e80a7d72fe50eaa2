"""The book's echo server by select, for a comparison of logs."""

import select
import socket
import sys

sock = socket.create_server(("127.0.0.1", 0))
print("serving on %s:%d" % sock.getsockname(), flush=True)


def log(text, address):
    print(text, "%s:%d" % address, file=sys.stderr, flush=True)


ins, outs = [sock], []
pending, addresses = {}, {}
while True:
    readable, writable, _ = select.select(ins, outs, [])
    for each in readable:
        if each is sock:
            client, address = sock.accept()
            log("Connected from", address)
            ins.append(client)
            addresses[client] = address
            continue
        data = each.recv(8192)
        if data:
            log("%d bytes from" % len(data), addresses[each])
            pending[each] = pending.get(each, b"") + data
            if each not in outs:
                outs.append(each)
        else:
            log("disconnected from", addresses.pop(each))
            ins.remove(each)
            if each in outs:
                outs.remove(each)
            each.close()
    for each in writable:
        if each not in addresses:
            continue
        data = pending.pop(each, b"")
        sent = each.send(data)
        log("%d bytes to" % sent, addresses[each])
        if data[sent:]:
            log("%d bytes remain for" % len(data[sent:]), addresses[each])
            pending[each] = data[sent:]
        else:
            log("No data currently remain for", addresses[each])
            outs.remove(each)

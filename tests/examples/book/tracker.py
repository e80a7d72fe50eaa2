"""A tracker by BEP 15, which knows one torrent. It sends other answers before the right one, and an
escape sequence with its refusal."""

import socket
import struct

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 0))
print("serving on %s:%d" % sock.getsockname(), flush=True)
connection = 0x0123456789ABCDEF
while True:
    request, client = sock.recvfrom(2048)
    head, action, transaction = struct.unpack("!QII", request[:16])
    sock.sendto(b"", client)
    sock.sendto(b"\0\0\0", client)
    sock.sendto(struct.pack("!IIQ", action, transaction ^ 1, 666), client)
    if action == 0 and head == 0x41727101980:
        sock.sendto(struct.pack("!IIQ", 0, transaction, connection), client)
    elif action == 2 and head == connection and request[16:] == b"\xab" * 20:
        sock.sendto(struct.pack("!IIIII", 2, transaction, 11, 22, 33), client)
    else:
        sock.sendto(struct.pack("!II", 3, transaction) + b"unknown torrent\x1b[2J", client)

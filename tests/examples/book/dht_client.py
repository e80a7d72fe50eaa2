"""Asks a node of the hash table by BEP 5, and sends what is malformed: python3 dht_client.py PORT OTHER_PORT."""

import socket
import sys

node = ("127.0.0.1", int(sys.argv[1]))
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 0))
sock.settimeout(100)
own = b"a" * 20


def ask(message):
    sock.sendto(message, node)
    return sock.recvfrom(4096)[0]


pong = ask(b"d1:ad2:id20:" + own + b"e1:q4:ping1:t2:aa1:y1:qe")
assert pong.startswith(b"d1:rd2:id20:") and pong.endswith(b"e1:t2:aa1:y1:re"), pong

# No answer is due to these, and none ends the node.
for garbage in [b"", b"hello", b"d", b"i1e", b"l" * 4000, b"d" * 4000, b"9999999999:x", b"d1:t2:aa1:y1:re",
                b"d1:rd2:id20:" + own + b"e1:t4:\0\0\0\x011:y1:re", b"i99999999999999999999e", b"-1:x"]:
    sock.sendto(garbage, node)

answer = ask(b"d1:ad2:id20:" + own + b"e1:q7:destroy1:t2:bb1:y1:qe")
assert answer == b"d1:eli204e14:method unknowne1:t2:bb1:y1:ee", answer
answer = ask(b"d1:ad2:id3:abce1:q4:ping1:t2:cc1:y1:qe")
assert answer.startswith(b"d1:eli203e"), answer

target = pong[12:32]
answer = ask(b"d1:ad2:id20:" + own + b"6:target20:" + target + b"e1:q9:find_node1:t2:dd1:y1:qe")
other = socket.inet_aton("127.0.0.1") + int(sys.argv[2]).to_bytes(2, "big")
assert b"5:nodes" in answer and other in answer, answer
print("ok")

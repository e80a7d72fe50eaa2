"""The book's client of the echo servers: python3 client.py PORT [END]. Each line is sent with END behind it."""

import socket
import sys

end = sys.argv[2].encode().decode("unicode_escape") if len(sys.argv) > 2 else ""
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=100)
print("Connected to server")
data = """A few lines of data
to test the operation
of both server and client."""
for line in data.splitlines():
    sock.sendall((line + end).encode())
    print("Sent:", line)
    print("Received:", sock.recv(8192).decode())
sock.close()

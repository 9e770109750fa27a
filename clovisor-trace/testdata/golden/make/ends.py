"""Ends of connections that no ordinary program makes. Usage: ends.py serve | ends.py NAME SERVER."""

import http.client
import http.server
import socket
import struct
import sys
import threading
import time


class Plain(http.server.BaseHTTPRequestHandler):
    """Answers HTTP/1.1, 100-continue included, and echoes lengths."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = f"{len(body)} bytes\n".encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self):
        """Chunks with a trailer, a moment apart."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Trailer", "X-Sum")
        self.end_headers()
        for part in (b"one ", b"two ", b"three\n"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            time.sleep(0.01)
        self.wfile.write(b"0\r\nX-Sum: 14\r\n\r\n")

    def log_message(self, *_):
        pass


class Old(Plain):
    """HTTP/1.0: the close of the connection ends the response."""

    protocol_version = "HTTP/1.0"

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"until the end\n" * 100)


def reset(connection):
    """Closes with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def odd(connection):
    """Does what the path asks for."""
    request = connection.recv(65536)
    path = request.split(b" ")[1] if b" " in request else b""
    part = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 100
    if path == b"/upgrade":
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
        connection.sendall(connection.recv(65536))
        connection.recv(65536)
    elif path == b"/reset-late":
        connection.sendall(part)
        time.sleep(0.05)
        return reset(connection)
    elif path == b"/reset-early":
        return reset(connection)
    elif path == b"/close-late":
        connection.sendall(part)
    elif path == b"/hints":
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        time.sleep(0.02)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    elif path == b"/nonsense":
        connection.sendall(b"SSH-2.0-no-http-at-all\r\n")
    elif path == b"/half":
        connection.recv(65536)
    connection.close()


def commands(connection):
    """Answers each command, in the words of Redis."""
    while line := connection.recv(100):
        connection.sendall(b"+PONG\r\n" if line == b"PING\r\n" else b"$3000\r\n" + b"v" * 3000 + b"\r\n")
    connection.close()


def quietly(each, connection):
    """A client that resets the connection is no fault here."""
    try:
        each(connection)
    except ConnectionError:
        pass


def listen(port, each):
    server = socket.create_server(("", port))
    while True:
        connection = server.accept()[0]
        threading.Thread(target=quietly, args=(each, connection), daemon=True).start()


def serve():
    for port, handler in ((8080, Plain), (8082, Old)):
        server = http.server.ThreadingHTTPServer(("", port), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=listen, args=(6379, commands), daemon=True).start()
    listen(8083, odd)


def say(server, port, *parts, wait=0.05):
    """Sends the parts, a moment apart, and reads until the server closes or is silent."""
    with socket.create_connection((server, port)) as connection:
        connection.settimeout(0.3)
        for part in parts:
            connection.sendall(part)
            time.sleep(wait)
        try:
            while connection.recv(65536):
                pass
        except (TimeoutError, ConnectionError):
            pass


def get(path, more=""):
    return f"GET {path} HTTP/1.1\r\nHost: shop\r\n{more}\r\n".encode()


def pipelined(server):
    """Five requests in one write, then two whose bytes come one by one."""
    five = [get("/echo?1"), get("/none"), b"HEAD /index.txt HTTP/1.1\r\nHost: shop\r\n\r\n", get("/missing")]
    body = b"POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello"
    say(server, 80, b"".join([*five, body]))
    two = get("/echo?6") + get("/echo?7", "Connection: close\r\n")
    say(server, 80, *(bytes([byte]) for byte in two), wait=0.001)


def client(server):
    """Python's http.client: keep-alive, a chunked upload, a refused method."""
    connection = http.client.HTTPConnection(server, 8081)
    for method, path, body in (
        ("GET", "/index.txt", None),
        ("POST", "/echo", b"name=value"),
        ("PUT", "/echo", iter([b"one", b"two"])),
        ("GET", "/fails", None),
        ("TRACE", "/echo", None),
    ):
        connection.request(method, path, body, encode_chunked=True)
        connection.getresponse().read()
    connection.close()


def old(server):
    for path in ("/one", "/two"):
        connection = http.client.HTTPConnection(server, 8082)
        connection.request("GET", path)
        connection.getresponse().read()
        connection.close()


def resets(server):
    say(server, 8083, get("/reset-early"))
    say(server, 8083, get("/reset-late"))
    connection = socket.create_connection((server, 8083))
    connection.sendall(get("/half"))
    time.sleep(0.02)
    reset(connection)


def closes(server):
    say(server, 8083, get("/close-early"))
    say(server, 8083, get("/close-late"))
    say(server, 8083, get("/nonsense"))
    for part in (b"POST /half HTTP/1.1\r\nContent-Length: 100\r\n\r\nforty bytes", b"GET /half HTTP/1.1\r\nHo"):
        with socket.create_connection((server, 8083)) as connection:
            connection.sendall(part)
            time.sleep(0.02)


def switches(server):
    ask = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    say(server, 80, get("/index.txt", ask), get("/echo"))
    say(server, 8083, get("/upgrade", "Connection: Upgrade\r\nUpgrade: echo\r\n"), b"\x00not http\r\n\r\n")
    say(server, 80, b"CONNECT shop:443 HTTP/1.1\r\nHost: shop:443\r\n\r\n")


def interim(server):
    say(server, 8083, get("/hints"))
    head = b"POST /upload HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    say(server, 8080, head, b"body")


def redis(server):
    say(server, 6379, b"PING\r\n", b"GET key\r\n")
    connection = socket.create_connection((server, 6379))
    connection.sendall(b"PING\r\n")
    connection.recv(100)
    reset(connection)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else globals()[sys.argv[1]](sys.argv[2])

# The server of the tests' own, on Python's http.server. The first part of the path says in what way to answer, the last
# is the request's id, which goes back in X-Answers.
import http.server, socket, struct, time


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Writes of a head and a body go out as they are made, without Nagle's wait.
    disable_nagle_algorithm = True

    def begin(self, status, length=None, *headers):
        self.send_response(status)
        self.send_header("X-Answers", self.path.rsplit("/", 1)[-1])
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def sized(self, status, body):
        self.begin(status, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def pieces(self, count, size, pause, form=b"%b"):
        for _ in range(count):
            self.wfile.write(form % (b"p" * size))
            time.sleep(pause)

    def do_GET(self):
        kind = self.path.split("/")[1]
        if kind == "large":
            self.sized(200, b"x" * 200000)
        elif kind == "chunked":
            if self.request_version == "HTTP/1.0":
                self.close_connection = True
                self.begin(200)
                self.pieces(5, 6000, 0.001)
            else:
                self.begin(200, None, ("Transfer-Encoding", "chunked"))
                self.pieces(5, 6000, 0.001, b"1770\r\n%b\r\n")
                self.wfile.write(b"0\r\n\r\n")
        elif kind == "none":
            self.begin(204)
        elif kind == "notmod":
            self.begin(304, None, ("ETag", '"1"'))
        elif kind == "close":
            self.close_connection = True
            self.begin(200, None, ("Connection", "close"))
            self.pieces(2, 10000, 0.005)
        elif kind == "slow":
            self.begin(200, 5000)
            self.pieces(5, 1000, 0.02)
        elif kind == "reset":
            self.begin(200, 100000)
            self.wfile.write(b"r" * 30000)
            # Closing a socket that does not linger resets the connection.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        else:
            self.sized(200, b"hello")

    do_HEAD = do_GET

    def do_POST(self):
        if self.path.startswith("/early/"):
            self.close_connection = True
            self.begin(413, 4, ("Connection", "close"))
            self.wfile.write(b"big\n")
        else:
            self.sized(200, self.rfile.read(int(self.headers["Content-Length"])))

    def handle_expect_100(self):
        return self.path.startswith("/early/") or super().handle_expect_100()

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass

    def finish(self):
        try:
            super().finish()
        except (OSError, ValueError):
            pass

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128

    def handle_error(self, *_):
        pass


Server(("::", 8080), Answers).serve_forever()

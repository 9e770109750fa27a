# Requests over kept connections of Python's http.client: client.py HOST PORT NAME. A line for each request:
# PATH METHOD STATUS BYTES whole|cut|failed|wrong.
import http.client, sys, threading

KINDS = ["small", "large", "chunked", "none", "echo", "notmod", "slow", "small", "close", "early", "small", "reset"]
host, port, name = sys.argv[1:4]
lock = threading.Lock()


def tell(*words):
    with lock:
        print(*words, flush=True)


def ask(thread):
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    for i in range(24):
        kind = KINDS[i % len(KINDS)]
        path = f"/{kind}/{name}-{thread}-{i}"
        method, body = "GET", None
        if kind in ("echo", "early"):
            method, body = "POST", b"e" * (600_000 if kind == "early" else 3000 * (i + 1))
        elif i % 7 == 6 and kind == "small":
            method = "HEAD"
        status = got = 0
        try:
            try:
                connection.request(method, path, body=body)
            except (BrokenPipeError, ConnectionResetError):
                # The server may have answered early all the same.
                if kind != "early":
                    raise
            response = connection.getresponse()
            status = response.status
            got = len(response.read())
            state = "whole" if path.endswith("/" + response.headers["X-Answers"]) else "wrong"
        except http.client.IncompleteRead:
            state = "cut"
        except (OSError, http.client.HTTPException):
            state = "cut" if status else "failed"
        if state != "whole":
            connection.close()
        tell(path, method, status, got, state)


threads = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

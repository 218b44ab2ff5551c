"""A web server that serves a folder, and misbehaves as it is told."""

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class HostileServer:
    """`faults` are taken one a request of an archive, from the front; `always` is for those that find none left.

    503: answers so. cut: closes in mid-body. wrong: flips a bit. whole: ignores Range. slow: pauses at each piece.
    stop: falls silent in mid-body for `silence` seconds. gone: 404. `asked` are the paths, with the start of the range.
    """

    def __init__(self, folder):
        self.folder, self.faults, self.always, self.silence = Path(folder), [], None, 20.0
        self.asked, self.lock = [], threading.Lock()
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.answer(self)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request):
        path = self.folder / request.path.lstrip("/")
        asked = re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        with self.lock:
            self.asked.append((request.path, start))
            fault = None
            if path.suffix in (".tar", ".zip"):
                fault = self.faults.pop(0) if self.faults else self.always
        if fault == "503" or fault == "gone" or not path.is_file():
            request.send_error(503 if fault == "503" else 404)
            return
        data = path.read_bytes()
        if fault == "wrong":
            data = data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]
        start = 0 if fault == "whole" else start
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        middle = start + (len(data) - start) // 2
        try:
            for place in range(start, len(data), 8192):
                if place + 8192 > middle and fault == "cut":
                    request.close_connection = True
                    return
                if place + 8192 > middle and fault == "stop":
                    self.over.wait(self.silence)
                    fault = None
                if fault == "slow":
                    time.sleep(0.01)
                request.wfile.write(data[place : place + 8192])
        except OSError:  # the client has given up
            request.close_connection = True

    def close(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

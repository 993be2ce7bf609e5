"""`python -m benchmarks.server_by_hand MODEL_DIR`: a SavedModel behind Python's own HTTP server, as a peer.

It knows one model and one signature, checks nothing, and prints the port that it listens on.
"""

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import tensorflow as tf


def main() -> None:
    model = tf.saved_model.load(sys.argv[1])
    signature = model.signatures["serving_default"]
    ((name, spec),) = signature.structured_input_signature[1].items()

    def read(value: Any) -> Any:
        return base64.b64decode(value["b64"]) if isinstance(value, dict) else value

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            outputs = signature(**{name: tf.constant([read(row) for row in document["instances"]], spec.dtype)})
            rows: Any = {alias: tensor.numpy() for alias, tensor in outputs.items()}
            rows = {alias: array.astype(str) if array.dtype == object else array for alias, array in rows.items()}
            body = json.dumps({alias: array.tolist() for alias, array in rows.items()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 1024

    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

"""What gunicorn serves in test_processes.py: with --preload the Monitor is opened in the master, before there are workers."""

import json
import os

import mlwatch

monitor = mlwatch.Monitor("served", n_classes=2, ring_bytes=1 << 20)
monitor.collect([[0.25, 0.75]] * 5)


def app(environ, start_response):
    written = monitor.collect([[0.25, 0.75]] * int(environ["QUERY_STRING"]))
    answer = json.dumps({"worker": os.getpid(), "ring": monitor.path, "written": written}).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]

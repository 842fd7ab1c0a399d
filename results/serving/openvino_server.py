"""OpenVINO GenAI's continuous batching behind OpenAI's `/v1/completions`, as far as a client that runs stages needs it.

It runs in OpenVINO's own environment, where litestage is not installed: `load.py` starts it.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy
import openvino
import openvino_genai as genai

sys.path.append(str(Path(__file__).parents[2] / "src" / "litestage" / "benchmarks" / "peers" / "workers"))
from run_openvino import pipeline_of

RUNNING = genai.py_openvino_genai.GenerationStatus.RUNNING


class Engine(threading.Thread):
    """The pipeline on a thread of its own; it steps while there are requests."""

    def __init__(self, pipeline: Any) -> None:
        super().__init__(daemon=True)
        self._pipeline, self._tokenizer = pipeline, pipeline.get_tokenizer()
        self._asked: SimpleQueue[tuple[list[int], Any, SimpleQueue[dict[str, Any]]]] = SimpleQueue()

    def text(self, ids: list[int], most: int) -> dict[str, Any]:
        """Greedy, up to the model's own end."""
        config = genai.GenerationConfig()
        config.max_new_tokens, config.eos_token_id = most, self._tokenizer.get_eos_token_id()
        answer: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._asked.put((ids, config, answer))
        return answer.get()

    def run(self) -> None:
        running: list[tuple[Any, SimpleQueue[dict[str, Any]]]] = []
        number = 0
        while True:
            while not running or not self._asked.empty():
                ids, config, answer = self._asked.get()
                number += 1
                tensor = openvino.Tensor(numpy.array([ids], dtype=numpy.int64))
                running.append((self._pipeline.add_request(number, tensor, config), answer))
            self._pipeline.step()
            for handle, answer in [one for one in running if one[0].get_status() != RUNNING]:
                (output,) = handle.read_all()
                text = self._tokenizer.decode(list(output.generated_ids))
                answer.put({"text": text, "finish_reason": output.finish_reason.name.lower()})
            running = [one for one in running if one[0].get_status() == RUNNING]


def handler(engine: Engine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body in one packet

        def do_GET(self) -> None:
            self._send({})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._send({"choices": [engine.text(body["prompt"], body["max_tokens"])]})

        def _send(self, answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def main() -> None:
    folder, precision, port, rows, threads = sys.argv[1:]
    engine = Engine(pipeline_of(Path(folder), precision, int(rows), int(threads)))
    engine.start()
    ThreadingHTTPServer.request_queue_size = 256
    ThreadingHTTPServer(("127.0.0.1", int(port)), handler(engine)).serve_forever()


if __name__ == "__main__":
    main()

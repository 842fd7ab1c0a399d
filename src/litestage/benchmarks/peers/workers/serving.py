"""What a peer's process does: it reads what to generate from its input, a JSON line each, and says how long it took.

This folder's files run in the peers' own environments, where litestage is not installed: they import nothing of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Generate = Callable[[dict[str, Any]], list[list[int]]]
"""Token ids that follow each prompt, for an order: ``prompts``, ``tokens`` (most new ones), ``whole`` (no text ends
before), ``sampling`` (``temperature``, ``top_k``, ``top_p``; none when greedy), ``stop`` and ``eos``."""


def serve(load: Callable[[dict[str, Any]], tuple[str, Generate]]) -> None:
    """``load`` makes the peer of its settings, and says its version."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    version, generate = load(json.loads(sys.stdin.readline()))
    print(json.dumps({"version": version}), file=said, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        clock = time.process_time if order["clock"] == "processor" else time.perf_counter
        start = clock()
        tokens = generate(order)
        seconds = clock() - start
        print(json.dumps({"seconds": seconds, "tokens": tokens}), file=said, flush=True)

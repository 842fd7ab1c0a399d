"""Long prompts that come while others decode: a chunk at a time, and every text stays what it was."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tiny import packed, prompt, requests

from litestage.core import Completion, Decode, Finished, Prefill
from litestage.engine import TorchEngine

CHUNK = 16


def run(engine: TorchEngine, lengths: list[int]) -> tuple[list[Completion], list[Prefill | Decode]]:
    """Two short prompts decode when prompts of ``lengths`` come; their completions, and the forwards since then."""
    passes: list[Prefill | Decode] = []
    asked = requests([prompt(10, seed) for seed in range(2)], max_new_tokens=60)
    asked += requests([prompt(length, 7) for length in lengths], max_new_tokens=5)
    ids = [engine.add(one) for one in asked[:2]]
    done: dict[int, Completion] = {}
    for _ in range(4):
        engine.step()
    engine.on_pass = passes.append
    ids += [engine.add(one) for one in asked[2:]]
    while len(done) < len(ids):
        done |= {event.id: event.completion for event in engine.step() if isinstance(event, Finished)}
    return [done[id] for id in ids], passes


@pytest.mark.parametrize("lengths", [[120], [120, 90], [15, 12, 11], [120, 5, 121], [17]])
def test_texts_are_those_of_whole_prompts(lengths: list[int]) -> None:
    """A long prompt is a part of another in one of them, so that chunks are shared."""
    chunked = TorchEngine(packed(), batch_size=8)
    chunked.chunk = CHUNK
    found, passes = run(chunked, lengths)
    assert found == run(TorchEngine(packed(), batch_size=8), lengths)[0]
    prefills = [one for one in passes if isinstance(one, Prefill)]
    assert sum(one.tokens for one in prefills) >= max(lengths)
    assert max(one.tokens for one in prefills) <= CHUNK
    behind = [after for one, after in pairwise(passes) if isinstance(one, Prefill)]
    assert all(isinstance(one, Decode) for one in behind), "a decode step behind each chunk"


def test_without_a_chunk_a_prompt_is_prefilled_whole() -> None:
    _, passes = run(TorchEngine(packed(), batch_size=8), [120])
    assert max(one.tokens for one in passes if isinstance(one, Prefill)) == 120


def test_where_nobody_decodes_a_prompt_is_prefilled_whole() -> None:
    engine = TorchEngine(packed(), batch_size=8)
    engine.chunk = CHUNK
    passes: list[Prefill | Decode] = []
    engine.on_pass = passes.append
    engine.generate(requests([prompt(120)], max_new_tokens=3))
    assert passes[0] == Prefill(1, 120, 120)

"""``on_logits`` hears what decides each token: no row, no step and no value of another."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import tiny
import torch
from torch import Tensor

from litestage.core import Completion, MeanConfidence, Request, Sampling, SkipSchedule, StagePlan
from litestage.engine import TorchEngine

PROMPTS = [tiny.prompt(length) for length in (5, 12, 12, 3, 20)]
SKIPPING = SkipSchedule.fixed(["1.attention", "2.ffn"])


def heard(engine: TorchEngine, requests: Sequence[Request]) -> tuple[list[Completion], list[Tensor]]:
    """Completions, and by request the logits [tokens, V] that were told."""
    told: list[list[Tensor]] = [[] for _ in requests]

    def hear(rows: Sequence[int], logits: Tensor) -> None:
        for row, row_logits in zip(rows, logits, strict=True):
            told[row].append(row_logits.clone())

    engine.on_logits = hear
    completions = engine.generate(requests)
    return completions, [torch.stack(rows) for rows in told]


@pytest.mark.parametrize("schedule", [SkipSchedule(), SKIPPING])
def test_they_are_those_of_the_plain_model(schedule: SkipSchedule) -> None:
    """Ragged rows that leave and are replaced, one of them answered by what another one left."""
    requests = [
        Request(prompt_ids=ids, max_new_tokens=3 + 2 * place, stage_plan=StagePlan(schedule=schedule))
        for place, ids in enumerate(PROMPTS)
    ]
    completions, logits = heard(tiny.engine(batch_size=2), requests)
    for request, done, rows in zip(requests, completions, logits, strict=True):
        prompt = request.prompt_ids
        expected = tiny.raw_logits("llama", [*prompt, *done.token_ids[:-1]], len(prompt), schedule)
        torch.testing.assert_close(rows, expected[len(prompt) - 1 :], atol=1e-4, rtol=1e-4)
        assert rows.argmax(-1).tolist() == list(done.token_ids)


def test_they_are_raw_and_there_for_the_token_that_exit_replaced() -> None:
    plan = StagePlan(exit=MeanConfidence(window=2, threshold=0.99))
    requests = tiny.requests(PROMPTS, max_new_tokens=8, stage_plan=plan, sampling=Sampling(temperature=0.7, top_k=3))
    completions, logits = heard(tiny.engine(), requests)
    assert any(done.finish_reason == "low_confidence" for done in completions)
    for done, rows in zip(completions, logits, strict=True):
        assert len(rows) == len(done.token_ids)
        assert rows.softmax(-1).amax(-1).tolist() == pytest.approx(done.confidences, abs=1e-6)


def test_nobody_has_to_listen() -> None:
    requests = tiny.requests(PROMPTS, max_new_tokens=4)
    assert tiny.engine().on_logits is None
    assert tiny.engine().generate(requests) == heard(tiny.engine(), requests)[0]

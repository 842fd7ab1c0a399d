"""Requests of many plans, samplings, limits and stop strings, and what each gets alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache

import tiny
import torch

from litestage.core import (
    Compensation,
    Completion,
    MeanConfidence,
    Request,
    Sampling,
    Segment,
    SkipSchedule,
    StagePlan,
    SubLayer,
    TokenIds,
)
from litestage.core.drafts import Drafter, Drafts, Prices, Writing, as_text, as_tokens
from litestage.engine import TorchEngine
from litestage.models import Affine

STANDS = {"scaled": {SubLayer(1, "ffn"): Affine(scale=torch.tensor(0.9)), SubLayer(2, "attention"): Affine()}}
GROWING = SkipSchedule(segments=(Segment(), Segment(first_step=3, skipped={"1.ffn", "2.attention"})))
PLANS = (
    StagePlan(),
    StagePlan(schedule=SkipSchedule.fixed(["0.attention", "2.ffn", "3.ffn"])),
    StagePlan(schedule=GROWING),
    StagePlan(
        schedule=SkipSchedule.fixed(["1.ffn", "2.attention"]),
        compensation=Compensation(kind="norm_ratio", content="scaled"),
    ),
    StagePlan(exit=MeanConfidence(window=2, threshold=0.12)),
)
SAMPLINGS = (Sampling(), Sampling(temperature=0.7), Sampling(temperature=1.5, top_k=20, top_p=0.9))
STEM = tiny.prompt(16, seed=4)


def engine(**options: object) -> TorchEngine:
    return TorchEngine(tiny.packed(), stands=STANDS, **({"batch_size": 4} | options))


def mixed_requests(count: int) -> list[Request]:
    choose = random.Random(2)
    piece = tiny.tokenizer().decode
    return [
        Request(
            prompt_ids=STEM[: choose.choice((0, 9, 16))] + tiny.prompt(choose.randint(1, 12), seed=i),
            stage_plan=choose.choice(PLANS),
            max_new_tokens=choose.randint(1, 12),
            stop=(piece([choose.randint(100, 300)]),) if i % 4 == 0 else (),
            sampling=choose.choice(SAMPLINGS),
            seed=choose.randint(0, 3),
        )
        for i in range(count)
    ]


REQUESTS = [
    request.model_copy(update={"drafts": Drafts(family=request.key(), stage="mixed")}) for request in mixed_requests(24)
]


@cache
def alone() -> list[Completion]:
    return [engine().generate([request])[0] for request in REQUESTS]


Guess = Callable[[TokenIds, TokenIds], TokenIds]
"""Of what is right to follow, if it is known, and what is there, a guess."""


@cache
def _texts() -> dict[str, TokenIds]:
    return {request.key(): done.token_ids for request, done in zip(REQUESTS, alone(), strict=True)}


def right(follows: TokenIds, there: TokenIds) -> TokenIds:
    return follows


def wrong(follows: TokenIds, there: TokenIds) -> TokenIds:
    return tuple(2 + (token + 1) % 200 for token in follows[:5]) or (7,)


def too_long(follows: TokenIds, there: TokenIds) -> TokenIds:
    return (*follows, *range(100, 180))


def half_right(follows: TokenIds, there: TokenIds) -> TokenIds:
    choose = random.Random(len(there))
    sure = choose.randint(0, 3)
    return (*follows[:sure], *(token + 1 for token in follows[sure : sure + 2]), *follows[sure + 2 :])


def at_times(follows: TokenIds, there: TokenIds) -> TokenIds:
    """Beside rows that have none."""
    return follows[: len(there) % 3]


GUESSES = (right, wrong, too_long, half_right, at_times)


class Knowing(Drafter):
    """Guesses who may know what is right; a request's family is its key."""

    def __init__(self, guess: Guess) -> None:
        super().__init__("stage", Prices(tokens=(1, 2), seconds=(1.0, 1.0)))
        self._guess = guess

    def guess(self, asked: Sequence[tuple[Writing, int]], tokens: int, rows: int) -> list[str]:
        found = []
        for writing, _ in asked:
            there = as_tokens(writing.written)
            whole = _texts().get(writing.names.family, ())
            found.append(as_text(self._guess(whole[len(there) :], there)))
        return found


def drafting(guess: Guess | None, **options: object) -> TorchEngine:
    """An engine whose drafts, if any, somebody makes who may know what is right."""
    used = engine(**options)
    used.drafter = None if guess is None else Knowing(guess)
    return used

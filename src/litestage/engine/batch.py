"""A batch of rows under one stage plan: prefill, decode steps, rows leaving and others taking their slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from math import isfinite
from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor

from litestage.core import Decode, LitestageError, OnToken, Prefill, Sampling, StagePlan, TokenIds
from litestage.core.rows import rows_to_admit
from litestage.engine.prefixes import Prefix, alike
from litestage.engine.row import Row
from litestage.engine.steps import FixedStep, FixedSteps, Said, decision
from litestage.kernels import Alike
from litestage.models.cache import Cache
from litestage.models.decoder import FULL, Decoder, Observer, Path, Skips, Stand

OnPass = Callable[[Prefill | Decode], None]
OnLogits = Callable[[Sequence[int], Float[Tensor, "B V"]], None]
"""Called with the rows' request indices and the raw logits that decide their next token."""


@dataclass
class Batch:
    """Rows 0 to ``len(active)`` of the cache hold the active rows; those that end are filled from the back."""

    decoder: Decoder
    cache: Cache
    eos_ids: tuple[int, ...]
    stage_plan: StagePlan
    sampling: Sampling
    stand: Stand
    stops: Callable[[Row], bool]
    capacity: int
    broken: Callable[[Row], LitestageError] | None = None
    """What to raise for a row whose logits are not finite."""
    on_token: OnToken | None = None
    on_pass: OnPass | None = None
    active: list[Row] = field(default_factory=list)
    on_logits: OnLogits | None = None
    fixed: FixedSteps | None = None
    """Steps to decode by where all rows skip the same; without, every step is made anew."""
    _ahead: tuple[Said, FixedStep] | None = None
    """What the step behind the last one says of the active rows: it was started before that one was read."""
    _paths: dict[frozenset[int], Path] = field(default_factory=dict)
    """By the segments that the rows are at."""
    _alike: tuple[tuple[int, ...], Alike | None] = ((), None)
    """Which rows begin alike, and of which rows that was found."""

    def run(self, rows: Sequence[Row]) -> None:
        """Bring every row to its end, in the order that `litestage.core.rows.passes` states.

        Fixed steps run one more where a row ends, started before that was known.
        """
        waiting = deque(sorted(rows, key=lambda row: -row.to_prefill))
        while waiting or self.active:
            sizes = [row.to_prefill for row in islice(waiting, self.capacity)]
            if admitted := rows_to_admit(len(self.active), sizes, self.capacity):
                self.admit([waiting.popleft() for _ in range(admitted)])
            else:
                self.decode()
            self._leave()

    def admit(self, rows: list[Row]) -> None:
        """Prefill new rows behind the active ones, always at full depth, and decide their first token."""
        prompts, prefixes = [row.request.prompt_ids for row in rows], [row.prefix for row in rows]
        logits = prefill(self.decoder, self.cache, len(self.active), prompts, prefixes, self.on_pass)
        self.active += rows
        self._accept(rows, self._said(logits, rows))

    def decode(self) -> None:
        """One forward of one token for every active row.

        Fixed steps go on by themselves: the next is started before this one is read, so that a device makes one token
        while its host takes in another. Once a row has ended, the step ahead is the last of these rows.
        """
        said, step = self._ahead or self._start()
        self._ahead = (step.go_on(self._uniforms(self.active, 1)), step) if self._goes_on(step) else None
        self._read(said)
        if self._ahead and any(row.reason for row in self.active):
            self._read(self._ahead[0])
            self._ahead = None

    def _start(self) -> tuple[Said, FixedStep | None]:
        rows = self.active
        skips, path = self._skips()
        tokens, lengths = [row.tokens[-1] for row in rows], [row.length for row in rows]
        if self.fixed is None or skips.rows:
            return self._said(self._forward(tokens, lengths, skips, path), rows), None
        compensation = self.stage_plan.compensation
        step = self.fixed.step(skips.everywhere, compensation, self.sampling, path, len(rows), max(lengths) + 1)
        return step.start(tokens, lengths, self._uniforms(rows)), step

    def _goes_on(self, step: FixedStep | None) -> TypeGuard[FixedStep]:
        """Whether the next step is the same for all rows, and any row may come to it."""
        return (
            step is not None
            and self.on_logits is None
            and len(self.stage_plan.schedule.segments) == 1
            and max(row.length for row in self.active) + 2 <= step.context
            and any(len(row.tokens) + 1 < row.max_new_tokens for row in self.active)
        )

    def _read(self, said: Said) -> None:
        """Take in what a step says of the active rows."""
        if self.on_pass is not None:
            lengths, steps = zip(*((row.length, row.step) for row in self.active), strict=True)
            self.on_pass(Decode(len(self.active), max(lengths) + 1, min(steps)))
        self._accept(self.active, said)

    def _forward(self, tokens: list[int], lengths: list[int], skips: Skips, path: Path) -> Float[Tensor, "B V"]:
        device = self.decoder.device
        return self.decoder.forward(
            torch.tensor(tokens, device=device)[:, None],
            torch.tensor(lengths, device=device),
            self.cache,
            torch.arange(len(tokens), device=device),
            max(lengths) + 1,
            skips,
            path,
            in_place=True,
            alike=self._beginning_alike(),
        )

    def _beginning_alike(self) -> Alike | None:
        """For kernels, which then read the common beginnings of prompts once."""
        rows = tuple(row.index for row in self.active)
        if self.decoder.kernels is not None and rows != self._alike[0]:
            self._alike = rows, alike([row.prefix for row in self.active])
        return self._alike[1]

    def _said(self, logits: Float[Tensor, "B V"], rows: list[Row]) -> Said:
        return Said(decision(logits, self.sampling, self._uniforms(rows), self.decoder.kernels), len(rows))

    def _accept(self, rows: list[Row], said: Said) -> None:
        """Give every row that has not ended its next token."""
        if self.on_logits is not None:
            self.on_logits([row.index for row in rows], said.logits)
        for row, token, sure in zip(rows, *said.wait(), strict=True):
            if row.reason is not None:
                continue
            if self.broken is not None and not isfinite(sure):
                raise self.broken(row)
            row.accept(token, sure, self.eos_ids, self.on_token)
            if row.reason in (None, "length") and self.stops(row):
                row.reason = "stop"

    def _uniforms(self, rows: list[Row], ahead: int = 0) -> Float[Tensor, " B"] | None:
        """For the next token, or one that many further on; a row that will have ended gets its last again."""
        if self.sampling.is_greedy:
            return None
        drawn = [u[min(len(row.tokens) + ahead, len(u) - 1)] for row in rows if (u := row.uniforms) is not None]
        return torch.stack(drawn).to(self.decoder.device)

    def _leave(self) -> None:
        """Rows that ended leave; the last active rows move into their slots."""
        for slot in reversed(range(len(self.active))):
            if self.active[slot].reason is None:
                continue
            last = self.active.pop()
            if slot < len(self.active):
                self.active[slot] = last
                self.cache.move(len(self.active), slot, last.length)

    def _skips(self) -> tuple[Skips, Path]:
        """What this step leaves out: one set for all, or row by row while rows are at different segments."""
        schedule = self.stage_plan.schedule
        at = [schedule.segment_index(row.step) for row in self.active] if len(schedule.segments) > 1 else [0]
        segments = frozenset(at)
        sets = [schedule.segments[i].skipped for i in segments]
        everywhere = frozenset.intersection(*sets)
        some = frozenset.union(*sets) - everywhere
        masks = {
            layer: torch.tensor([layer in schedule.segments[i].skipped for i in at], device=self.decoder.device)
            for layer in some
        }
        skips = Skips(everywhere, masks, self.stand) if everywhere or masks else FULL
        if segments not in self._paths:
            self._paths[segments] = skips.path(self.decoder.layers)
        return skips, self._paths[segments]


def prefill(
    decoder: Decoder,
    cache: Cache,
    first_row: int,
    prompts: Sequence[TokenIds],
    prefixes: Sequence[Prefix | None],
    on_pass: OnPass | None = None,
    observe: Observer | None = None,
) -> Float[Tensor, "B V"]:
    """Fill cache rows ``first_row`` and following with prompts; raw logits after each one's last token.

    What a prefix holds is copied; only the rest is computed, in one forward of right-padded rows.
    """
    _copy(cache, first_row, prefixes)
    starts = [len(prefix.tokens) if prefix else 0 for prefix in prefixes]
    rest = [prompt[start:] for prompt, start in zip(prompts, starts, strict=True)]
    rows = [i for i, tokens in enumerate(rest) if tokens]
    logits = torch.empty(len(prompts), decoder.head.shape[0], dtype=decoder.dtype, device=decoder.device)
    for i, prefix in enumerate(prefixes):
        if prefix is not None and not rest[i]:
            logits[i] = prefix.logits
    if rows:
        logits[rows] = forward(decoder, cache, first_row, rows, rest, starts, observe)
        if on_pass is not None:
            tokens = sum(len(rest[i]) for i in rows)
            on_pass(Prefill(len(rows), tokens, max(len(prompts[i]) for i in rows)))
    return logits


def forward(
    decoder: Decoder,
    cache: Cache,
    first_row: int,
    rows: list[int],
    rest: Sequence[TokenIds],
    starts: list[int],
    observe: Observer | None = None,
) -> Float[Tensor, "B V"]:
    """Run the new tokens of some rows from their starts on; logits after each one's last.

    Kernels take them one behind the other, torch padded at the right.
    """
    device = decoder.device
    if decoder.kernels is not None and decoder.kernels.ragged and observe is None:
        ends = list(accumulate(len(rest[i]) for i in rows))
        return decoder.forward_ragged(
            torch.tensor([token for i in rows for token in rest[i]], device=device),
            torch.tensor([starts[i] + n for i in rows for n in range(len(rest[i]))], device=device),
            cache,
            torch.tensor([first_row + i for i in rows for _ in rest[i]], device=device),
            torch.tensor(ends, device=device) - 1,
        )
    width = max(len(rest[i]) for i in rows)
    return decoder.forward(
        torch.tensor([rest[i] + (0,) * (width - len(rest[i])) for i in rows], device=device),
        torch.tensor([starts[i] for i in rows], device=device),
        cache,
        torch.tensor([first_row + i for i in rows], device=device),
        max(starts[i] + len(rest[i]) for i in rows),
        last=torch.tensor([len(rest[i]) - 1 for i in rows], device=device),
        observe=observe,
    )


def _copy(cache: Cache, first_row: int, prefixes: Sequence[Prefix | None]) -> None:
    """Copy each distinct part of the prefixes to all the rows that start with it."""
    users: dict[Prefix, list[int]] = {}
    for i, prefix in enumerate(prefixes):
        for part in prefix.chain() if prefix else []:
            users.setdefault(part, []).append(first_row + i)
    for part, rows in users.items():
        cache.write(rows, part.start, part.content)

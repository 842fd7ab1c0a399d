"""Rows that decode side by side, whatever their plans and sampling: one forward of a token a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from litestage.core import Compensation, Decode, Prefill, SkipSet, TokenIds
from litestage.engine.row import Generation
from litestage.engine.sampling import decide_each
from litestage.engine.steps import Decision, FixedStep, FixedSteps, PendingTokens, decision
from litestage.engine.tree import shared_prefixes
from litestage.kernels import SharedPrefixes
from litestage.models.cache import Cache
from litestage.models.decoder import (
    CompensationWeights,
    Decoder,
    LayerProgram,
    Observer,
    Skips,
    Stretch,
    interleave,
)

OnPass = Callable[[Prefill | Decode], None]
OnLogits = Callable[[Sequence[int], Float[Tensor, "B V"]], None]
"""Called with requests' ids and the raw logits that decide their next token."""
PROGRAMS = 256
"""Layer programs that are remembered: a search asks for new ones with every skip set."""


class Program(NamedTuple):
    """What some rows run, and what it is known by."""

    skipped: SkipSet
    compensation: Compensation
    parts: LayerProgram


class Due(NamedTuple):
    """A forward on its way, and the rows whose next tokens it decides."""

    rows: list[Generation]
    pending: PendingTokens
    step: FixedStep | None = None

    @property
    def work(self) -> Decode | None:
        """None when nobody is left who needs it."""
        left = [row for row in self.rows if row.runs]
        if not left:
            return None
        return Decode(len(left), max(row.length for row in left) + 1, min(row.step for row in left))


class Batch:
    """Rows that decode. On a GPU those of one plan and sampling run by a fixed step, elsewhere all by one forward."""

    def __init__(self, decoder: Decoder, cache: Cache, fixed: FixedSteps | None = None) -> None:
        self.decoder, self.cache, self.fixed = decoder, cache, fixed
        self.active: list[Generation] = []
        self._ahead: list[Due] = []
        """Steps that were started before the ones in front of them were read."""
        self._programs: list[Program] = []
        self._interleaved: dict[tuple[int, ...], tuple[Stretch, ...]] = {}
        """By the programs of the rows."""
        self._shared: tuple[tuple[int, ...], SharedPrefixes | None] = ((), None)
        """Which rows begin alike, and of which rows that was found."""

    @property
    def is_ahead(self) -> bool:
        """Whether a step is under way that somebody waits for."""
        return any(one.work for one in self._ahead)

    def program(self, skipped: SkipSet, compensation: Compensation, weights: CompensationWeights) -> int:
        """The number of a layer program, which rows name it by."""
        for number, one in enumerate(self._programs):
            if one.skipped == skipped and (not skipped or one.compensation == compensation):
                return number
        self._programs.append(Program(skipped, compensation, Skips(skipped, weights).program(self.decoder.layers)))
        return len(self._programs) - 1

    def forget_programs(self) -> None:
        """When no row needs them; the numbers begin anew."""
        if len(self._programs) > PROGRAMS:
            self._programs, self._interleaved = [], {}

    def decode(self, ahead: bool) -> list[Due]:
        """Forwards that decide a token for every active row.

        With ``ahead``, fixed steps go on by themselves: the next is started before this one is read, so that a device
        makes one token while its host takes in another. Where a row ends, that is the last step of these rows.
        """
        due, self._ahead = [one for one in self._ahead if one.work], []
        known = {row.id for one in due for row in one.rows}
        rest = [row for row in self.active if row.id not in known]
        if self.fixed is not None:
            due += [self._start(self.fixed, rows) for rows in self._by_kind(rest)]
        elif rest:
            due.append(self._forward(rest))
        if ahead:
            self._ahead = [Due(one.rows, self._go_on(one), one.step) for one in due if self._goes_on(one)]
        return due

    def _by_kind(self, rows: Sequence[Generation]) -> list[list[Generation]]:
        kinds: dict[object, list[Generation]] = {}
        for row in rows:
            kinds.setdefault((row.program, row.request.sampling), []).append(row)
        return list(kinds.values())

    def _start(self, fixed: FixedSteps, rows: list[Generation]) -> Due:
        program, sampling = self._programs[rows[0].program], rows[0].request.sampling
        lengths = [row.length for row in rows]
        step = fixed.step(program.skipped, program.compensation, sampling, program.parts, len(rows), max(lengths) + 1)
        places = [row.cache_row for row in rows]
        return Due(rows, step.start([row.tokens[-1] for row in rows], lengths, places, self._uniforms(rows)), step)

    def _goes_on(self, due: Due) -> bool:
        """Whether the next step is the same for all these rows and no others, and any of them may come to it."""
        first = due.rows[0]
        return (
            due.step is not None
            and all(row.runs for row in due.rows)
            and len(first.programs) == 1
            and max(row.length for row in due.rows) + 2 <= due.step.context
            and any(len(row.tokens) + 1 < row.max_new_tokens for row in due.rows)
            and [len(rows) for rows in self._by_kind(self.active) if first in rows] == [len(due.rows)]
        )

    def _go_on(self, due: Due) -> PendingTokens:
        assert due.step is not None
        return due.step.go_on(self._uniforms(due.rows, 1))

    def _forward(self, rows: list[Generation]) -> Due:
        device = self.decoder.device
        places = [row.cache_row for row in rows]
        lengths = [row.length for row in rows]
        step = self.decoder.step(
            1,
            torch.tensor(lengths, device=device),
            self.cache,
            torch.tensor(places, device=device),
            max(lengths) + 1,
            in_place=places == list(range(len(rows))),
            shared=self._sharing(rows),
        )
        tokens = torch.tensor([row.tokens[-1] for row in rows], device=device)
        return Due(rows, self.decide(self.decoder.forward(tokens[:, None], step, self._interleave(rows)), rows))

    def _interleave(self, rows: Sequence[Generation]) -> tuple[Stretch, ...]:
        used = tuple(row.program for row in rows)
        if used not in self._interleaved:
            if len(self._interleaved) >= PROGRAMS:
                self._interleaved.clear()
            numbers = sorted(set(used))
            parts = [self._programs[number].parts for number in numbers]
            self._interleaved[used] = interleave(parts, [numbers.index(number) for number in used])
        return self._interleaved[used]

    def _sharing(self, rows: Sequence[Generation]) -> SharedPrefixes | None:
        """For kernels, which then read the common beginnings of prompts once."""
        if self.decoder.kernels is None:
            return None
        ids = tuple(row.id for row in rows)
        if ids != self._shared[0]:
            self._shared = ids, shared_prefixes([(row.cache_row, row.request.prompt_ids) for row in rows])
        return self._shared[1]

    def decide(self, logits: Float[Tensor, "B V"], rows: Sequence[Generation]) -> PendingTokens:
        """The rows' next tokens, each drawn as its request says."""
        samplings = [row.request.sampling for row in rows]
        uniforms, kernels = self._uniforms(rows), self.decoder.kernels
        if uniforms is None or len(set(samplings)) == 1:
            decided = decision(logits, samplings[0], uniforms, kernels)
        else:
            parts = decide_each(logits, samplings, uniforms, kernels)
            decided = Decision(logits, torch.stack([part.float() for part in parts]))
        return PendingTokens(decided, len(rows))

    def _uniforms(self, rows: Sequence[Generation], ahead: int = 0) -> Float[Tensor, " B"] | None:
        """For the next token, or one that many further on; a row that will have ended gets its last again.

        None where no row needs any.
        """
        if all(row.uniforms is None for row in rows):
            return None
        drawn = [0.0 if (u := row.uniforms) is None else u[min(len(row.tokens) + ahead, len(u) - 1)] for row in rows]
        return torch.tensor(drawn, device=self.decoder.device)

    def move(self, places: dict[int, int], fixed: FixedSteps | None) -> None:
        """The cache has other rows now, and other steps."""
        for row in self.active:
            row.cache_row = places[row.cache_row]
        self.fixed, self._ahead, self._shared = fixed, [], ((), None)


def prefill(
    decoder: Decoder,
    cache: Cache,
    rows: Sequence[int],
    tokens: Sequence[TokenIds],
    starts: Sequence[int],
    observe: Observer | None = None,
) -> Float[Tensor, "B V"]:
    """Run new tokens of some cache rows from their starts on, at full depth; raw logits after each row's last.

    Kernels take them one behind the other, torch padded at the right.
    """
    device = decoder.device
    ends = [start + len(one) for start, one in zip(starts, tokens, strict=True)]
    if decoder.kernels is not None and decoder.kernels.ragged and observe is None:
        return decoder.forward_ragged(
            torch.tensor([token for one in tokens for token in one], device=device),
            torch.tensor(
                [at for start, end in zip(starts, ends, strict=True) for at in range(start, end)], device=device
            ),
            cache,
            torch.tensor([row for row, one in zip(rows, tokens, strict=True) for _ in one], device=device),
            torch.tensor(list(accumulate(map(len, tokens))), device=device) - 1,
        )
    width = max(map(len, tokens))
    step = decoder.step(width, torch.tensor(starts, device=device), cache, torch.tensor(rows, device=device), max(ends))
    return decoder.forward(
        torch.tensor([one + (0,) * (width - len(one)) for one in tokens], device=device),
        step,
        last=torch.tensor([len(one) - 1 for one in tokens], device=device),
        observe=observe,
    )

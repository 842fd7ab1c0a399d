"""Rows that decode side by side, whatever their plans and sampling: one forward of a token a row, or of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
Propose = Callable[[Sequence[Generation]], Sequence[TokenIds]]
"""Called with rows that decode; what it guesses to follow the text of each, or nothing. A guess changes no text."""
PROGRAMS = 256
"""Layer programs that are remembered: a search asks for new ones with every skip set."""


class Program(NamedTuple):
    """What some rows run, and what it is known by."""

    skipped: SkipSet
    compensation: Compensation
    parts: LayerProgram


class Run(NamedTuple):
    """What a forward runs of a row: of its pending tokens as many as may be, and behind the last of them a draft.

    Each draft's token is there to be compared with what is decided in its place.
    """

    tokens: TokenIds
    draft: TokenIds = ()
    decides: int = 1
    """Tokens: the one behind the last pending, and one behind each of the draft's; none while some still pend."""

    @classmethod
    def of(cls, row: Generation, guess: TokenIds, eos_ids: Sequence[int]) -> Run:
        """A row's next, with as much of a guess as can count: of this segment, up to the last token and an EOS."""
        pending, most = row.tokens[row.ran :], row.most_tokens
        if len(pending) > most:
            return cls(tuple(pending[:most]), decides=0)
        draft = () if row.request.choices else guess[: most - len(pending)]
        for place, token in enumerate(draft):
            if token in eos_ids:
                draft = draft[:place]
                break
        return cls((*pending, *draft), draft, 1 + len(draft))

    @property
    def pending(self) -> int:
        """Tokens that are the row's already."""
        return len(self.tokens) - len(self.draft)


class Decided(NamedTuple):
    """A token, the confidence, and the raw logits that both are of."""

    token: int
    confidence: float
    logits: Float[Tensor, " V"]


class Due(NamedTuple):
    """A forward on its way, and the rows whose next tokens it decides."""

    rows: list[Generation]
    runs: list[Run]
    pending: PendingTokens
    step: FixedStep | None = None

    @property
    def work(self) -> Decode | None:
        """None when nobody is left who needs it."""
        left = [(row, run) for row, run in zip(self.rows, self.runs, strict=True) if row.runs]
        if not left:
            return None
        return Decode(
            len(left),
            max(row.length + len(run.tokens) for row, run in left),
            min(row.step for row, _ in left),
            sum(len(run.tokens) - 1 for _, run in left),
            sum(len(run.draft) for _, run in left),
        )

    def one_by_one(self) -> tuple[list[int], Float[Tensor, "B V"]]:
        """Rows' ids and the logits that decide their next token, where nothing was drafted."""
        deciding = [
            (place, row.id) for place, (row, run) in enumerate(zip(self.rows, self.runs, strict=True)) if run.decides
        ]
        logits = self.pending.logits
        if self.step is not None and self.step.width > 1:
            logits = logits[[place * self.step.width + self.runs[place].pending - 1 for place, _ in deciding]]
        return [id for _, id in deciding], logits

    def decided(self) -> Iterator[tuple[Generation, Run, list[Decided]]]:
        """Each row with what was decided for it, whether its draft leads there or not."""
        tokens, confidences = self.pending.wait()
        decisions = list(map(Decided, tokens, confidences, self.pending.logits))
        width, at = 0 if self.step is None else self.step.width, 0
        for row, run in zip(self.rows, self.runs, strict=True):
            first = at + run.pending - 1 if width > 1 else at
            yield row, run, decisions[first : first + run.decides]
            at += width or run.decides


class Batch:
    """Rows that decode. On a GPU those of one plan and sampling run by a fixed step, elsewhere all by one forward."""

    def __init__(
        self, decoder: Decoder, cache: Cache, fixed: FixedSteps | None = None, eos_ids: tuple[int, ...] = ()
    ) -> None:
        self.decoder, self.cache, self.fixed, self.eos_ids = decoder, cache, fixed, eos_ids
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

    def decode(self, ahead: bool, propose: Propose | None = None) -> list[Due]:
        """Forwards that run what is pending of every active row, and decide the token behind it.

        What ``propose`` guesses to follow runs in the same forward. With ``ahead``, fixed steps go on by themselves:
        the next is started before this one is read, so that a device makes one token while its host takes in another.
        Where a row ends, that is the last step of these rows.
        """
        due, self._ahead = [one for one in self._ahead if one.work], []
        known = {row.id for one in due for row in one.rows}
        rest = [row for row in self.active if row.id not in known]
        guesses = propose(rest) if propose is not None and rest else [()] * len(rest)
        runs = {row.id: Run.of(row, guess, self.eos_ids) for row, guess in zip(rest, guesses, strict=True)}
        if self.fixed is not None:
            due += [self._start(self.fixed, rows, [runs[row.id] for row in rows]) for rows in self._by_kind(rest)]
        elif rest:
            due.append(self._forward(rest, list(runs.values())))
        if ahead and propose is None:
            self._ahead = [Due(one.rows, one.runs, self._go_on(one), one.step) for one in due if self._goes_on(one)]
        return due

    def _by_kind(self, rows: Sequence[Generation]) -> list[list[Generation]]:
        kinds: dict[object, list[Generation]] = {}
        for row in rows:
            kinds.setdefault((row.program, row.request.sampling), []).append(row)
        return list(kinds.values())

    def _start(self, fixed: FixedSteps, rows: list[Generation], runs: list[Run]) -> Due:
        program, sampling = self._programs[rows[0].program], rows[0].request.sampling
        lengths = [row.length for row in rows]
        width = max(len(run.tokens) for run in runs)
        step = fixed.step(
            *(program.skipped, program.compensation, sampling, program.parts),
            *(len(rows), max(lengths) + width, width),
        )
        first = [1 - run.pending for run in runs] if step.width > 1 else [0] * len(rows)
        drawn = [(row, place + at) for row, place in zip(rows, first, strict=True) for at in range(step.width)]
        tokens = [run.tokens for run in runs]
        pending = step.start(tokens, lengths, [row.cache_row for row in rows], self._uniforms(drawn))
        return Due(rows, runs, pending, step)

    def _goes_on(self, due: Due) -> bool:
        """Whether the next step is the same for all these rows and no others, and any of them may come to it."""
        first = due.rows[0]
        return (
            due.step is not None
            and due.step.width == 1
            and all(row.runs and not row.request.choices for row in due.rows)
            and all(run.decides == 1 for run in due.runs)
            and len(first.programs) == 1
            and max(row.length for row in due.rows) + 2 <= due.step.context
            and any(len(row.tokens) + 1 < row.max_new_tokens for row in due.rows)
            and [len(rows) for rows in self._by_kind(self.active) if first in rows] == [len(due.rows)]
        )

    def _go_on(self, due: Due) -> PendingTokens:
        assert due.step is not None
        return due.step.go_on(self._uniforms([(row, 1) for row in due.rows]))

    def _forward(self, rows: list[Generation], runs: list[Run]) -> Due:
        """Tokens one behind the other, each with its own position, as if every one were a row of a single token."""
        device = self.decoder.device
        tokens = [token for run in runs for token in run.tokens]
        owners = [place for place, run in enumerate(runs) for _ in run.tokens]
        positions = [at for row, run in zip(rows, runs, strict=True) for at in row.positions(len(run.tokens))]
        places = [rows[owner].cache_row for owner in owners]
        step = self.decoder.step(
            1,
            torch.tensor(positions, device=device),
            self.cache,
            torch.tensor(places, device=device),
            max(positions) + 1,
            in_place=places == list(range(len(rows))),
            shared=self._sharing(rows, owners),
        )
        ends = list(accumulate(len(run.tokens) for run in runs))
        wanted = [at for end, run in zip(ends, runs, strict=True) for at in range(end - run.decides, end)]
        logits = self.decoder.forward(
            torch.tensor(tokens, device=device)[:, None],
            step,
            self._interleave([rows[owner].program for owner in owners]),
            wanted=None if len(wanted) == len(tokens) else torch.tensor(wanted, dtype=torch.long, device=device),
        )
        drawn = [(row, at) for row, run in zip(rows, runs, strict=True) for at in range(run.decides)]
        return Due(rows, runs, self._decide(logits, drawn))

    def first(self, rows: list[Generation], logits: Float[Tensor, "B V"]) -> Due:
        """The rows' first tokens, of their prompts' logits."""
        return Due(rows, [Run(())] * len(rows), self._decide(logits, [(row, 0) for row in rows]))

    def _interleave(self, programs: Sequence[int]) -> tuple[Stretch, ...]:
        used = tuple(programs)
        if used not in self._interleaved:
            if len(self._interleaved) >= PROGRAMS:
                self._interleaved.clear()
            numbers = sorted(set(used))
            parts = [self._programs[number].parts for number in numbers]
            self._interleaved[used] = interleave(parts, [numbers.index(number) for number in used])
        return self._interleaved[used]

    def _sharing(self, rows: Sequence[Generation], owners: Sequence[int]) -> SharedPrefixes | None:
        """For kernels, which then read the common beginnings of prompts once; ``owners`` are the rows of tokens."""
        if self.decoder.kernels is None:
            return None
        ids = tuple(row.id for row in rows)
        if ids != self._shared[0]:
            self._shared = ids, shared_prefixes([(row.cache_row, row.opening) for row in rows])
        found = self._shared[1]
        if found is None or len(owners) == len(rows):
            return found
        at = torch.tensor(owners)
        return SharedPrefixes(found.leaders[at], found.slots[at])

    def _decide(self, logits: Float[Tensor, "N V"], drawn: Sequence[tuple[Generation, int]]) -> PendingTokens:
        """Tokens of rows, each drawn as its request says: the next one, or one that many further on."""
        if not drawn:  # all that ran is sure, as what answers by choice begin with
            return PendingTokens(Decision(logits, logits.new_empty(2, 0, dtype=torch.float)), 0)
        samplings = [row.request.sampling for row, _ in drawn]
        uniforms, kernels = self._uniforms(drawn), self.decoder.kernels
        if uniforms is None or len(set(samplings)) == 1:
            decided = decision(logits, samplings[0], uniforms, kernels)
        else:
            parts = decide_each(logits, samplings, uniforms, kernels)
            decided = Decision(logits, torch.stack([part.float() for part in parts]))
        return PendingTokens(decided, len(drawn))

    def _uniforms(self, drawn: Sequence[tuple[Generation, int]]) -> Float[Tensor, " N"] | None:
        """A row's own number for its next token, or for one that many further on: never the forward's.

        One that no token needs is another token's. None where no row needs any.
        """
        if all(row.uniforms is None for row, _ in drawn):
            return None
        numbers = [
            0.0 if (own := row.uniforms) is None else own[min(len(row.tokens) + ahead, len(own) - 1)]
            for row, ahead in drawn
        ]
        return torch.tensor(numbers, device=self.decoder.device)

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

"""The cost model: work is counted exactly and priced in seconds fitted to one machine (docs/how-it-works.md).

Decode step of B rows  = step(B) + attentions * (attention(B) + per_context(B) * context) + ffns * ffn(B)
                         + compensated * compensation(B), with kept attentions and FFNs, and operations that
                         stand in for skipped runs of sub-layers; context in tokens
Prefill                = forward + tokens * token + rows * row + tokens * context * token_context
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any, Protocol

import numpy as np
from pydantic import model_validator
from scipy.optimize import nnls

from litestage.core.conditions import Conditions
from litestage.core.errors import LitestageError
from litestage.core.layers import Record
from litestage.core.rows import Decode, Prefill


class Timing(Protocol):
    """One timed forward. The kept and compensated counts matter for decode steps; prefill is always full depth."""

    @property
    def work(self) -> Prefill | Decode: ...
    @property
    def seconds(self) -> float: ...
    @property
    def attentions(self) -> int: ...
    @property
    def ffns(self) -> int: ...
    @property
    def compensated(self) -> int: ...


class DecodeCost(Record):
    """Seconds of a decode step of ``rows`` rows, by its parts."""

    rows: int
    step: float
    attention: float
    per_context: float
    """For each attention and token of context."""
    ffn: float
    compensation: float


class PrefillCost(Record):
    """Seconds of a prefill, by its parts."""

    forward: float
    token: float
    row: float
    token_context: float


class FitError(Record):
    """How far fitted seconds lie from timed ones, as shares: 0.05 is 5 %."""

    timings: int
    """Different pieces of work timed; repeats count once, by their median."""
    median: float
    max: float


class CostModel(Record):
    """Prices of forwards on one machine, with the conditions they were timed under."""

    decode: tuple[DecodeCost, ...]
    """By rows, ascending, from one row on."""
    prefill: PrefillCost
    compensation_timed: bool
    decode_error: FitError
    prefill_error: FitError
    conditions: Conditions | None = None
    """Of the timing; its threads are those that decoded fastest."""

    @model_validator(mode="before")
    @classmethod
    def _from_before(cls, content: Any) -> Any:
        """Earlier versions said among the conditions what was timed."""
        if isinstance(content, dict) and isinstance(kept := content.get("conditions"), dict) and "stamp" in kept:
            return content | {"conditions": {name: value for name, value in kept.items() if name != "stamp"}}
        return content

    @property
    def threads(self) -> int:
        """Those that it was timed with."""
        return self.conditions.threads if self.conditions else 1

    def prefill_seconds(self, work: Prefill) -> float:
        """Seconds of one prefill forward."""
        cost = self.prefill
        per_token = cost.token + cost.token_context * work.context
        return cost.forward + cost.row * work.rows + per_token * work.tokens

    def decode_seconds(self, work: Decode, attentions: int, ffns: int, compensated: int = 0) -> float:
        """Seconds of one decode step with so many attentions and FFNs kept and so many stand-in operations."""
        base, per_context = self.decode_line(work.rows, attentions, ffns, compensated)
        return base + per_context * work.context

    def decode_line(self, rows: int, attentions: int, ffns: int, compensated: int = 0) -> tuple[float, float]:
        """A decode step's seconds without context, and for each token of context."""
        if compensated and not self.compensation_timed:
            raise LitestageError(
                "The cost model was fitted without compensated decode steps, so it cannot price a plan with "
                "compensation. Time the model again with compensation on."
            )
        cost = self.decode_cost(rows)
        base = cost.step + attentions * cost.attention + ffns * cost.ffn + compensated * cost.compensation
        return base, attentions * cost.per_context

    def decode_cost(self, rows: int) -> DecodeCost:
        """Linear between the row counts that were timed, and beyond the largest, where no part gets cheaper."""
        above = bisect_left([cost.rows for cost in self.decode], rows)
        if above < len(self.decode) and self.decode[above].rows == rows:
            return self.decode[above]
        if len(self.decode) < 2:
            raise LitestageError(
                f"Decode steps were timed with {self.decode[0].rows} row only, so steps of {rows} rows have no price. "
                "Time at least two row counts."
            )
        low, high = self.decode[above - 1 : above + 1] if above < len(self.decode) else self.decode[-2:]
        share = (rows - low.rows) / (high.rows - low.rows)
        parts = ((part, getattr(low, part), getattr(high, part)) for part in _DECODE_PARTS)
        mixed = {part: a + share * (b - a) if share < 1 else max(b, a + share * (b - a)) for part, a, b in parts}
        return DecodeCost(rows=rows, **mixed)


def fit(timings: Iterable[Timing], conditions: Conditions | None = None) -> CostModel:
    """Fit the model, each piece of work by the median of its repeats, to the least squared relative error.

    Raises `LitestageError` when the timings cannot tell the model's parts from each other.
    """
    prefills: _Repeats = defaultdict(list)
    decodes: dict[int, _Repeats] = defaultdict(lambda: defaultdict(list))
    for timing in timings:
        if isinstance(timing.work, Prefill):
            prefills[_prefill_parts(timing.work)].append(timing.seconds)
        else:
            decodes[timing.work.rows][_decode_parts(timing)].append(timing.seconds)
    if 1 not in decodes:
        raise LitestageError("Decode steps of one row were not timed, so steps of few rows have no price. Time them.")
    prefill, prefill_errors = _solve("prefills", prefills)
    solved = {rows: _solve(f"decode steps of {rows} rows", decodes[rows]) for rows in sorted(decodes)}
    return CostModel(
        decode=tuple(
            DecodeCost(rows=rows, **dict(zip(_DECODE_PARTS, values, strict=True)))
            for rows, (values, _) in solved.items()
        ),
        prefill=PrefillCost(**dict(zip(_PREFILL_PARTS, prefill, strict=True))),
        compensation_timed=all(any(parts[-1] for parts in group) for group in decodes.values()),
        decode_error=_fit_error(np.concatenate([errors for _, errors in solved.values()])),
        prefill_error=_fit_error(prefill_errors),
        conditions=conditions,
    )


_Parts = tuple[int, ...]
"""How often each part of the model occurs in a piece of work. Equal parts are repeats of the same work."""
_Repeats = dict[_Parts, list[float]]
_DECODE_PARTS = ("step", "attention", "per_context", "ffn", "compensation")
_PREFILL_PARTS = ("forward", "token", "row", "token_context")


def _decode_parts(timing: Timing) -> _Parts:
    return 1, timing.attentions, timing.attentions * timing.work.context, timing.ffns, timing.compensated


def _prefill_parts(work: Prefill) -> _Parts:
    return 1, work.tokens, work.rows, work.tokens * work.context


def _solve(what: str, repeats: _Repeats) -> tuple[list[float], np.ndarray]:
    """Non-negative seconds of each part, and the relative error of each piece of work.

    Repeats count by their median, so that a hiccup of the machine does not bend the fit.
    """
    matrix = np.array(list(repeats), dtype=float, ndmin=2)
    seconds = np.array([median(times) for times in repeats.values()])
    scale = matrix.max(axis=0, initial=0)
    used = scale > 0
    if not repeats or np.linalg.matrix_rank(matrix[:, used] / scale[used]) < used.sum():
        raise LitestageError(
            f"The timings of {what} ({len(repeats)} different ones) cannot tell the model's parts apart. "
            "Vary attentions, FFNs, context, rows and tokens independently of each other."
        )
    solution = np.zeros(matrix.shape[1])
    scaled, _ = nnls(matrix[:, used] / scale[used] / seconds[:, None], np.ones(len(seconds)))
    solution[used] = scaled / scale[used]
    return solution.tolist(), np.abs(matrix @ solution / seconds - 1)


def _fit_error(errors: np.ndarray) -> FitError:
    return FitError(timings=len(errors), median=float(np.median(errors)), max=float(errors.max()))

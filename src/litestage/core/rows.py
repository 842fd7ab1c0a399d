"""Row scheduling as a pure function of lengths: the engine obeys it, and the cost model prices it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Row:
    """Lengths of one generation in tokens: prompt to compute, prompt copied from a prefix, decode steps to run.

    ``joined`` tokens of its text are among those to compute. ``runs`` are the tokens of each decode forward, where not
    every one runs a single token.
    """

    prefill: int
    reused: int
    decode: int
    joined: int = 0
    runs: tuple[int, ...] = ()

    def forwards(self) -> Iterator[tuple[int, int]]:
        """Of each decode forward: decode steps before it, and the tokens that it runs."""
        step = self.joined
        for tokens in self.runs or (1,) * self.decode:
            yield step, tokens
            step += tokens


@dataclass(frozen=True, slots=True)
class Prefill:
    """One forward over prompts: how many rows, their new tokens in all, and the longest context among them.

    Rows whose prompt is there already need no forward and are not counted.
    """

    rows: int
    tokens: int
    context: int


@dataclass(frozen=True, slots=True)
class Decode:
    """One forward of rows that decode: how many, the longest context, and the lowest decode step among them.

    Each row runs a token, and ``more`` are run besides: what a row had pending, and drafts (``drafted``).
    """

    rows: int
    context: int
    step: int
    more: int = 0
    drafted: int = field(default=0, compare=False)

    @property
    def tokens(self) -> int:
        """That it runs."""
        return self.rows + self.more


PREFILL_TOKENS = 2048
"""Most tokens, padding included, of one prefill: bounds its activations, and fills any processor."""

BEGINNING = 8
"""Fewest tokens that are prefilled apart for all rows that begin with them: fewer cost more in a forward of their own
than they save."""


def rows_to_admit(active: int, waiting: Sequence[int], capacity: int) -> int:
    """How many waiting rows enter now, given the tokens each has to prefill.

    A quarter of the slots must be free, or enough for all that wait, so that prefills come few and large.
    """
    free = capacity - active
    if active and free < min(max(1, capacity // 4), len(waiting)):
        return 0
    admitted, longest = 0, 0
    for tokens in waiting[:free]:
        longest = max(longest, tokens)
        if admitted and longest * (admitted + 1) > PREFILL_TOKENS:
            break
        admitted += 1
    return admitted


def passes(rows: Sequence[Row], capacity: int) -> Iterator[Prefill | Decode]:
    """The forwards that an engine with ``capacity`` slots runs for these rows, in order.

    Long prompts come first, so that those that are padded together are of about one length. A row leaves in the step
    that decides its last token, and its slot is free from then on.
    """
    waiting = sorted(rows, key=lambda row: -row.prefill)
    active: list[tuple[Row, list[tuple[int, int]], int]] = []
    """With its forwards, and how many of them have run."""
    while waiting or active:
        sizes = [row.prefill for row in waiting[:capacity]]
        if admitted := waiting[: rows_to_admit(len(active), sizes, capacity)]:
            del waiting[: len(admitted)]
            if new := [row for row in admitted if row.prefill]:
                yield Prefill(len(new), sum(row.prefill for row in new), max(row.prefill + row.reused for row in new))
            active += [(row, list(row.forwards()), 0) for row in admitted if row.decode]
            continue
        now = [(row.prefill + row.reused - row.joined, *forwards[done]) for row, forwards, done in active]
        context = max(prompt + step + tokens for prompt, step, tokens in now)
        more = sum(tokens - 1 for _, _, tokens in now)
        yield Decode(len(active), context, min(step for _, step, _ in now), more)
        active = [(row, forwards, done + 1) for row, forwards, done in active if done + 1 < len(forwards)]


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return bisect_left(range(1, most + 1), True, key=lambda length: one[:length] != other[:length])


def shared_lengths(prompts: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    """How many tokens each prompt shares with another one, at most; all of them where two are equal."""
    counts = Counter(prompts)
    ordered = sorted(counts)
    between = [0, *(common_length(one, other) for one, other in pairwise(ordered)), 0]
    return {
        prompt: len(prompt) if counts[prompt] > 1 else max(sides)
        for prompt, sides in zip(ordered, pairwise(between), strict=False)
    }


def shared_beginnings(
    prompts: Sequence[tuple[int, ...]], held: Sequence[int], least: int = BEGINNING
) -> list[tuple[int, ...]]:
    """Beginnings to prefill once before these prompts enter, of which ``held`` tokens are there; none if none pays.

    Each is the longest that some prompts share. Where several of those share much in turn, that comes first, and they
    come when they are asked for again.
    """
    there = dict(zip(prompts, held, strict=True))
    found = {
        prompt[:length]: there[prompt]
        for prompt, length in shared_lengths(prompts).items()
        if length - there[prompt] >= least
    }
    whole = [one for one in found if sum(other[: len(one)] == one for other in found) == 1]  # and not in a longer one
    if len(whole) < 2:
        return whole
    first = shared_beginnings(whole, [found[one] for one in whole], 2 * least)
    return first + [one for one in whole if not any(one[: len(other)] == other for other in first)]

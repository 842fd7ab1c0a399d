"""A search that is asked and told: it says which trials it wants, and hears what they showed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

from litestage.search.trial import Measure, Trial, TrialResult

T = TypeVar("T")
Batch = tuple[Trial, ...]
"""Trials that do not depend on each other."""
Strategy = Generator[Batch, Sequence[TrialResult], T]
"""Asks for a batch, is sent its results in the same order, and returns what it found."""


class Search(Generic[T]):
    """Drives a strategy for whoever measures: one machine trial by trial, or many side by side.

    Results may come in any order, and twice. What is asked for next is decided when the whole batch is there, so that
    the outcome does not depend on who was quick.
    """

    def __init__(self, strategy: Strategy[T]) -> None:
        self._strategy = strategy
        self._asked: set[Trial] = set()
        self._batch: Batch = ()
        self._told: dict[Trial, TrialResult] = {}
        self._found: list[T] = []
        self._go_on(lambda: next(strategy))

    @property
    def wanted(self) -> Batch:
        """Trials to measure now, in any order; none once the search is over."""
        return tuple(trial for trial in self._batch if trial not in self._told)

    @property
    def is_over(self) -> bool:
        return bool(self._found)

    @property
    def outcome(self) -> T:
        """What was found; raises ValueError while trials are wanted."""
        if not self._found:
            raise ValueError(f"the search is not over: {len(self.wanted)} trials are wanted")
        return self._found[0]

    def tell(self, trial: Trial, result: TrialResult) -> None:
        """Take in a result; one that is known already changes nothing.

        Raises ValueError for a trial that was not asked for, and for a result that does not answer it.
        """
        if trial not in self._asked:
            raise ValueError(f"told of {trial.candidate}, which was not asked for")
        if trial not in self.wanted:
            return
        trial.check(result)
        self._told[trial] = result
        if not self.wanted:
            results = [self._told[one] for one in self._batch]
            self._told = {}
            self._go_on(lambda: self._strategy.send(results))

    def _go_on(self, step: Callable[[], Batch]) -> None:
        try:
            self._batch = step()
        except StopIteration as end:
            self._batch = ()
            self._found.append(end.value)
        self._asked.update(self._batch)


def one_by_one(search: Search[T], measure: Measure) -> T:
    """Measure what is wanted on one machine, until the search is over."""
    while not search.is_over:
        for trial in search.wanted:
            search.tell(trial, measure(trial))
    return search.outcome

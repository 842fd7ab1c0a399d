"""What trials will ask, answered by a cluster's workers side by side, before each is looked at in its turn.

A trial that is run afterwards finds its texts in the store of completions. So it records what it would have recorded on
one machine, however many workers there are, and in whatever order they answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from litestage.core import Trace
from litestage.jobs.trials import Trials
from litestage.pipeline import Answering, Flow, Spine, unanswered
from litestage.search import Search, Trial

T = TypeVar("T")
SIDE_BY_SIDE = 4
"""Trials that a search on a cluster asks for at a time. Not one for each worker: how many there are must not change
what a search records."""


def measured(search: Search[T], trials: Trials) -> T:
    """Measure what a search wants until it is over; on a cluster trials that do not depend on each other together."""
    while not search.is_over:
        wanted = search.wanted
        if trials.session.capacity:
            answer_ahead(trials, wanted)
        for trial in wanted:
            search.tell(trial, trials.run(trial))
    return search.outcome


def answer_ahead(trials: Trials, wanted: Sequence[Trial]) -> None:
    """Answer what the trials ask, each until it is settled; what is then still under way for it is cancelled.

    Half as many questions as the workers take requests are under way: most have several.
    """
    session, flow = trials.session, Flow(trials.session.stored)
    races = [_Race(trials, trial, flow) for trial in wanted]
    session.progress.start(f"{len(races)} settings side by side", sum(len(trial.order) for trial in wanted))
    try:
        while going := [race for race in races if not race.is_over]:
            for race in going:
                race.start(max(1, session.capacity // 2 // len(going)))
            for one in flow.step():
                for race in races:  # none, where its race was settled by one that came with it
                    if one in race.under_way:
                        race.take(one)
                session.progress.advance()
    finally:
        flow.cancel_all()
    if flow.unanswered:
        raise unanswered(flow.unanswered)


class _Race:
    """A trial whose questions are under way; their answers are looked at in the trial's own order and groups."""

    def __init__(self, trials: Trials, trial: Trial, flow: Flow) -> None:
        self.under_way: dict[Answering, int] = {}
        """With the question's number."""
        self._questions, self._flow = trials.questions, flow
        plan = trials.plan(trial.candidate)
        self._spine = Spine(trials.session.stored, trials.session.task, plan)
        self._racing = trials.racing(plan, trial)
        self._group: Sequence[int] | None = next(self._racing, None)
        self._to_start = iter(trial.order)
        self._came: dict[int, Trace] = {}

    @property
    def is_over(self) -> bool:
        """Whether the trial is settled, or a question of it cannot be answered."""
        return self._group is None or any(one.question.id in self._flow.unanswered for one in self.under_way)

    def start(self, at_once: int) -> None:
        """Have so many questions under way, or those that are left."""
        while len(self.under_way) < at_once and (number := next(self._to_start, None)) is not None:
            one = self._spine.start(self._questions[number])
            self.under_way[one] = number
            self._flow.start(one)

    def take(self, one: Answering) -> None:
        """Take in an answer; where that settles the trial, drop the others."""
        self._came[self.under_way.pop(one)] = one.trace()
        while self._group is not None and all(number in self._came for number in self._group):
            try:
                self._group = self._racing.send([self._came[number] for number in self._group])
            except StopIteration:
                self._group = None
        if self._group is None:
            for other in self.under_way:
                self._flow.cancel(other)
            self.under_way = {}

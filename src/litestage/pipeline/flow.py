"""Questions on their way side by side, each at its own pace: no worker waits for the slowest question of a group."""

from __future__ import annotations

from collections.abc import Sequence

from litestage.core import Completion, Engine, Event, Failed, Finished, Plan, Trace
from litestage.pipeline.run import NOBODY, Listener, unanswered
from litestage.pipeline.spine import ONCE, Answering, Spine, Votes
from litestage.tasks.question import Question
from litestage.tasks.task import Task


class Flow:
    """Answerings on one engine: each asks for its next stage as soon as the one before is there."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asking: dict[int, Answering] = {}
        """By the engine's ids."""
        self._came: dict[Answering, dict[int, Completion | None]] = {}
        """What each waits for, in the order of its requests."""
        self._done: list[Answering] = []
        self.unanswered: dict[str, str] = {}
        """Why questions could not be answered, by their ids. Nothing more comes of them."""

    @property
    def under_way(self) -> int:
        return len(self._came) + len(self._done)

    def start(self, one: Answering) -> None:
        """Set an answering on its way."""
        while one.stage is not None:
            if requests := one.requests():
                came = self._came[one] = {}
                for request in requests:
                    id = self._engine.add(request)
                    came[id], self._asking[id] = None, one
                return
            one.take([])
        self._done.append(one)

    def cancel(self, one: Answering) -> None:
        """Drop an answering, wherever it is."""
        for id in self._came.pop(one, ()):
            if self._asking.pop(id, None):
                self._engine.cancel(id)

    def cancel_all(self) -> None:
        for one in list(self._came):
            self.cancel(one)

    def step(self) -> list[Answering]:
        """One step of the engine; the answerings that are done."""
        if not self._done:
            for event in self._engine.step():
                self._hear(event)
        done, self._done = self._done, []
        return done

    def _hear(self, event: Event) -> None:
        if not isinstance(event, Finished | Failed) or (one := self._asking.pop(event.id, None)) is None:
            return
        if isinstance(event, Failed):
            stage = one.stage.name if one.stage else ""
            self.unanswered[one.question.id] = f"In stage {stage}: {event.reason}"
            self.cancel(one)
            return
        came = self._came[one]
        came[event.id] = event.completion
        if None not in came.values():
            del self._came[one]
            one.take([completion for completion in came.values() if completion])
            self.start(one)


def flow(
    engine: Engine,
    task: Task,
    questions: Sequence[Question],
    plan: Plan,
    votes: Votes = ONCE,
    *,
    at_once: int,
    tell: Listener = NOBODY,
) -> list[Trace]:
    """As `run`, of votes that do not stop, with so many questions on their way ``at_once``. Whoever listens hears
    traces, in the order they come.

    Raises `LitestageError` where some could not be answered, once all others are.
    """
    spine, going = Spine(engine, task, plan, votes), Flow(engine)
    traces: dict[tuple[str, int], Trace] = {}
    waiting = iter([(question, vote) for question in questions for vote in range(votes.count or 1)])
    try:
        while True:
            while going.under_way < at_once and (following := next(waiting, None)) is not None:
                going.start(spine.start(*following))
            if not going.under_way:
                break
            done = [one.trace() for one in going.step()]
            traces |= {(trace.question_id, trace.vote): trace for trace in done}
            if done and tell.on_traces is not None:
                tell.on_traces(done)
    except BaseException:  # nobody will ask for the others
        going.cancel_all()
        raise
    if going.unanswered:
        raise unanswered(going.unanswered)
    return [traces[question.id, vote] for question in questions for vote in range(votes.count or 1)]

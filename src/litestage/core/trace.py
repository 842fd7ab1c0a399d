"""The record of one question going through all stages."""

from __future__ import annotations

from litestage.core.layers import Record
from litestage.core.request import Completion
from litestage.core.shown import Shown


class StageTrace(Record):
    """One stage of one question: prompts and completions, one a branch, in choice order."""

    name: str
    prompts: tuple[str, ...]
    prompt_tokens: tuple[int, ...]
    """Length of each branch's prompt in tokens; 0 for one that did not fit the context and was not run."""
    shared_tokens: int
    """Leading prompt tokens that all branches of this question have in common with each other or an earlier stage."""
    header_tokens: int
    """Leading prompt tokens that every question of the stage shares (few-shot examples): prefilled once a run."""
    reused_tokens: int = 0
    """Leading prompt tokens already computed by an earlier stage or question."""
    text: str
    """What later stages see of this stage: the branches joined."""
    completions: tuple[Completion, ...]

    @classmethod
    def left_out(cls, name: str) -> StageTrace:
        """Of a stage that the plan does not run."""
        return cls(name=name, prompts=(), prompt_tokens=(), shared_tokens=0, header_tokens=0, text="", completions=())

    @property
    def no_room(self) -> bool:
        """Whether its prompts were not run because earlier stages wrote too much, here or before."""
        return any(done.finish_reason == "no_room" for done in self.completions)


class Trace(Record, Shown):
    """One question, one vote: every stage and the answer that came of it."""

    question_id: str
    vote: int = 0
    stages: tuple[StageTrace, ...]
    answer: int | None
    """Index of the chosen answer; None when the text did not parse, or a stage had no room."""
    gold: int | None = None
    """Index of the right answer; None when unknown."""

    @property
    def no_room(self) -> bool:
        """Whether some stage had none."""
        return any(stage.no_room for stage in self.stages)

    @property
    def choices(self) -> tuple[float, ...]:
        """How probable each choice was, where the answer was one by choice; empty where it was free."""
        return self.stages[-1].completions[-1].choices

    @property
    def margin(self) -> float | None:
        """How much more probable the answer was than the next choice; None where it was free."""
        return self.stages[-1].completions[-1].margin

    @property
    def correct(self) -> bool:
        return self.answer is not None and self.answer == self.gold

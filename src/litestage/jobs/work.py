"""The work that a plan's texts are, without the texts: enough to price them again, for another machine or batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from litestage.core import Completion, Counts, DataError, Plan, StageTrace, Trace
from litestage.core.complaints import problem
from litestage.core.files import write_text
from litestage.core.layers import Record

WORK_FILE = "work.json"


class StageWork(Record):
    """Token counts of one stage of one question, a branch each."""

    prompts: tuple[int, ...]
    decoded: tuple[int, ...]
    joined: tuple[int, ...] = ()
    asked: tuple[tuple[int, ...], ...] = ()
    """Of answers by choice; empty where every token was asked for."""
    shared: int
    header: int
    reused: int


class Work(Record):
    """A plan, and what each question's stages were under it."""

    plan: Plan
    questions: dict[str, tuple[StageWork, ...]]
    """By id, in the order they were asked."""
    correct: tuple[bool, ...]

    @classmethod
    def of(cls, traces: Sequence[Trace], plan: Plan) -> Work:
        return cls(
            plan=plan,
            questions={trace.question_id: tuple(_counts(stage) for stage in trace.stages) for trace in traces},
            correct=tuple(trace.correct for trace in traces),
        )

    def traces(self) -> list[Trace]:
        """Traces with the same counts, and no text: what pricing looks at."""
        names = list(self.plan.stages)
        return [
            Trace(
                question_id=question,
                stages=tuple(_stage(name, stage) for name, stage in zip(names, stages, strict=True)),
                answer=None,
            )
            for question, stages in self.questions.items()
        ]


def _counts(stage: StageTrace) -> StageWork:
    return StageWork(
        prompts=stage.prompt_tokens,
        decoded=tuple(done.counts.decoded for done in stage.completions),
        joined=tuple(done.counts.joined for done in stage.completions),
        asked=tuple(done.asked for done in stage.completions),
        shared=stage.shared_tokens,
        header=stage.header_tokens,
        reused=stage.reused_tokens,
    )


def _stage(name: str, work: StageWork) -> StageTrace:
    branches = zip_longest(work.decoded, work.joined, work.asked)  # files of before have no more than the first
    return StageTrace(
        name=name,
        prompts=("",) * len(work.prompts),
        prompt_tokens=work.prompts,
        shared_tokens=work.shared,
        header_tokens=work.header,
        reused_tokens=work.reused,
        text="",
        completions=tuple(
            Completion(
                token_ids=(0,) * (steps + 1),
                text="",
                confidences=(),
                finish_reason="eos",
                counts=Counts(decoded=steps, joined=joined or 0),
                asked=asked or (),
            )
            for steps, joined, asked in branches
        ),
    )


_WORKS = TypeAdapter(dict[str, Work])


def keep_work(folder: Path, works: Mapping[str, Work]) -> None:
    """Write the work of several plans beside them."""
    write_text(folder / WORK_FILE, _WORKS.dump_json(dict(works)).decode() + "\n")


def read_work(folder: str | Path) -> dict[str, Work]:
    """The work of a finished search; raises `DataError` for a folder that holds none."""
    path = Path(folder) / WORK_FILE if Path(folder).is_dir() else Path(folder).parent / WORK_FILE
    try:
        return _WORKS.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"No counted work at {path} ({error.strerror}): searches of earlier versions, and plans written by hand, "
            "have none. Search again, or measure the plan with `litestage evaluate --plan DIR`."
        ) from None
    except ValidationError as error:
        raise DataError(f"{path}: {problem(error, None, {})}. Search again.") from None

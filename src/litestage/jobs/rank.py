"""Step 1: rank sub-layers by redundancy on the task's own prompts."""

from __future__ import annotations

from collections.abc import Sequence

from litestage.core import Compensation, OptionError, StagePlan, StageTrace, SubLayer, TokenIds, Trace
from litestage.jobs.session import Session
from litestage.pipeline import header_of
from litestage.skipping import Ranking, fit_norm_ratio, rank_sub_layers, redundancy
from litestage.tasks import Stage

RANKING_FILE = "ranking.json"
ADASKIP_PROMPTS = 20
"""Prompts that the norm ratio is fitted on (AdaSkip's released code)."""


def rank_traces(session: Session, traces: Sequence[Trace]) -> Ranking:
    """Score every sub-layer on the prompts of full-depth traces; remembered.

    Raises `OptionError` when a stage has no prompt that the model could read.
    """
    check_room(session, traces)
    work = {stage.name: stage_prompts(session, stage, i, traces) for i, stage in enumerate(session.task.stages)}

    def ranked() -> Ranking:
        session.progress.start("ranking sub-layers", len(work))
        by_stage = {}
        for name, (prompts, prefixes) in work.items():
            by_stage[name] = redundancy(session.engine, prompts, prefixes)
            session.progress.advance()
        return rank_sub_layers(by_stage)

    return session.folder.remember(RANKING_FILE, [work], Ranking, ranked)


def stage_prompts(
    session: Session, stage: Stage, index: int, traces: Sequence[Trace]
) -> tuple[list[TokenIds], list[TokenIds]]:
    """The stage's prompts as token ids, and the beginnings that several of them share."""
    encoded = [
        [session.engine.encode(prompt, session.task.chat) for prompt in prompts_run(trace.stages[index])]
        for trace in traces
    ]
    shared = [ids[0][: trace.stages[index].shared_tokens] for trace, ids in zip(traces, encoded, strict=True) if ids]
    prefixes = dict.fromkeys([header_of(session.engine, session.task, stage), *shared])
    return [ids for some in encoded for ids in some], [prefix for prefix in prefixes if prefix]


def check_room(session: Session, traces: Sequence[Trace]) -> None:
    """Raise `OptionError` for a stage of which no prompt fits the context: nothing of it can be ranked."""
    for index, name in enumerate(session.task.stage_names):
        if not any(prompts_run(trace.stages[index]) for trace in traces):
            shots = len(session.task.shots)
            fewer = f"fewer worked examples than --shots {shots}, or " if shots else ""
            raise OptionError(
                f"No prompt of stage {name} fits the {session.engine.max_context} tokens that "
                f"{session.engine.identity.id} reads, so its sub-layers cannot be ranked. Give "
                f"{fewer}shorter questions."
            )


def prompts_run(stage: StageTrace) -> list[str]:
    """The stage's prompts without those that did not fit the context."""
    return [prompt for prompt, tokens in zip(stage.prompts, stage.prompt_tokens, strict=True) if tokens]


def stage_redundancy(session: Session, traces: Sequence[Trace], stage: str) -> dict[SubLayer, float]:
    """One stage's scores on its own prompts; raises as `rank_traces`."""
    check_room(session, traces)
    index = session.task.stage_names.index(stage)
    return redundancy(session.engine, *stage_prompts(session, session.task.stages[index], index, traces))


def fit_compensation(session: Session, kind: str, traces: Sequence[Trace]) -> Compensation:
    """Fit what stands in for skipped sub-layers on the first prompts of the run, all stages, in question order."""
    if kind == "none":
        return StagePlan().compensation
    prompts = [prompt for trace in traces[:ADASKIP_PROMPTS] for stage in trace.stages for prompt in prompts_run(stage)]
    ids = [session.engine.encode(prompt, session.task.chat) for prompt in prompts[:ADASKIP_PROMPTS]]
    compensation, stand = fit_norm_ratio(session.engine, ids)
    session.engine.stands[compensation.content or ""] = stand
    return compensation

"""An evaluation in the terminal: one plan alone, and what several votes come to."""

from __future__ import annotations

from litestage.evaluation import Accuracy, StoppedVotes, VoteAccuracy
from litestage.report import words
from litestage.report.table import Column, Table, name
from litestage.results import Performance


def performance(measured: Performance, title: str) -> Table:
    """One performance, per stage and in all."""
    accuracy, whole = measured.accuracy, measured.total
    said = [f"Accuracy {words.accuracy(accuracy)}; {accuracy.correct} of {accuracy.n} right"]
    said.append(f"None rate {words.percent(accuracy.none_percent)}")
    if measured.wall_seconds is not None:
        said.append(f"{words.seconds(measured.wall_seconds)} a question by the clock")
    return Table(
        title=title,
        records=(*measured.stages, whole),
        columns=(
            name("Stage", lambda stage: stage.name),
            Column("Latency", lambda stage: words.seconds(stage.seconds)),
            Column("Prefill", lambda stage: words.share(stage.prefill_share)),
            Column("Tokens", lambda stage: f"{stage.tokens:.1f}"),
            Column("Decode steps", lambda stage: f"{stage.decode_steps:.1f}"),
            Column("Prompt tokens", lambda stage: f"{stage.prompt_tokens:.1f}"),
            Column("Exits", lambda stage: words.share(stage.early_exit_share)),
        ),
        note=". ".join(said) + ".",
        tone=lambda stage: "strong" if stage is whole else "plain",
    )


def votes(voted: VoteAccuracy | StoppedVotes) -> Table:
    """What several votes a question come to: a run's mean accuracy, and the majorities'."""
    records: list[tuple[str, Accuracy]]
    if isinstance(voted, StoppedVotes):
        records = [(f"maj@{voted.votes}", voted.majority)]
        note = (
            f"{voted.drawn:.1f} of {voted.votes} votes drawn a question; the rule left "
            f"{words.share(1 - voted.drawn / voted.votes)} undrawn. A single run's accuracy cannot be told from votes "
            "that stop: questions on which they disagree draw more."
        )
    else:
        records = [("one run, mean", voted.of_runs), *((f"maj@{k}", right) for k, right in voted.majority.items())]
        error = "" if voted.standard_error is None else f" (standard error {voted.standard_error:.1f} points)"
        note = (
            f"{voted.votes} votes on each of {voted.questions} questions; maj@k is the majority of the first k. The "
            f"run's interval is clustered by question{error}."
        )
    return Table(
        title="Votes",
        records=records,
        columns=(
            name("", lambda entry: entry[0]),
            Column("Accuracy", lambda entry: words.percent(entry[1].percent)),
            Column("95 % interval", lambda entry: words.interval(entry[1].low, entry[1].high)),
            Column("None rate", lambda entry: words.percent(entry[1].none_percent)),
        ),
        note=note,
        tone=lambda entry: "strong" if entry is records[-1] else "plain",
    )

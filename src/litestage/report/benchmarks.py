"""Benchmarks of the engine: their tables and figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean, median
from typing import Any

from litestage.core import Machine
from litestage.report import words
from litestage.report.chart import Axis, Key, Ranges, Style
from litestage.report.page import Figure, Panel
from litestage.report.table import Column, Table, each, name
from litestage.results import (
    AllBench,
    DecodeBench,
    DraftBench,
    DropInBench,
    DropInMemory,
    LadderBench,
    MemoryBench,
    PipelineBench,
    PrecisionBench,
    Rung,
    SearchBench,
    StepTime,
)

BOUND_NOTE = (
    "Share of bound: the time that reading the step's weights and cache from memory takes, at the {rate:.1f} GB/s "
    "measured here, over the step's time; what stays in the processor's cache can make it more than 100 %."
)
EFFICIENCY_NOTE = "Efficiency: time saved over the full step's, divided by the share of weight bytes left out."
AIR = "\N{NO-BREAK SPACE}" * 6
"""In front of labels: browsers set them wider than the program that measures them."""
OURS, OTHERS = Style("plan", "square"), Style("full", "square")


def _where(machine: Machine | None) -> str:
    """A sentence on what was measured; nothing for records that do not tell."""
    return f" Measured on {machine.hardware} ({machine.device})." if machine else ""


def precisions(bench: PrecisionBench) -> Table:
    """Tokens and answers of each precision."""
    first = bench.forms[0]
    return Table(
        title=f"Precisions of {bench.model} on {bench.task}: {first.accuracy.n} questions, {bench.shots} examples"
        + (", answers by choice" * (bench.conditions.answers == "choice")),
        records=bench.forms,
        columns=(
            name("Precision", lambda one: one.precision),
            Column("Same tokens", lambda one: words.percent(100 * one.agreement)),
            Column("KL", lambda one: f"{one.kl:.4f}"),
            Column("Accuracy", lambda one: words.accuracy(one.accuracy)),
            Column("Against fp32", lambda one: words.difference(one.paired)),
        ),
        note=f"Same tokens: of {first.tokens} in fp32's own texts, those whose likeliest successor stays the "
        f"same. KL in nats. Intervals are 95 %, those against fp32 paired by question.{_where(bench.conditions)}",
    )


def searches(bench: SearchBench) -> Table:
    """Seconds of a search by precision, and what it chose."""
    first = bench.forms[0]
    return Table(
        title=f"A search: {bench.model} on {bench.task}, {first.questions} questions",
        records=bench.forms,
        columns=(
            name("Precision", lambda one: one.precision),
            Column("Seconds", lambda one: f"{one.seconds:.1f}"),
            Column("Ratio", lambda one: words.times(first.seconds / one.seconds)),
            Column("Settings", lambda one: str(one.settings)),
            Column("Questions", lambda one: str(one.answered)),
            Column("Accuracy", lambda one: words.percent(one.percent)),
            *each(first.skipped, lambda stage, one: str(one.skipped[stage])),
        ),
        note="Questions: over all settings. Accuracy and sub-layers skipped by stage: of the plan that each found.",
    )


def memory(bench: MemoryBench) -> Table:
    """Where the megabytes are."""
    rounds = bench.after_rounds_mb
    megabytes = {
        "Python with torch and transformers": bench.imported_mb,
        "Weights": bench.weights_mb,
        "Cache and kept prefixes": bench.cache_mb,
        "All else": bench.overhead_mb,
        "Together, after the last round": rounds[-1],
        "After the first round": rounds[0],
        "While loading, at most": bench.loading_peak_mb,
    }
    return Table(
        title=f"Memory: {bench.model} on {bench.task}, {bench.precision}",
        records=list(megabytes.items()),
        columns=(name("", lambda entry: entry[0]), Column("MB", lambda entry: f"{entry[1]:.0f}")),
        note=f"Resident memory of the process, after {len(rounds)} rounds of {bench.questions} questions.",
    )


def pipeline(bench: PipelineBench) -> Table:
    """Questions a second by system, each with more of the engine than the one before."""
    greedy = bench.votes is None
    how = "greedy" if greedy else f"{bench.votes} votes"
    last = Column("Same texts", lambda one: words.percent(100 * one.same_texts))
    by_token = " A token: the same of the time a token, as sampled texts differ in length."
    return Table(
        title=f"Questions a second: {bench.model} on {bench.task}, {bench.precision}, {bench.shots} examples, {how}"
        + (", answers by choice" * (bench.conditions.answers == "choice")),
        records=bench.systems,
        columns=(
            name("", lambda one: one.system),
            Column("Rows", lambda one: str(one.batch_size)),
            Column("Questions", lambda one: str(one.questions)),
            Column("Seconds each", lambda one: words.seconds(one.seconds / one.questions)),
            Column("Tokens each", lambda one: f"{one.tokens / one.questions:.0f}"),
            Column("Ratio", lambda one: words.times(one.ratio)),
            last if greedy else Column("A token", lambda one: words.times(one.token_ratio)),
        ),
        note="Rows: how many decode together. Ratio: the first line's time over this one's on the same questions, the "
        f"median of groups answered in turn.{'' if greedy else by_token}{_where(bench.conditions)}",
    )


def drafts(bench: DraftBench) -> Table:
    """Seconds, forwards and tokens of a question, without drafts and with them."""
    how = "greedy" if bench.votes is None else f"{bench.votes} votes"
    kinds = {"none": [one.without for one in bench.counted], bench.source: [one.drafted for one in bench.counted]}
    ratios = dict(zip(kinds, (1.0, bench.ratio), strict=True))
    same = sum(one.same_texts for one in bench.counted)
    sums = bench.speedup
    return Table(
        title=f"Drafts, a question at a time: {bench.model} on {bench.task}, {bench.precision}, "
        f"{bench.shots} examples, {how}",
        records=list(kinds),
        columns=(
            name("Drafts", lambda one: one),
            Column("Median question", lambda one: words.seconds(median(run.seconds for run in kinds[one]))),
            Column("Forwards", lambda one: f"{fmean(run.forwards for run in kinds[one]):.1f}"),
            Column("Their tokens", lambda one: f"{fmean(run.tokens for run in kinds[one]):.1f}"),
            Column("Ratio", lambda one: words.times(ratios[one])),
        ),
        note=f"{len(bench.counted)} questions after {bench.warm}; {same} have the same tokens and confidences. "
        f"Ratio: of medians; all seconds together {sums.speedup:.2f} times ({sums.low:.2f} to {sums.high:.2f})."
        f"{_where(bench.conditions)}",
    )


def decode(bench: DecodeBench) -> list[Table]:
    """Engines at full depth, what skipping saves, and what stand-ins cost where any were timed."""
    compensated = [kind for kind in _kinds(bench) if kind[1] != "none"]
    plain = [kind for kind in _kinds(bench) if kind[1] == "none"]
    costs = _saved(bench, [*plain[:1], *compensated], "What stand-ins cost: a step, and its skip efficiency")
    saves = _saved(bench, plain, "What skipping saves: a step, and its skip efficiency")
    return [
        full_depth(bench),
        *([prefills(bench)] if bench.prefills else []),
        *([costs] if compensated else []),
        *([saves] if plain else []),
    ]


def full_depth(bench: DecodeBench) -> Table:
    """Engines at full depth, by rows, the fastest of each first."""
    return Table(
        title=f"A decode step at full depth: {bench.model}, {bench.context} tokens before it",
        records=[step for rows in _rows(bench) for step in _fastest(bench, rows)],
        columns=(
            Column("Rows", lambda step: str(step.rows)),
            name("Engine", lambda step: step.title),
            Column("Step", lambda step: _ms(step.ms_per_step)),
            Column("Quartiles", lambda step: f"{_digits(step.ms_low)}–{_digits(step.ms_high)}"),
            Column("Tokens a second", lambda step: f"{step.tokens_per_s:.0f}"),
            Column(
                "Share of bound",
                lambda step: words.NOTHING if step.bound_share is None else words.share(step.bound_share),
            ),
        ),
        note=BOUND_NOTE.format(rate=bench.bandwidth) + _clock(bench) + _where(bench.conditions),
        tone=lambda step: "plain" if step.ours else "dim",
        sortable=True,
    )


def drop_in(bench: DropInBench) -> Table:
    """A step at full depth and under the plan, and memory, by what decodes."""
    rows = sorted({step.rows for step in bench.steps})
    known = {(_inside(step), step.precision, step.rows, step.full_depth): step for step in bench.steps}

    def cell(of: tuple[int, bool], one: DropInMemory) -> str:
        return _ms(known[one.engine, one.precision, *of].ms_per_step)

    def gain(count: int, one: DropInMemory) -> str:
        full, plan = (known[one.engine, one.precision, count, whole] for whole in (True, False))
        return words.times(full.ms_per_step / plan.ms_per_step)

    return Table(
        title=f"A plan inside transformers, and in the engine: {bench.model}, {bench.context} tokens before a step",
        records=bench.memory,
        columns=(
            name("", lambda one: f"{one.engine} {one.dtype if one.quantisation == 'none' else one.quantisation}"),
            *(
                column
                for count in rows
                for column in (
                    Column(f"{count} row{'s' * (count > 1)}", partial(cell, (count, True))),
                    Column("Under a plan", partial(cell, (count, False))),
                    Column("Ratio", partial(gain, count)),
                )
            ),
            Column("MB", lambda one: f"{one.loaded_mb:.0f}"),
            Column("MB at most", lambda one: f"{one.peak_mb:.0f}"),
        ),
        note="The plan leaves out every second block. Medians of samples taken in turn. Generate runs it by "
        f"apply_plan. MB: resident memory of a process of its own, with Python and torch.{_where(bench.conditions)}",
    )


def _inside(step: StepTime) -> str:
    """Whose model a step runs in: a plan's steps inside `generate` are those of `generate`'s process."""
    return step.engine if step.ours else "generate"


def _clock(bench: DecodeBench) -> str:
    return " Processor time of a single thread." if bench.clock == "processor" else ""


def prefills(bench: DecodeBench) -> Table:
    """Prefills of one fresh prompt, the fastest first."""
    return Table(
        title=f"Prefill of a fresh prompt of {bench.prefills[0].tokens} tokens: {bench.model}",
        records=sorted(bench.prefills, key=lambda one: one.ms),
        columns=(
            name("Engine", lambda one: one.title),
            Column("Prefill", lambda one: _ms(one.ms)),
            Column("Quartiles", lambda one: f"{_digits(one.ms_low)}–{_digits(one.ms_high)}"),
            Column("Tokens a second", lambda one: f"{1e3 * one.tokens / one.ms:.0f}"),
        ),
        note=f"With the token that it decides.{_clock(bench)}{_where(bench.conditions)}",
        tone=lambda one: "plain" if one.ours else "dim",
        sortable=True,
    )


def _rows(bench: DecodeBench) -> list[int]:
    return sorted({step.rows for step in bench.steps})


def _fastest(bench: DecodeBench, rows: int) -> list[StepTime]:
    here = [step for step in bench.steps if step.rows == rows and step.full_depth]
    return sorted(here, key=lambda step: step.ms_per_step)


def _ms(value: float) -> str:
    return f"{_digits(value)} ms"


def _digits(value: float) -> str:
    """Of milliseconds: three that count below 10, since a GPU's step may be a fraction of one."""
    size = abs(value)
    return f"{value:.{3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0}f}"


Kind = tuple[str, str]
"""What is left out, and what stands in for it."""


def _kinds(bench: DecodeBench) -> list[Kind]:
    """What our steps leave out, in the order of timing."""
    ours = [step for step in bench.steps if step.ours and not step.full_depth]
    return list(dict.fromkeys((step.skipped, step.compensation) for step in ours))


def _saved(bench: DecodeBench, kinds: Sequence[Kind], title: str) -> Table:
    """A step of ours at full depth, and with each kind of skipping."""
    ours = [step for step in bench.steps if step.ours]
    known = {(step.precision, step.rows, step.skipped, step.compensation): step for step in ours}

    def cell(kind: Kind, full: StepTime) -> str:
        step = known[full.precision, full.rows, *kind]
        return f"{_ms(step.ms_per_step)}, {step.efficiency or 0:.2f}"

    return Table(
        title=title,
        records=[step for step in ours if step.full_depth],
        columns=(
            name("Precision", lambda full: full.precision),
            Column("Rows", lambda full: str(full.rows)),
            Column("Full depth", lambda full: _ms(full.ms_per_step)),
            *each(kinds, cell, lambda kind: kind[0] if kind[1] == "none" else kind[1]),
        ),
        note=EFFICIENCY_NOTE + _where(bench.conditions),
    )


def decode_figure(bench: DecodeBench) -> Figure:
    """Tokens a second of each engine, a panel for each number of rows."""
    place = f" on {bench.conditions.device}" if bench.conditions else ""
    panels = [Panel((_bars(_fastest(bench, rows), f"{rows} row{'s' * (rows > 1)}{place}"),)) for rows in _rows(bench)]
    described = f"Tokens a second at full depth, by engine and rows.{_where(bench.conditions)}"
    return Figure("decode", described, tuple(panels), (Key("litestage", OURS), Key("others", OTHERS)))


def _bars(steps: Sequence[StepTime], title: str) -> Ranges:
    return Ranges(
        records=steps,
        label=lambda step: step.title,
        low=lambda step: 0.0,
        high=lambda step: step.tokens_per_s,
        style=lambda step: OURS if step.ours else OTHERS,
        across=Axis("tokens a second", (0.0, 1.2 * max(step.tokens_per_s for step in steps)), 4, padding=0),
        text=lambda step: f"{step.tokens_per_s:.0f}",
        title=title,
        step=20,
        bar=11,
        label_room=190,
    )


def ladder(bench: LadderBench) -> Table:
    """Seconds a question by rung, and what each costs in points."""
    return Table(
        title=f"Seconds a question: {bench.model} on {bench.task}, {bench.precision}, {bench.shots} examples, greedy, "
        f"one at a time, {bench.questions} questions",
        records=bench.rungs,
        columns=(
            name("", _rung),
            Column("Seconds", lambda one: words.seconds(one.seconds)),
            Column("Ratio", lambda one: f"{words.times(one.ratio)} ({one.low:.2f}–{one.high:.2f})"),
            Column("Accuracy", lambda one: words.accuracy(one.accuracy)),
            Column("Change", lambda one: words.difference(one.paired)),
            Column("Same texts", lambda one: words.percent(100 * one.same_texts)),
        ),
        note="Each line has all of the lines above it. Ratio: the first line's time over this one's, with its 95 % "
        "interval over questions, which all lines answered in turn. Change: of accuracy, paired with the first line's. "
        f"Each line had answered {bench.warm} other questions before, which drafts remember. "
        f"The plan: {bench.plan}.{_where(bench.conditions)}",
    )


def _rung(rung: Rung) -> str:
    return rung.name if rung.name == "transformers" else f"+ {rung.adds}"


def ladder_figure(bench: LadderBench) -> Figure:
    """The ladder: a bar of seconds a rung, and behind it how many times as fast and what it costs in points."""
    slowest = max(rung.seconds for rung in bench.rungs)
    bars = Ranges(
        records=bench.rungs,
        label=lambda rung: rung.name if rung.name == "transformers" else f"{AIR}+ {rung.name}",
        low=lambda rung: 0.0,
        high=lambda rung: rung.seconds,
        style=lambda rung: OTHERS if rung.name == "transformers" else OURS,
        across=Axis("seconds a question", (0.0, 1.45 * slowest), 5, padding=0),
        text=_said,
        title=f"{bench.model} on {bench.task}, {bench.precision}, one question at a time",
        step=30,
        bar=18,
        label_room=240,
    )
    described = (
        f"Seconds a question by rung, from transformers up to a skip plan.{_where(bench.conditions)} "
        f"{bench.questions} questions."
    )
    return Figure("ladder", described, (Panel((bars,)),), (Key("litestage", OURS), Key("transformers", OTHERS)))


def _said(rung: Rung) -> str:
    points = "" if rung.change_points == 0 else f", {rung.change_points:+.1f} points".replace("-", "\N{MINUS SIGN}")
    seconds = words.seconds(rung.seconds)
    return seconds if rung.name == "transformers" else f"{seconds}, {words.times(rung.ratio)}{points}"


def everything(bench: AllBench) -> list[Table]:
    """Which tokens are right, what was timed, and the tables of that."""
    drawn: dict[str, Callable[[dict[str, Any]], list[Table]]] = {
        "accuracy": lambda part: [precisions(PrecisionBench.model_validate(part))],
        "decode": lambda part: decode(DecodeBench.model_validate(part)),
        "pipeline": lambda part: [pipeline(PipelineBench.model_validate(part))],
        "ladder": lambda part: [ladder(LadderBench.model_validate(part))],
    }
    tables = [table for name, part in bench.parts.items() for table in drawn[name.partition(":")[0]](part)]
    return [_checks(bench), _parts(bench), *tables]


def _checks(bench: AllBench) -> Table:
    return Table(
        title="Tokens: " + ("right" if bench.right else "NOT RIGHT"),
        records=bench.checks,
        columns=(
            name("Check", lambda one: one.name),
            Column("Precision", lambda one: one.precision),
            Column("Same", lambda one: f"{one.same} of {one.of}"),
            Column("", lambda one: "right" if one.right else "wrong"),
        ),
        note="Where a token's numbers depend on its neighbours, rounding may part rows from what they are alone.",
    )


def _parts(bench: AllBench) -> Table:
    return Table(
        title="Parts",
        records=list(bench.seconds | dict.fromkeys(bench.failed, 0.0) | bench.seconds),
        columns=(
            name("", lambda part: part),
            Column("Took", lambda part: words.seconds(bench.seconds.get(part, 0.0))),
            Column("", lambda part: bench.failed.get(part, "done")),
        ),
        note="What failed or was left out is not in the tables below.",
    )

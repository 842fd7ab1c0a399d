"""A diagnosis in words: where losses begin to show, what skipping buys before, and what entropy and exit say."""

from __future__ import annotations

from collections.abc import Iterator

from litestage.report import words
from litestage.report.diagnosis_figures import change
from litestage.results import Diagnosis, Sweep, SweepPoint

SHARP = 10.0
"""Points: where smaller losses cannot show, up to which budget none shows is no headline."""
FEWEST = 6
"""Questions that must turn wrong, with none turned right, for McNemar's test to call it a loss at 5 %."""


def borne(sweep: Sweep) -> int:
    """The largest budget below the first one that loses accuracy beyond chance: no proof that it loses nothing."""
    kept = 0
    for point in sweep.skipping:
        if point.paired.can_tell and point.paired.difference < 0:
            break
        kept = point.budget
    return kept


def headline(diagnosis: Diagnosis) -> str:
    """Up to where no loss shows, in one line."""
    n, of = diagnosis.measured_on.used, 2 * diagnosis.model.num_blocks
    if 100 * FEWEST / n > SHARP:
        return f"{n} questions: too few to say how much a stage bears"
    bears = diagnosis.borne
    most, least = max(bears.values()), min(bears.values())
    if most == least == 0:
        return f"Every stage loses accuracy at {diagnosis.budgets[1]} of {of} sub-layers skipped"
    if most == least:
        return f"No loss beyond chance shows up to {most} of {of} sub-layers skipped, in any stage"
    strong = [name for name, count in bears.items() if count == most]
    weak = [name for name, count in bears.items() if count == least]
    up_to = f"up to {least}" if least else f"not even to {diagnosis.budgets[1]}"
    return (
        f"No loss beyond chance shows up to {most} of {of} sub-layers skipped in {words.listed(strong)}, "
        f"{up_to} in {words.listed(weak)}"
    )


def summary(diagnosis: Diagnosis) -> list[str]:
    """What a reader should take away, from the plainest to the finest."""
    return [
        f"{_losses(diagnosis)} {_resolution(diagnosis)}",
        *_gains(diagnosis),
        *_slower(diagnosis),
        _entropy(diagnosis),
        exit_effect(diagnosis),
    ]


def _losses(diagnosis: Diagnosis) -> str:
    """Where accuracy first falls beyond chance."""
    full, split = diagnosis.full, diagnosis.measured_on
    start = (
        f"On {split.used} {split.name} questions full depth is right on {words.percent(full.accuracy.percent)}, in "
        f"{words.seconds(full.total.seconds)} each"
    )
    first: dict[int, list[str]] = {}
    for sweep in diagnosis.alone:
        if borne(sweep) < diagnosis.budgets[-1]:
            first.setdefault(_next(diagnosis, borne(sweep)), []).append(sweep.stage or "")
    if not first:
        return f"{start}. No stage alone loses accuracy that so many questions could tell from chance."
    (budget, names), *later = sorted(first.items())
    parts = [f"{words.sub_layers(budget)} in {words.listed(names)}"]
    parts += [f"{budget} in {words.listed(names)}" for budget, names in later]
    shown = f"{start}. Where a stage skips alone, a loss beyond chance first shows at {', at '.join(parts)}"
    together = borne(diagnosis.together)
    if together == diagnosis.budgets[-1]:
        return f"{shown}."
    return f"{shown}; where all skip together, at {_next(diagnosis, together)}."


def _resolution(diagnosis: Diagnosis) -> str:
    """The smallest loss that so many questions can show."""
    n = diagnosis.measured_on.used
    if n < FEWEST:
        return "So few questions cannot show any loss at all: what follows says nothing of accuracy."
    return (
        "A loss counts where McNemar's test and the interval agree; "
        f"below {words.percent(100 * FEWEST / n)[:-2]} points none can show on so few."
    )


def _next(diagnosis: Diagnosis, budget: int) -> int:
    return diagnosis.budgets[diagnosis.budgets.index(budget) + 1]


def _gains(diagnosis: Diagnosis) -> Iterator[str]:
    """What each stage's skipping buys where it costs no accuracy that can be told."""
    full = diagnosis.full.total.seconds
    gains = {
        sweep.stage: 1 - min(point.seconds for point in sweep.points if point.budget <= borne(sweep)) / full
        for sweep in diagnosis.alone
    }
    if any(gain > 0 for gain in gains.values()):
        told = [f"{words.share(gain)} in {name}" for name, gain in sorted(gains.items(), key=lambda pair: -pair[1])]
        yield f"Before a loss shows, skipping saves at most this share of a question's time: {words.listed(told)}."


def _slower(diagnosis: Diagnosis) -> Iterator[str]:
    """The sharpest case of more skipping that takes more time."""
    rises = [
        (after.seconds / before.seconds, sweep, before, after)
        for sweep in diagnosis.sweeps
        for before, after in zip(sweep.points, sweep.points[1:], strict=False)
        if after.seconds > before.seconds
    ]
    if rises:
        _, sweep, before, after = max(rises, key=lambda rise: rise[0])
        where = "all stages" if sweep is diagnosis.together else sweep.stage
        yield (
            f"Skipping more is not always faster: from {before.budget} to {words.sub_layers(after.budget)} in {where} "
            f"a question goes from {words.seconds(before.seconds)} to {words.seconds(after.seconds)}"
            f"{_because(before, after)}."
        )


def _because(before: SweepPoint, after: SweepPoint) -> str:
    tokens = before.performance.total.tokens, after.performance.total.tokens
    return f", as the model writes {tokens[1]:.0f} tokens instead of {tokens[0]:.0f}" if tokens[1] > tokens[0] else ""


def _entropy(diagnosis: Diagnosis) -> str:
    """Whether the stage whose tokens vary least is the one that bears most, as one might think."""
    by_bits = sorted(diagnosis.entropy, key=lambda stage: stage.written.bits)
    least, most = by_bits[0], by_bits[-1]
    if least is most:
        return f"Its tokens have an entropy of {least.written.bits:.2f} bits."
    told = (
        f"The tokens of {least.name} vary least ({least.written.bits:.2f} bits; {most.written.bits:.2f} in {most.name})"
    )
    bears = diagnosis.borne
    if min(bears.values()) == max(bears.values()):
        return f"{told}, but losses show at the same budget in all stages."
    if bears[least.name] == max(bears.values()):
        return f"{told}, and in no stage does a loss show later."
    if bears[least.name] == min(bears.values()):
        return f"{told}, and yet in no stage does a loss show earlier: entropy alone would mislead."
    return f"{told}; a loss shows there neither first nor last."


def exit_effect(diagnosis: Diagnosis) -> str:
    """What the rule saves where it saves most, all stages together."""
    saved, point = best_exit(diagnosis)
    if not any(point.performance.total.early_exit_share for point in diagnosis.with_exit):
        return "The exit rule ends no text at any budget: the model stays sure of what it writes."
    verb = "saves" if saved >= 0 else "adds"
    if not point.paired.percent and not point.paired.baseline_percent:
        effect = "nothing is right with it or without it"
    elif point.paired.gained + point.paired.lost:
        effect = f"accuracy changes by {change(point.paired)}"
    else:
        effect = "no answer turns from right to wrong or back"
    return (
        f"The exit rule {verb} at most {words.percent(100 * abs(saved))} of the decode steps "
        f"(at {words.sub_layers(point.budget)} in all stages); {effect} there."
    )


def best_exit(diagnosis: Diagnosis) -> tuple[float, SweepPoint]:
    """The largest share of decode steps that exit saves, and the point where it does."""
    saved = [
        (_saved(before.performance.total.decode_steps, after.performance.total.decode_steps), after)
        for before, after in zip(diagnosis.together.points, diagnosis.with_exit, strict=True)
    ]
    return max(saved, key=lambda pair: pair[0])


def _saved(before: float, after: float) -> float:
    """Share of the steps; of no steps nothing can be saved."""
    return 1 - after / before if before else 0.0

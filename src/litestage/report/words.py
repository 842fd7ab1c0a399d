"""PlanResult in words: numbers as people read them, and the sentences at the top of a report."""

from __future__ import annotations

from litestage.core import ExitRule
from litestage.core.wording import listed as listed
from litestage.evaluation import Paired, Speedup
from litestage.results import PlanResult, PlanSearch

MINUS = "\N{MINUS SIGN}"


def percent(value: float) -> str:
    return f"{value:.1f} %"


def share(value: float) -> str:
    """A share of 0 to 1 in whole percent."""
    return f"{100 * value:.0f} %"


def signed(value: float, digits: int = 1) -> str:
    """With its sign; what rounds to zero has none."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else f"{MINUS if value < 0 else '+'}{text}"


def number(value: float, digits: int = 1) -> str:
    """With a minus sign where it is negative, and none where it is not."""
    return signed(value, digits).removeprefix("+")


def seconds(value: float) -> str:
    """About three digits in the unit that suits."""
    if value >= 120:
        return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
    if value >= 1:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    return f"{1000 * value:.0f} ms" if value >= 0.1 else f"{1000 * value:.1f} ms"


def times(value: float) -> str:
    return f"{value:.2f}×"


def interval(low: float, high: float, digits: int = 1) -> str:
    return f"{number(low, digits)} to {number(high, digits)}"


def p_value(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def sub_layers(count: int) -> str:
    return "1 sub-layer" if count == 1 else f"{count} sub-layers"


def drop(points: float) -> str:
    return "1 point" if points == 1 else f"{points:g} points"


def exit_rule(rule: ExitRule) -> str:
    """The rule as a clause that follows "a generation ends"."""
    return f"once the mean confidence of its last {rule.window} tokens falls below {rule.threshold:g}"


def headline(results: PlanResult) -> str:
    """The result in one line, for a title."""
    if results.is_full_depth:
        return "Nothing to leave out: the plan is the full model"
    change = signed(results.paired.difference)
    points = "the same accuracy" if change == "0.0" else f"{change} points of accuracy"
    if not results.wall.can_tell:
        return f"No difference in speed that the clock can tell, {points}"
    if results.wall.speedup < 1:
        return f"Slower: {times(results.wall.speedup)} the speed of full depth, {points}"
    return f"{times(results.wall.speedup)} faster, {points}"


def summary(results: PlanResult) -> list[str]:
    """What a reader should take away, honest when the plan is slower or the data cannot tell."""
    sentences = [speed(results.wall, results.is_full_depth), accuracy(results.paired)]
    if results.search:
        sentences += allowance(results.paired, results.search)
    return [*sentences, what_is_left_out(results), prefill(results)]


def speed(wall: Speedup, is_full_depth: bool = False) -> str:
    ends = f"95 % interval {interval(wall.low, wall.high, 2)}; {wall.n} questions by the wall clock"
    if is_full_depth:
        return f"The search found nothing to leave out, so the plan is the full model ({times(wall.speedup)}, {ends})."
    if not wall.can_tell:
        return f"The clock cannot tell the plan's speed from full depth's: {times(wall.speedup)} ({ends})."
    if wall.speedup < 1:
        return f"With this plan the model answers more slowly, at {times(wall.speedup)} full depth's speed ({ends})."
    return f"With this plan the model answers {times(wall.speedup)} faster ({ends})."


def accuracy(paired: Paired) -> str:
    """The change on the same questions, and whether they can tell."""
    change = (
        f"Accuracy goes from {percent(paired.baseline_percent)} to {percent(paired.percent)} "
        f"({signed(paired.difference)} points, 95 % interval {interval(paired.low, paired.high)}; n = {paired.n})"
    )
    test = f"McNemar {p_value(paired.p_value)}"
    if paired.can_tell:
        return f"{change}, a {'gain' if paired.difference > 0 else 'loss'} beyond chance ({test})."
    if not paired.gained + paired.lost:
        return f"{change}: not one answer turned from right to wrong or back."
    unsettled = f"{change}: these questions cannot settle which is more accurate ({test})."
    return f"{unsettled} A loss of {number(-paired.low)} points is not ruled out." if paired.low < 0 else unsettled


def allowance(paired: Paired, search: PlanSearch) -> list[str]:
    """Whether the loss that the search allowed was kept on questions it had not seen."""
    if paired.difference >= -search.max_drop:
        return []
    return [
        f"That is more than the {drop(search.max_drop)} that the search allowed, "
        f"which it kept on the {search.split.used} {search.split.name} questions it tuned on."
    ]


def what_is_left_out(results: PlanResult) -> str:
    counts = [f"{count or 'none'} in {name}" for name, count in results.num_skipped.items()]
    if not any(results.num_skipped.values()):
        skipped = "It skips no sub-layer"
    else:
        skipped = f"Of {2 * results.model.num_blocks} sub-layers it skips {listed(counts)}, while decoding only"
    if not results.exits:
        return f"{skipped}; no generation is ended early."
    rule = results.stage_plans[results.exits[0]].exit
    assert rule is not None  # `exits` names the stages that have one
    return f"{skipped}; in {listed(results.exits)} a generation ends {exit_rule(rule)}."


def prefill(results: PlanResult) -> str:
    return (
        f"Prefill, which always runs at full depth, takes {share(results.full.total.prefill_share)} of full depth's "
        f"time and {share(results.plan.total.prefill_share)} of the plan's."
    )

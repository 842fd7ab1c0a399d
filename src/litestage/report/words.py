"""How numbers and short phrases are written, on pages and in the terminal."""

from __future__ import annotations

from litestage.core import ExitRule
from litestage.core.complaints import listed
from litestage.evaluation import Accuracy, Paired, Speedup

MINUS = "\N{MINUS SIGN}"
NOTHING = "–"
"""In a cell without a number."""


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


def ends(paired: Paired) -> str:
    """Of the difference's 95 % interval."""
    return interval(paired.low, paired.high)


def difference(paired: Paired) -> str:
    """Points with their interval, for a cell."""
    return f"{signed(paired.difference)} ({ends(paired)})"


def change(paired: Paired) -> str:
    """The same in running text."""
    return f"{signed(paired.difference)} points ({ends(paired)})"


def accuracy(value: Accuracy) -> str:
    return f"{percent(value.percent)} ({value.low:.1f}–{value.high:.1f})"


def clock(wall: Speedup) -> str:
    return f"{times(wall.speedup)} ({wall.low:.2f}–{wall.high:.2f})"


def turns(wall: Speedup) -> str:
    """A sentence on how far the clock agrees with itself, behind another one; nothing where it had one turn."""
    return f" Its turns say {listed([times(turn) for turn in wall.turns])} by themselves." if wall.turns else ""


def sub_layers(count: int) -> str:
    return "1 sub-layer" if count == 1 else f"{count} sub-layers"


def drop(points: float) -> str:
    return "1 point" if points == 1 else f"{points:g} points"


def exit_rule(rule: ExitRule) -> str:
    """The rule as a clause that follows "a generation ends"."""
    return rule.clause


__all__ = [
    "MINUS", "NOTHING", "accuracy", "change", "clock", "difference", "drop", "ends", "exit_rule", "interval", "listed",
    "number", "p_value", "percent", "seconds", "share", "signed", "sub_layers", "times",
    "turns",
]  # fmt: skip

"""Works out the pages' figures from the files behind them, as results/figures.toml says: ``make figures``.

A line of a page is written there with ``{FILE PATH|FORMAT}`` in place of each figure. PATH leads through the file's
content; of files that keep which questions were right, every accuracy and difference is worked out anew.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from litestage.evaluation import Accuracy, Outcomes, Paired, Speedup, accuracy_of, bound, compare, worse
from litestage.report import words
from litestage.results import Comparison
from litestage.results.comparison import most_common

ROOT = Path(__file__).parents[1]
FIGURES = "results/figures.toml"
FIGURE = re.compile(r"\{(\w+) ([^{}|]+)\|([^{}|]+)\}")
SAME = 0.85
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


class Answers:
    """Who answered which questions right, of one method."""

    def __init__(self, right: Mapping[str, bool], more: Mapping[str, Any]) -> None:
        self.right, self.more = right, more

    def get(self, name: str) -> Any:
        match name:
            case "accuracy":
                return accuracy_of(list(self.right.values()), 0)
            case "right":
                return sum(self.right.values())
            case "n":
                return len(self.right)
        return self.more[name]


def read(path: Path) -> Any:
    """A file's content, its methods by name as `Answers` where it keeps what they answered."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("kind") == "comparison":
        return _comparison(Comparison.load(path))
    if isinstance(content.get("systems"), dict):
        return _systems(content)
    if "systems" in content:
        timed = [one | {"seconds_a_question": one["seconds"] / one["questions"]} for one in content["systems"]]
        return content | {"systems": timed}
    if "stages" in content and "answers" in content:
        return content | {
            "answers": dict(_budgets(content)),
            "largest": _largest(content),
            "surely_loses": _losses(content),
        }
    return content


def _comparison(found: Comparison) -> dict[str, Any]:
    full = found.full
    methods: dict[str, Any] = {}
    for one in found.results:
        right = {
            q: a is not None and a == g for q, a, g in zip(found.question_ids, one.answers, found.gold, strict=True)
        }
        methods[one.name] = Answers(
            right,
            {
                "priced": one.priced or one.speedup,
                "seconds": one.performance.total.seconds,
                "clock": one.wall,
                "steps": one.performance.total.decode_steps,
                "blocks": one.blocks_skipped,
                "exits": one.performance.total.early_exit_share,
                "none": one.performance.accuracy.none_percent,
                "fewer": _work(full.performance.total.decode_steps, 0, found.model.num_blocks)
                / _work(one.performance.total.decode_steps, one.blocks_a_step, found.model.num_blocks),
            },
        )
    answer, _ = most_common(found.gold)
    methods["provenance"] = found.provenance
    methods["constant"] = Answers({q: answer == g for q, g in zip(found.question_ids, found.gold, strict=True)}, {})
    return methods


def _work(steps: float, skipped: float, blocks: int) -> float:
    return steps * (blocks - skipped)


def _systems(content: Mapping[str, Any]) -> dict[str, Any]:
    """Files that keep the ids of the questions that each system answered right."""
    ids = _padded({q for one in content["systems"].values() for q in one["right"]}, content["questions"])
    return {name: Answers({q: q in set(one["right"]) for q in ids}, one) for name, one in content["systems"].items()}


def _padded(ids: set[str], count: int) -> list[str]:
    """So many questions: those that somebody answered, and as many more that nobody did."""
    return [*sorted(ids), *(f"never right {i}" for i in range(count - len(ids)))]


def _budgets(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for policy in content["answers"]:
        points = {}
        for point in policy["points"]:
            accuracy = point["accuracy"]
            points[str(point["budget"])] = {
                "accuracy": Accuracy(**accuracy),
                "paired": _recounted(Paired(**point["against_full"]), accuracy["correct"]),
                "right": point.get("right", ()),
                "n": accuracy["n"],
            }
        yield f"{policy['ranking']} + {policy['compensation']}", points


def _largest(content: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """By stage and policy, the largest budget that leaves `SAME` of the tokens as they were."""
    return {
        stage["stage"]: {
            f"{curve['ranking']} + {curve['compensation']}": max(
                (point["budget"] for point in curve["points"] if point["agreement"] >= SAME), default=0
            )
            for curve in stage["curves"]
        }
        for stage in content["stages"]
    }


def _losses(content: Mapping[str, Any]) -> dict[str, int | None]:
    """By policy, the first budget in every stage that loses answers beyond chance."""
    return {
        name: next((int(budget) for budget, point in points.items() if worse(point["paired"])), None)
        for name, points in _budgets(content)
    }


def _recounted(kept: Paired, right: int) -> Paired:
    """The interval of the counts that are kept: earlier versions kept a bootstrap's."""
    kinds = {(False, True): kept.gained, (True, False): kept.lost, (True, True): right - kept.gained}
    kinds[False, False] = kept.n - sum(kinds.values())
    pairs = [pair for pair, count in kinds.items() for _ in range(count)]
    before, after = ({str(i): pair[side] for i, pair in enumerate(pairs)} for side in (0, 1))
    return compare(before, after)


@cache
def file(name: str) -> Any:
    return read(ROOT / name)


def value(content: Any, path: str) -> Any:
    """What a path leads to; ``A <- B`` pairs the answers of A with those of B, ``A per B`` divides."""
    if " per " in path:
        over, under = (value(content, part) for part in path.split(" per "))
        return over / under
    if " <- " in path:
        system, baseline = (value(content, part) for part in path.split(" <- "))
        if isinstance(system, Answers):
            return compare(baseline.right, system.right)
        ids = _padded({*system["right"], *baseline["right"]}, system["n"])
        return compare({q: q in baseline["right"] for q in ids}, {q: q in system["right"] for q in ids})
    for step in path.split("/"):
        if isinstance(content, Answers):
            content = content.get(step)
        elif isinstance(content, Mapping):
            content = content[step]
        elif isinstance(content, list | tuple):
            content = content[int(step)] if step.isdecimal() else _one(content, step)
        else:
            content = getattr(content, step)
    return content


def _one(some: Sequence[Mapping[str, Any]], wanted: str) -> Any:
    """The entry whose fields are these: ``rows=1;dtype=fp32``."""
    fields = dict(part.split("=") for part in wanted.split(";"))
    (found,) = [one for one in some if all(str(one[name]) == is_ for name, is_ in fields.items())]
    return found


def _speedup(found: Any) -> str:
    if found is None:
        return words.NOTHING
    if isinstance(found, Speedup):
        return f"{words.times(found.speedup)} ({found.low:.2f} to {found.high:.2f})"
    return words.times(found)


FORMATS: dict[str, Callable[[Any], str]] = {
    "points": words.difference,
    "change": lambda paired: words.signed(paired.difference),
    "flips": lambda paired: f"{paired.gained}, {paired.lost}",
    "accuracy": lambda one: f"{one.percent:.1f} ({one.low:.1f} to {one.high:.1f})",
    "accuracy %": lambda one: f"{one.percent:.1f} % ({one.low:.1f} to {one.high:.1f})",
    "p": lambda paired: words.p_value(paired.p_value),
    "x": lambda found: words.times(found.speedup if isinstance(found, Speedup) else found),
    "speedup": _speedup,
    "bound": lambda paired: f"{bound(Outcomes(paired.lost, paired.gained, paired.n)):.1f}",
    "s": words.seconds,
    "ms": lambda seconds: f"{1000 * seconds:.1f}",
    "step": lambda ms: f"{ms:.1f}" if ms < 99.95 else f"{ms:.0f}",
    "step ms": lambda ms: f"{ms:.1f} ms" if ms < 99.95 else f"{ms:.0f} ms",
    "about": lambda number: f"{number:#.3g}".removesuffix("."),
    "%": lambda share: f"{100 * share:.0f}",
    "% .1": lambda share: f"{100 * share:.1f} %",
    "text": str,
}
"""Any other is Python's, for numbers."""


def shown(found: Any, how: str) -> str:
    if how in FORMATS:
        return FORMATS[how](found)
    return format(found, how).replace("-", words.MINUS)


def plain(text: str) -> str:
    """Without emphasis and line breaks."""
    return " ".join(text.replace("**", "").split())


def lines(page: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each line as it is declared, and as it has to stand on the page."""
    files = page["files"]
    for line in page["lines"]:
        yield line, plain(FIGURE.sub(lambda m: shown(value(file(files[m[1]]), m[2]), m[3]), line))


def faults(page: Mapping[str, Any]) -> Iterator[str]:
    """What stands on the page otherwise than in its files, and rows of numbers that no file is named for."""
    text = (ROOT / page["page"]).read_text(encoding="utf-8")
    whole = plain(text)
    there = [wanted for _, wanted in lines(page)]
    yield from (f"{page['page']} lacks: {wanted}" for wanted in there if wanted not in whole)
    bare = set(page.get("without_a_file", ()))
    for heading, row in rows(text):
        named = any(wanted in row for wanted in there)
        if heading not in bare and not named and re.search(r"(?<![\w])\d", CODE.sub("", row)):
            yield f"{page['page']}, {heading}: no file is named for {row}"


def rows(text: str) -> Iterator[tuple[str, str]]:
    """The rows of a page's tables, with the heading that they stand under; without their own headings."""
    heading = ""
    shown_lines = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
    for line, next_ in zip(shown_lines, [*shown_lines[1:], ""], strict=True):
        if line.startswith("#"):
            heading = line.lstrip("# ").strip()
        elif line.startswith("|") and not next_.startswith("| --"):
            yield heading, plain(line)


def declared() -> list[dict[str, Any]]:
    pages: list[dict[str, Any]] = tomllib.loads((ROOT / FIGURES).read_text(encoding="utf-8"))["page"]
    return pages


def main() -> int:
    found = [fault for page in declared() for fault in faults(page)]
    for fault in found:
        print(fault)
    count = sum(len(FIGURE.findall(line)) for page in declared() for line in page["lines"])
    for page in declared():
        for heading in page.get("without_a_file", ()):
            print(f"{page['page']}, {heading}: tables without a file, or without measurements: not checked")
    print(f"{count} figures on {len(declared())} pages, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

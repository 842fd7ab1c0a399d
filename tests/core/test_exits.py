"""Exit rules: one suite for all of them, and what each one says of hand-made values."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from litestage.core import (
    CalibratedConfidence,
    ExitRule,
    MeanConfidence,
    MeanEntropy,
    OptionError,
    SettledAnswer,
    parse_exit,
)
from litestage.core.exits import ExitRecord, Value

PATTERN = r"option ([A-Z])\."
RULES: tuple[ExitRule, ...] = (
    MeanConfidence(window=3, threshold=0.4),
    CalibratedConfidence(window=3, share=0.75, threshold=0.4),
    MeanEntropy(window=3, bits=2.5),
    SettledAnswer(window=3, pattern=PATTERN),
)
STAYS: dict[str, tuple[Value, Value]] = {"confidence": (0.9, 0.1), "entropy": (1.0, 4.0), "answer": (None, "B")}
"""By what is looked at: a value that goes on, and one that ends a text."""
READER: TypeAdapter[ExitRule] = TypeAdapter(ExitRule)


class Text(NamedTuple):
    confidences: tuple[float, ...]
    finish_reason: str = "length"


def test_every_rule_of_the_union_is_tried_here() -> None:
    union = get_args(get_args(ExitRule)[0])
    assert {get_args(member)[0] for member in union} == {type(rule) for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=str)
class TestContract:
    def test_it_is_a_value_that_outlives_its_file(self, rule: ExitRule) -> None:
        written = READER.dump_json(rule)
        again = READER.validate_json(written, strict=True)
        assert (again, hash(again), type(again)) == (rule, hash(rule), type(rule))
        with pytest.raises(ValidationError, match="frozen"):
            rule.window = 4  # type: ignore[misc]
        with pytest.raises(ValidationError, match="extra"):
            READER.validate_python({**READER.dump_python(rule), "turbo": 1})

    def test_a_window_below_its_least_is_refused(self, rule: ExitRule) -> None:
        with pytest.raises(ValidationError, match="window"):
            READER.validate_python({**READER.dump_python(rule), "window": 0})

    def test_a_whole_window_must_break_it(self, rule: ExitRule) -> None:
        stays, ends = STAYS[rule.looks_at]
        assert rule.first_exit([]) is None
        assert rule.first_exit([ends] * (rule.window - 1)) is None, "no window yet"
        assert rule.first_exit([ends] * 9) == rule.window - 1
        assert rule.first_exit([stays] * 9) is None
        late = rule.first_exit([stays] * 4 + [ends] * 9) or 0
        assert late in range(4, 4 + rule.window)
        assert late == rule.first_exit([stays] * 4 + [ends] * (late - 3)), "what comes later cannot matter"

    def test_only_the_last_window_is_looked_at(self, rule: ExitRule) -> None:
        """The engine keeps no more than that."""
        stays, ends = STAYS[rule.looks_at]
        for pattern in range(1 << 7):
            values = [ends if pattern >> i & 1 else stays for i in range(7)]
            slow = next((i for i in range(7) if i + 1 >= 3 and rule.broken_by(values[i - 2 : i + 1])), None)
            assert rule.first_exit(values) == slow

    def test_its_words_say_its_numbers(self, rule: ExitRule) -> None:
        assert str(rule.window) in rule.clause
        assert str(rule.window) in rule.short
        typed = parse_exit(str(rule))
        assert type(typed) is type(rule)
        assert typed.window == rule.window


@pytest.mark.parametrize(
    ("typed", "rule"),
    [
        ("5,0.5", MeanConfidence()),
        ("3,1", MeanConfidence(window=3, threshold=1)),
        ("calibrated:16,0.9", CalibratedConfidence()),
        ("entropy:5,3", MeanEntropy()),
        ("answer:2", SettledAnswer()),
    ],
)
def test_rules_as_they_are_typed(typed: str, rule: ExitRule) -> None:
    assert parse_exit(typed) == rule
    assert str(rule) == typed


@pytest.mark.parametrize(
    "typed",
    [
        *("", "5", "5,", "x,0.5", "0,0.5", "5,1.5", ":5,0.5", "entropy", "entropy:5", "entropy:5,-1", "answer:1"),
        *("answer:2,3", "calibrated:16,1", "sure:5,0.5", "5,0.5,1", "5,nan"),
    ],
)
def test_what_is_no_rule_is_refused_with_all_that_are(typed: str) -> None:
    with pytest.raises(OptionError, match=r"no exit rule.*5,0\.5.*calibrated:.*entropy:.*answer:"):
        parse_exit(typed)


def test_a_rule_of_a_plan_written_before_there_were_others() -> None:
    old = {"window": 4, "threshold": 0.25}
    rule = READER.validate_python(old)
    assert rule == MeanConfidence(window=4, threshold=0.25)
    assert READER.dump_python(rule) == old, "and what is stored under its hash is found again"


def test_calibration_keeps_the_share_that_it_is_asked_for() -> None:
    """Ten texts whose lowest windows are 0.05, 0.15, ... : with a share of 0.7 three would have been ended."""
    texts = [Text((0.9, low, low, 0.9)) for low in [0.05 + i / 10 for i in range(10)]]
    rule = CalibratedConfidence(window=2, share=0.7).calibrated(texts)
    assert rule.threshold == pytest.approx(0.35)
    assert sum(rule.first_exit(text.confidences) is not None for text in texts) == 3
    assert CalibratedConfidence(window=2, share=0.7).missing
    assert not rule.missing


def test_calibration_counts_short_texts_and_leaves_the_last_token_out() -> None:
    short, unsure = Text((0.1,)), Text((0.9, 0.9, 0.0), "eos")
    rule = CalibratedConfidence(window=2, share=0.5).calibrated([short, unsure])
    assert rule.threshold == pytest.approx(0.9), "the token that ends the text by itself is in no window"
    assert CalibratedConfidence(window=2).calibrated([short]).threshold == 0
    assert CalibratedConfidence(window=2).calibrated([]).threshold == 0


@given(
    texts=st.lists(st.lists(st.floats(0, 1), max_size=12).map(tuple), max_size=20),
    window=st.integers(1, 5),
    share=st.floats(0.05, 0.95),
)
def test_calibration_never_ends_more_texts_than_allowed(
    texts: list[tuple[float, ...]], window: int, share: float
) -> None:
    rule = CalibratedConfidence(window=window, share=share).calibrated([Text(text) for text in texts])
    ended = sum(rule.first_exit(text) is not None for text in texts)
    assert ended <= (1 - share) * len(texts) + 1e-6


def test_a_settled_answer_is_the_one_that_the_cut_text_states() -> None:
    rule = SettledAnswer(window=2, pattern=PATTERN)
    pieces = ["So", " option", " B", ".", " And", " option", " C", "."]
    texts = ["".join(pieces[: i + 1]) for i in range(len(pieces))]
    end = rule.first_exit([rule.read(text) for text in texts])
    assert end == 4
    assert rule.read(texts[end - 1]) == rule.read(texts[-1]) == "B"
    assert rule.first_exit([rule.read(text) for text in texts[:3]]) is None


@pytest.mark.parametrize(
    ("pattern", "said"), [("option", "one group"), ("(a)(b)", "has 2"), ("(a", "not a regular expression")]
)
def test_a_pattern_that_cannot_answer_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SettledAnswer(pattern=pattern)


def test_a_pattern_that_never_ends_is_told() -> None:
    with pytest.raises(OptionError, match=r"still searching a text of 41 characters"):
        SettledAnswer(pattern=r"(?:a|aa)+$|(b)x").read("a" * 40 + "d")


@pytest.mark.parametrize(
    ("rule", "name"), [(CalibratedConfidence(), "threshold"), (SettledAnswer(), "pattern")], ids=str
)
def test_what_a_rule_lacks_is_named(rule: ExitRecord, name: str) -> None:
    assert name in (rule.missing or "")


@pytest.mark.parametrize("kind", ["sure", 7, None])
def test_a_kind_that_is_not_known_is_refused(kind: Any) -> None:
    if kind == "sure":
        with pytest.raises(ValidationError, match="kind"):
            READER.validate_python({"kind": kind, "window": 5})

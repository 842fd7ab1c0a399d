"""The confidence exit: at exactly the right token, for the right row (REFERENCE, section 4)."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from litestage.core import MeanConfidence, Request, SkipSchedule, StagePlan
from litestage.engine.row import Generation

EOS = (0, 7)


def accept_all(rule: MeanConfidence | None, confidences: list[float], eos_at: int | None = None) -> Generation:
    """A row that is given the tokens 100, 101, ... until it ends."""
    row = Generation(0, Request(prompt_ids=(1,), stage_plan=StagePlan(exit=rule)), max_new_tokens=1000)
    for i, confidence in enumerate(confidences):
        row.accept(7 if i == eos_at else 100 + i, confidence, EOS)
        if row.reason is not None:
            break
    return row


@pytest.mark.parametrize(
    ("confidences", "end"),
    [
        ([0.9, 0.9, 0.9, 0.9, 0.9, 0.9], None),
        ([0.4] * 4, None),  # four tokens are no window of five
        ([0.4] * 5, 4),  # the fifth token is replaced; the first one, which prefill decided, counts
        ([0.5] * 9, None),  # not below the threshold
        ([0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.9], 5),  # means 0.58 and 0.42
        ([0.1, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1], 6),  # means 0.58, 0.58, 0.42
        ([1.0, 0.0, 0.0, 0.0, 0.0, 0.0], 4),
    ],
)
def test_the_token_that_breaks_the_rule_becomes_eos(confidences: list[float], end: int | None) -> None:
    assert MeanConfidence().first_exit(confidences) == end
    row = accept_all(MeanConfidence(), confidences)
    if end is None:
        assert (row.reason, len(row.tokens)) == (None, len(confidences))
    else:
        assert (row.reason, row.tokens) == ("low_confidence", [*range(100, 100 + end), EOS[0]])
        assert row.confidences == confidences[: end + 1], "one entry a token, the replaced one included"


@given(
    confidences=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    window=st.integers(1, 8),
    threshold=st.floats(0, 1),
)
def test_a_row_exits_where_the_rule_says(confidences: list[float], window: int, threshold: float) -> None:
    rule = MeanConfidence(window=window, threshold=threshold)
    end = rule.first_exit(confidences)
    row = accept_all(rule, confidences)
    assert len(row.tokens) == (len(confidences) if end is None else end + 1)
    assert row.reason == (None if end is None else "low_confidence")


def test_a_token_that_ends_the_text_anyway_stays_what_it_is() -> None:
    row = accept_all(MeanConfidence(), [0.1] * 8, eos_at=4)
    assert (row.reason, row.tokens[-1]) == ("eos", 7)
    assert accept_all(MeanConfidence(), [0.1] * 8, eos_at=5).reason == "low_confidence"
    assert accept_all(None, [0.1] * 8).reason is None


def test_an_exit_at_the_last_allowed_token_is_still_an_exit() -> None:
    row = Generation(0, Request(prompt_ids=(1,), stage_plan=StagePlan(exit=MeanConfidence(window=1))), max_new_tokens=1)
    row.accept(100, 0.2, EOS)
    assert (row.reason, row.tokens) == ("low_confidence", [EOS[0]])


@pytest.mark.parametrize("batch_size", [32, 3])
@pytest.mark.parametrize("skips", [(), ("1.attention", "3.ffn")])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_an_exit_cuts_the_text_that_comes_without_it(
    batch_size: int, skips: tuple[str, ...], temperature: float
) -> None:
    """Row by row inside a batch with refills: the same tokens up to the exit, and EOS in place of the next."""
    rule = MeanConfidence(window=3, threshold=0.08)
    schedule = SkipSchedule.fixed(skips)
    prompts = [tiny.prompt(n) for n in (4, 17, 9, 2, 26, 11, 5, 13)]
    free, cut = (
        tiny.engine(batch_size=batch_size).generate(
            tiny.requests(
                prompts,
                max_new_tokens=20,
                stage_plan=StagePlan(schedule=schedule, exit=exit_rule),
                sampling={"temperature": temperature},
            )
        )
        for exit_rule in (None, rule)
    )
    ends = [rule.first_exit(completion.confidences) for completion in free]
    for one, other, end in zip(free, cut, ends, strict=True):
        if end is None:
            assert (one.token_ids, one.finish_reason) == (other.token_ids, other.finish_reason)
        else:
            assert other.token_ids == (*one.token_ids[:end], tiny.tokenizer().eos_token_id)
            assert other.finish_reason == "low_confidence"
            assert other.confidences == pytest.approx(one.confidences[: end + 1], rel=1e-3)
            assert other.counts.decoded == end
            assert other.text == tiny.tokenizer().decode(one.token_ids[:end])
    assert None in ends, "a rule that ends every row proves little"
    assert len(set(ends)) >= 3

"""Every rule against the index tables of the methods it stands for, and what all rules must keep."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestage.core import OptionError, SkipSchedule, SubLayer, sub_layers, whole_blocks
from litestage.skipping import Ranking, rank_sub_layers
from litestage.skipping.rules import RULES, Scores

every_rule = pytest.mark.parametrize("name", RULES)


def ranking(blocks: int, shift: int = 0) -> Ranking:
    """Some order of all sub-layers."""
    return rank_sub_layers({"s": {layer: (i * 7 + shift) % (2 * blocks) for i, layer in enumerate(sub_layers(blocks))}})


def scores(blocks: int) -> Scores:
    influence = tuple(((block * 5 + 3) % blocks) / blocks for block in range(blocks))
    return Scores(blocks, ranking(blocks), ranking(blocks, shift=3), influence)


def blocks_of(schedule: SkipSchedule, step: int = 0) -> list[int]:
    """Blocks skipped whole."""
    skipped = schedule.at(step)
    return sorted({layer.block for layer in skipped if {SubLayer(layer.block, "attention"), layer} <= skipped})


def test_unifiedskip_counts_as_released() -> None:
    counts = [len(blocks_of(RULES["unifiedskip"].schedule(n, scores(22)))) for n in range(1, 13)]
    assert counts == [1, 2, 3, 5, 6, 7, 7, 11, 11, 11, 11, 0]
    assert blocks_of(RULES["unifiedskip"].schedule(4, scores(22))) == [1, 6, 11, 16, 21]


def test_unifiedskip_original_keeps_both_ends_at_equal_distances() -> None:
    """L = 22, N = 11: n = 11 kept, interval 2: 0, 21 and 2, 4, ... 18."""
    kept = sorted(set(range(22)) - set(blocks_of(RULES["unifiedskip_original"].schedule(11, scores(22)))))
    assert kept == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 21]
    assert blocks_of(RULES["unifiedskip_original"].schedule(20, scores(22))) == list(range(1, 21))


def test_skipdecode_skips_ever_more_blocks() -> None:
    schedule = RULES["skipdecode"].schedule(10, scores(22))
    counts = {t: len(blocks_of(schedule, t)) for t in (0, 1, 56, 57, 100, 200)}
    assert counts == {0: 1, 1: 2, 56: 2, 57: 3, 100: 3, 200: 5}
    assert blocks_of(schedule, 200) == [1, 2, 3, 4, 5]


@given(amount=st.integers(1, 21), step=st.integers(0, 1500))
def test_skipdecode_is_its_formula_at_every_step(amount: int, step: int) -> None:
    expected = min(amount, ceil(step / 512 * (amount - 1)) + 1)
    assert blocks_of(RULES["skipdecode"].schedule(amount, scores(22)), step) == list(range(1, expected + 1))


def test_adaskip_takes_the_largest_and_prefers_attention_on_a_tie() -> None:
    tied = dict.fromkeys(sub_layers(3), 0.5) | {SubLayer(2, "ffn"): 0.9}
    some = Scores(3, ranking(3), rank_sub_layers({"all": tied}), (0.0,) * 3)
    chosen = RULES["adaskip"].schedule(4, some).at(0)
    assert chosen == {SubLayer(2, "ffn"), *(SubLayer(block, "attention") for block in range(3))}
    assert RULES["adaskip"].compensation == "norm_ratio"


def test_shortgpt_and_depth_exit() -> None:
    some = Scores(4, ranking(4), ranking(4), (0.4, 0.1, 0.1, 0.3))
    assert blocks_of(RULES["shortgpt"].schedule(1, some)) == [1]
    assert blocks_of(RULES["shortgpt"].schedule(3, some)) == [1, 2, 3]
    assert blocks_of(RULES["depth_exit"].schedule(2, some)) == [2, 3]


@every_rule
@given(blocks=st.integers(2, 30), data=st.data())
def test_every_amount_is_a_schedule_of_the_model(name: str, blocks: int, data: st.DataObject) -> None:
    rule = RULES[name]
    most = blocks * (2 if rule.unit == "sub-layers" else 1)
    amount = data.draw(st.integers(0, most))
    schedule = rule.schedule(amount, scores(blocks))
    schedule.check_fits(blocks)
    assert rule.schedule(0, scores(blocks)) == SkipSchedule()
    if rule.unit == "sub-layers":
        assert schedule.num_skipped == amount
    if name in ("shortgpt", "depth_exit"):
        assert schedule.at(0) == whole_blocks(blocks_of(schedule))
        assert len(blocks_of(schedule)) == amount


@every_rule
@pytest.mark.parametrize("amount", [-1, 9])
def test_an_amount_beyond_the_model_is_refused(name: str, amount: int) -> None:
    with pytest.raises(OptionError, match=f"cannot skip {amount} "):
        RULES[name].schedule(amount, scores(4))

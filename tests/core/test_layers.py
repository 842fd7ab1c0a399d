from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from litestage.core import OptionError, Segment, SkipSchedule, SubLayer, names, sub_layers, whole_blocks
from litestage.core.layers import parse_skip_set

layers = st.builds(SubLayer, st.integers(0, 99), st.sampled_from(["attention", "ffn"]))


@given(st.sets(layers))
def test_names_round_trip(skipped: set[SubLayer]) -> None:
    assert parse_skip_set(names(skipped)) == skipped
    assert parse_skip_set(skipped) == skipped
    assert SkipSchedule.fixed(names(skipped)) == SkipSchedule.fixed(skipped)


def test_names_are_in_running_order() -> None:
    everything = sub_layers(12)
    assert names(reversed(everything)) == [str(layer) for layer in everything]
    assert names(everything)[:3] == ["0.attention", "0.ffn", "1.attention"]
    assert names(everything)[-1] == "11.ffn"


@pytest.mark.parametrize(
    "name", ["7.attn", "attention", "7", "7.", ".ffn", "-1.ffn", "7.ffn.x", "x.ffn", "", "1.5.ffn", "²"]
)
def test_what_is_no_sub_layer_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"is not a sub-layer.*7\.attention or 7\.ffn") as error:
        SubLayer.parse(name)
    assert repr(name) in str(error.value)


def test_spaces_around_a_name_do_not_matter() -> None:
    assert SubLayer.parse(" 7.ffn ") == SubLayer(7, "ffn")


def test_whole_blocks() -> None:
    assert names(whole_blocks([3, 1])) == ["1.attention", "1.ffn", "3.attention", "3.ffn"]


SCHEDULE = SkipSchedule(
    segments=(
        Segment(skipped=["3.ffn"]),
        Segment(first_step=2, skipped=["1.attention"]),
        Segment(first_step=7, skipped=["1.attention", "2.attention", "3.ffn"]),
    )
)


def test_a_schedule_says_what_each_step_skips() -> None:
    """An FFN may come back: it has no cache that could have holes."""
    expected = {
        0: ["3.ffn"],
        1: ["3.ffn"],
        2: ["1.attention"],
        6: ["1.attention"],
        7: names(SCHEDULE.segments[2].skipped),
    }
    assert {step: names(SCHEDULE.at(step)) for step in expected} == expected
    assert SCHEDULE.at(10_000) == SCHEDULE.at(7)
    assert [SCHEDULE.segment_index(step) for step in (0, 1, 2, 6, 7, 99)] == [0, 0, 1, 1, 2, 2]
    assert SCHEDULE.num_skipped == 3


def test_full_depth() -> None:
    assert SkipSchedule() == SkipSchedule.fixed()
    assert SkipSchedule().num_skipped == 0
    assert SkipSchedule() == SkipSchedule.fixed([])


def test_an_attention_cannot_be_brought_back() -> None:
    segments = [Segment(skipped=["1.attention", "2.attention"]), Segment(first_step=4, skipped=["2.attention"])]
    with pytest.raises(ValidationError, match=r"1\.attention is skipped from step 0 and brought back at step 4.*cache"):
        SkipSchedule(segments=segments)


@pytest.mark.parametrize("steps", [[], [1], [0, 0], [0, 5, 3], [2, 4]])
def test_segments_start_at_step_0_and_ascend(steps: list[int]) -> None:
    with pytest.raises(ValidationError, match="start at decode step 0 and ascend"):
        SkipSchedule(segments=[Segment(first_step=step) for step in steps])


@pytest.mark.parametrize("skipped", ["7.ffn", None, 5, ["7.mlp"], [None], {"a": 1}])
def test_what_is_no_list_of_sub_layers_is_refused(skipped: object) -> None:
    with pytest.raises(ValidationError, match=r"sub-layer"):
        Segment.model_validate({"skipped": skipped})


def test_a_schedule_must_fit_the_model() -> None:
    SCHEDULE.check_fits(4)
    with pytest.raises(OptionError, match=r"3\.ffn cannot be skipped: the model has 3 blocks, 0 to 2"):
        SCHEDULE.check_fits(3)


@given(st.lists(st.sets(layers), min_size=1, max_size=4))
def test_schedules_are_values(sets: list[set[SubLayer]]) -> None:
    """Equal ones hash alike and survive JSON; none can be changed."""
    grown = [frozenset().union(*sets[: i + 1]) for i in range(len(sets))]
    schedule = SkipSchedule(segments=[Segment(first_step=3 * i, skipped=s) for i, s in enumerate(grown)])
    again = SkipSchedule.model_validate_json(schedule.model_dump_json())
    assert (again, hash(again)) == (schedule, hash(schedule))
    with pytest.raises(ValidationError, match="frozen"):
        schedule.segments = ()  # type: ignore[misc]

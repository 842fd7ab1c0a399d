from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from litestage.evaluation import frontier


def scores(right: int, of: int = 100) -> dict[str, float]:
    return {f"q{i}": float(i < right) for i in range(of)}


def test_the_frontier_is_what_no_other_beats_in_both() -> None:
    speedups = {"full": 1.0, "slow": 0.9, "good": 1.4, "worse": 1.3, "fast": 2.0}
    by_id = {"full": scores(90), "slow": scores(90), "good": scores(88), "worse": scores(60), "fast": scores(40)}
    points = frontier(speedups, by_id)
    assert [(point.name, point.accuracy) for point in points] == [("full", 90), ("good", 88), ("fast", 40)]
    assert [point.rivals for point in points] == [("good",), (), ()], "a faster one may be as accurate for all we know"


def test_rivals_are_as_fast_and_not_worse_beyond_chance() -> None:
    speedups = {"full": 1.0, "ours": 1.4, "close": 1.39, "behind": 1.39, "slow": 1.2}
    by_id = {"full": scores(90), "ours": scores(88), "close": scores(86), "behind": scores(60), "slow": scores(88)}
    (full, ours) = frontier(speedups, by_id)
    assert ours.name == "ours"
    assert ours.rivals == ("close",)
    assert full.rivals == ("ours", "close", "slow")


def test_one_that_is_better_beyond_chance_is_a_rival_too() -> None:
    """It misses the place by half a per cent of speed, which prices cannot tell."""
    (ours, *_) = frontier({"ours": 1.1, "better": 1.095}, {"ours": scores(60), "better": scores(80)})[::-1]
    assert (ours.name, ours.rivals) == ("ours", ("better",))


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.tuples(st.floats(0.5, 3), st.integers(0, 20)), min_size=1
    )
)
def test_every_system_is_on_the_frontier_or_beaten_by_one_that_is(systems: dict[str, tuple[float, int]]) -> None:
    points = frontier(
        {name: s for name, (s, _) in systems.items()}, {n: scores(c, 20) for n, (_, c) in systems.items()}
    )
    on = {point.name for point in points}
    assert on
    assert [point.speedup for point in points] == sorted(point.speedup for point in points)
    places = [systems[name] for name in on]
    assert len(set(places)) == len(places), "equal systems share a place"
    for name, (speed, right) in systems.items():
        better = [o for o in on if systems[o][0] >= speed and systems[o][1] >= right]
        assert better, name
        assert (systems[name] in places) == all(systems[o] == (speed, right) for o in better)

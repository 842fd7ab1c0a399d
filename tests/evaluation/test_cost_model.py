from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from litestage.core import Conditions, Decode, Prefill
from litestage.core.errors import LitestageError
from litestage.evaluation import CostModel, fit


@dataclass(frozen=True)
class Timed:
    work: Prefill | Decode
    seconds: float
    attentions: int = 0
    ffns: int = 0
    compensated: int = 0


def true_decode(rows: int, context: int, attentions: int, ffns: int, compensated: int) -> float:
    """A machine whose parts each cost something, growing with rows."""
    attention = 30e-6 * (1 + rows / 4) + 20e-9 * rows * context
    return 200e-6 + attentions * attention + ffns * 50e-6 * (1 + rows / 8) + compensated * 3e-6 * rows


def true_prefill(rows: int, tokens: int, context: int) -> float:
    return 1e-3 + tokens * 40e-6 + rows * 90e-6 + tokens * context * 10e-9


def decode_timings(row_counts: tuple[int, ...], compensation: bool = True, noise: float = 0.0) -> list[Timed]:
    rng = np.random.default_rng(3)
    kept = [(12, 12, 0), (6, 12, 0), (12, 6, 0), (8, 8, 0)] + [(8, 8, 8), (12, 8, 4)] * compensation
    return [
        Timed(
            work=Decode(rows, context, step=7),
            seconds=true_decode(rows, context, a, f, c) * (1 + noise * rng.standard_normal()),
            attentions=a,
            ffns=f,
            compensated=c,
        )
        for rows in row_counts
        for context in (32, 256)
        for a, f, c in kept
    ]


def prefill_timings(noise: float = 0.0) -> list[Timed]:
    rng = np.random.default_rng(4)
    return [
        Timed(
            work=Prefill(rows, tokens, context),
            seconds=true_prefill(rows, tokens, context) * (1 + noise * rng.standard_normal()),
            attentions=12,
            ffns=12,
        )
        for rows, tokens, context in itertools.product((1, 4, 8), (8, 64, 256), (64, 300))
    ]


def timings(**kwargs: float) -> list[Timed]:
    return decode_timings((1, 2, 4, 8), **kwargs) + prefill_timings(**kwargs)


CONDITIONS = Conditions(
    hardware="made up", device="cpu", threads=3, versions={}, dtype="fp32", batch_size=1, seed=0, shots=0, model="m",
    fingerprint="f", tokenizer="t", task="made up",
)  # fmt: skip
MODEL = fit(timings(), CONDITIONS)


def test_an_exact_machine_is_recovered() -> None:
    assert (MODEL.decode_error.timings, MODEL.prefill_error.timings) == (4 * 12, 18)
    assert MODEL.decode_error.max < 1e-6
    assert MODEL.prefill_error.max < 1e-6
    one = MODEL.decode[0]
    assert one.step == pytest.approx(200e-6)
    assert one.attention == pytest.approx(30e-6 * 1.25)
    assert one.per_context == pytest.approx(20e-9)
    assert one.ffn == pytest.approx(50e-6 * 1.125)
    assert one.compensation == pytest.approx(3e-6)


@given(st.integers(1, 64), st.integers(1, 500), st.integers(0, 12), st.integers(0, 12), st.integers(0, 24))
def test_any_step_is_priced_between_and_beyond_the_timed_rows(rows: int, context: int, a: int, f: int, c: int) -> None:
    """This machine is linear in rows, so that interpolation and extrapolation are exact."""
    priced = MODEL.decode_seconds(Decode(rows, context, 0), a, f, c)
    assert priced == pytest.approx(true_decode(rows, context, a, f, c), rel=1e-5)


@given(st.integers(1, 32), st.integers(1, 900), st.integers(1, 900))
def test_any_prefill_is_priced(rows: int, tokens: int, context: int) -> None:
    priced = MODEL.prefill_seconds(Prefill(rows, tokens, context))
    assert priced == pytest.approx(true_prefill(rows, tokens, context), rel=1e-5)


def test_a_noisy_machine_is_priced_within_its_stated_error() -> None:
    model = fit(timings(noise=0.02))
    assert 0.001 < model.decode_error.median < 0.02 < model.decode_error.max < 0.1
    for timing in timings():
        if isinstance(timing.work, Decode):
            priced = model.decode_seconds(timing.work, timing.attentions, timing.ffns, timing.compensated)
        else:
            priced = model.prefill_seconds(timing.work)
        assert priced == pytest.approx(timing.seconds, rel=0.04)


def test_repeats_count_by_their_median_whatever_the_step_number() -> None:
    hiccups = [
        replace(timing, seconds=timing.seconds * factor, work=replace(timing.work, step=step))
        for timing in decode_timings((1, 2, 4, 8))
        for step, factor in enumerate((1, 1, 25))
    ]
    model = fit(hiccups + prefill_timings())
    assert model.decode_error == MODEL.decode_error
    assert model.decode == MODEL.decode


@given(st.lists(st.floats(1e-5, 1e-2), min_size=66, max_size=66), st.integers(1, 40), st.integers(1, 900))
@settings(max_examples=50, deadline=None)
def test_skipping_and_fewer_rows_never_cost_more_on_a_wild_machine(noise: list[float], rows: int, context: int) -> None:
    """Non-negative parts: whatever was timed, a step with less work is not dearer, and beyond 8 rows nor are fewer."""
    wild = [replace(t, seconds=seconds) for t, seconds in zip(timings(), noise, strict=True)]
    model = fit(wild)
    full = model.decode_seconds(Decode(rows, context, 0), 12, 12)
    assert 0 <= model.decode_seconds(Decode(rows, context, 0), 11, 12) <= full
    assert 0 <= model.decode_seconds(Decode(rows, context, 0), 12, 3) <= full
    assert model.decode_seconds(Decode(rows, context, 0), 12, 12, 4) >= full
    assert model.decode_seconds(Decode(rows, context + 1, 0), 12, 12) >= full
    assert rows <= 8 or full >= model.decode_seconds(Decode(8, context, 0), 12, 12)


def test_one_row_count_prices_itself_alone() -> None:
    model = fit(decode_timings((1,)) + prefill_timings())
    assert model.decode_seconds(Decode(1, 100, 0), 12, 12) == pytest.approx(true_decode(1, 100, 12, 12, 0))
    with pytest.raises(LitestageError, match="steps of 2 rows have no price"):
        model.decode_seconds(Decode(2, 100, 0), 12, 12)


def test_compensation_that_was_not_timed_has_no_price() -> None:
    model = fit(decode_timings((1, 4), compensation=False) + prefill_timings())
    assert not model.compensation_timed
    assert model.decode_seconds(Decode(4, 9, 0), 6, 6) > 0
    with pytest.raises(LitestageError, match="Time the model again with compensation on"):
        model.decode_seconds(Decode(4, 9, 0), 6, 6, compensated=12)


def test_timings_that_cannot_tell_the_parts_apart_are_refused() -> None:
    whole_blocks = [t for t in decode_timings((1, 2), compensation=False) if t.attentions == t.ffns]
    with pytest.raises(LitestageError, match=r"decode steps of 1 rows \(4 different ones\) cannot tell"):
        fit(whole_blocks + prefill_timings())
    one_row = [t for t in prefill_timings() if t.work.rows == 1]
    with pytest.raises(LitestageError, match="prefills"):
        fit(decode_timings((1, 2)) + one_row)
    with pytest.raises(LitestageError, match="prefills"):
        fit(decode_timings((1, 2)))
    with pytest.raises(LitestageError, match="one row were not timed"):
        fit(decode_timings((2, 4)) + prefill_timings())


def test_written_and_read() -> None:
    written = MODEL.model_dump_json()
    loaded = CostModel.model_validate_json(written)
    assert loaded == MODEL
    assert loaded.threads == 3
    with pytest.raises(ValidationError, match="prefil"):
        CostModel.model_validate_json(written.replace('"prefill"', '"prefil"'))

from __future__ import annotations

import pytest
import tiny
import torch

from litestage.models import Cache


@pytest.fixture
def cache() -> Cache:
    """Every number different."""
    cache = Cache(blocks=2, rows=3, slots=5, heads=2, head_size=4, dtype=torch.float32, device=torch.device("cpu"))
    cache.data.copy_(torch.arange(cache.data.numel()).view_as(cache.data))
    return cache


def test_sizes(cache: Cache) -> None:
    assert (cache.rows, cache.slots) == (3, 5)
    assert cache.data.shape == (2, 3, 5, 2, 2, 4)


def test_a_rows_beginning_is_copied_to_other_rows_and_nowhere_else(cache: Cache) -> None:
    for targets in ([1], [0, 1], [1, 0]):
        before = cache.data.clone()
        cache.copy(2, targets, 4)
        for row in targets:
            assert torch.equal(cache.data[:, row, :4], before[:, 2, :4])
            assert torch.equal(cache.data[:, row, 4:], before[:, row, 4:])
        assert torch.equal(cache.data[:, 2], before[:, 2])


def test_rows_are_made_longer_in_the_same_memory(cache: Cache) -> None:
    """Three rows of five slots become two of seven, one of the third's and the first's content before it."""
    before, memory = cache.data.clone(), cache.nbytes
    cache.lengthen(7, [2, 0])
    assert cache.data.shape == (2, 2, 7, 2, 2, 4)
    assert torch.equal(cache.data[:, 0, :5], before[:, 2])
    assert torch.equal(cache.data[:, 1, :5], before[:, 0])
    assert cache.nbytes == memory == cache.rows_of(5) * before[:, 0].nbytes


def test_positions_beyond_a_row_go_to_its_last_slot(cache: Cache) -> None:
    slots = cache.slot_index(torch.tensor([0, 2]), torch.tensor([[0, 1], [3, 9]]))
    assert slots.tolist() == [0, 1, 13, 14]


def test_an_engines_cache_is_what_was_asked_for() -> None:
    """Nothing before the first request; then all of it, however long requests become."""
    engine = tiny.engine(batch_size=3, cache_tokens=600)
    assert engine.cache_bytes == 0
    a_token = tiny.loaded("llama").decoder.new_cache(1, 1).nbytes
    for length, expected in ((5, 600), (200, 600), (5, 600)):
        engine.generate(tiny.requests([tiny.prompt(length)] * 4, max_new_tokens=10))
        assert 0 <= expected * a_token - engine.cache_bytes < 256 * a_token
    assert tiny.engine(cache_tokens=100).max_context == 100

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


def test_what_is_read_is_a_copy(cache: Cache) -> None:
    part = cache.read(1, 2, 4)
    assert part.shape == (2, 2, 2, 2, 4)
    assert torch.equal(part, cache.data[:, 1, 2:4])
    cache.data.zero_()
    assert part.any()


def test_content_is_written_to_several_rows_and_nowhere_else(cache: Cache) -> None:
    before, content = cache.data.clone(), -torch.ones(2, 2, 2, 2, 4)
    cache.write([0, 2], 3, content)
    for row in (0, 2):
        assert torch.equal(cache.read(row, 3, 5), content)
    before[:, [0, 2], 3:5] = -1
    assert torch.equal(cache.data, before)


def test_a_row_moves_over_another(cache: Cache) -> None:
    before = cache.data.clone()
    cache.move(2, 0, 4)
    assert torch.equal(cache.data[:, 0, :4], before[:, 2, :4])
    assert torch.equal(cache.data[:, 0, 4:], before[:, 0, 4:])
    assert torch.equal(cache.data[:, 1:], before[:, 1:])


def test_positions_beyond_a_row_go_to_its_last_slot(cache: Cache) -> None:
    slots = cache.slot_index(torch.tensor([0, 2]), torch.tensor([[0, 1], [3, 9]]))
    assert slots.tolist() == [0, 1, 13, 14]


def test_a_cache_is_no_larger_than_asked_for() -> None:
    """Rows of the batch, slots of the longest request rounded up to 64; it grows when it must and never by both."""
    engine = tiny.engine(batch_size=3)
    engine.generate(tiny.requests([tiny.prompt(5)] * 2, max_new_tokens=10))
    assert (engine._cache.rows, engine._cache.slots) == (2, 64)
    engine.generate(tiny.requests([tiny.prompt(5)] * 9, max_new_tokens=10))
    assert (engine._cache.rows, engine._cache.slots) == (3, 64)
    engine.generate(tiny.requests([tiny.prompt(60)], max_new_tokens=5))
    assert (engine._cache.rows, engine._cache.slots) == (3, 128)

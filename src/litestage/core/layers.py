"""Sub-layers and skip schedules: which parts of the model a decode step leaves out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel as PydanticModel
from pydantic import BeforeValidator, ConfigDict, PlainSerializer, field_validator, model_validator

from litestage.core.errors import OptionError

Kind = Literal["attention", "ffn"]
KINDS: tuple[Kind, Kind] = ("attention", "ffn")


DIGITS = 6
"""Most of a block's number."""


class Record(PydanticModel):
    """A frozen, hashable value that refuses unknown keys and round-trips through JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, order=True, slots=True)
class SubLayer:
    """The attention or the FFN of one block, with its norm and its residual add."""

    block: int
    kind: Kind

    def __str__(self) -> str:
        return f"{self.block}.{self.kind}"

    @classmethod
    def parse(cls, name: str | SubLayer) -> SubLayer:
        """Read ``"7.attention"`` or ``"7.ffn"``; raises `OptionError` for anything else."""
        if isinstance(name, SubLayer):
            return name
        block, _, kind = str(name).strip().partition(".")
        if not (block.isascii() and block.isdecimal() and len(block) <= DIGITS) or kind not in KINDS:
            raise OptionError(
                f"{name!r} is not a sub-layer. Write the block's number, a dot and its part, "
                "for example 7.attention or 7.ffn."
            )
        return cls(int(block), "attention" if kind == "attention" else "ffn")


SkipSet = frozenset[SubLayer]
EMPTY: SkipSet = frozenset()


def sub_layers(num_blocks: int) -> tuple[SubLayer, ...]:
    """All sub-layers in the order they run: attention 0, ffn 0, attention 1, ..."""
    return tuple(SubLayer(block, kind) for block in range(num_blocks) for kind in KINDS)


def whole_blocks(blocks: Iterable[int]) -> SkipSet:
    """Both sub-layers of each block."""
    return frozenset(SubLayer(block, kind) for block in blocks for kind in KINDS)


def num_runs(skipped: SkipSet) -> int:
    """Runs of sub-layers that follow each other, as they run."""
    at = {2 * layer.block + (layer.kind == "ffn") for layer in skipped}
    return sum(index - 1 not in at for index in at)


def parse_skip_set(names: Iterable[str | SubLayer]) -> SkipSet:
    return frozenset(SubLayer.parse(name) for name in names)


def names(skipped: Iterable[SubLayer]) -> list[str]:
    """Sub-layer names in running order."""
    return [str(layer) for layer in sorted(skipped)]


def _read_skip_set(value: Any) -> SkipSet:
    """As `parse_skip_set`, with errors that pydantic reports with their place in a file."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{value!r} is not a list of sub-layers such as ['7.attention', '7.ffn']")
    try:
        listed = [SubLayer.parse(name) for name in value]
    except OptionError as error:
        raise ValueError(str(error)) from None
    if twice := [layer for layer in listed if listed.count(layer) > 1]:
        raise ValueError(f"{twice[0]} is there twice")
    return frozenset(listed)


def _read_sub_layer(value: Any) -> SubLayer:
    try:
        return SubLayer.parse(value)
    except OptionError as error:
        raise ValueError(str(error)) from None


SubLayerField = Annotated[SubLayer, BeforeValidator(_read_sub_layer), PlainSerializer(str, return_type=str)]
SkipSetField = Annotated[SkipSet, BeforeValidator(_read_skip_set), PlainSerializer(names, return_type=list[str])]


class Segment(Record):
    """From decode step ``first_step`` on, ``skipped`` is left out."""

    first_step: int = 0
    skipped: SkipSetField = EMPTY


class SkipSchedule(Record):
    """What is skipped at each decode step: a fixed set is one segment, SkipDecode is several.

    An attention once skipped stays skipped, because the steps it missed left holes in its cache.
    """

    segments: tuple[Segment, ...] = (Segment(),)

    @classmethod
    def fixed(cls, skipped: Iterable[SubLayer | str] = ()) -> SkipSchedule:
        """Skip the same sub-layers at every decode step."""
        return cls(segments=(Segment(skipped=parse_skip_set(skipped)),))

    @field_validator("segments")
    @classmethod
    def _in_order(cls, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        steps = [segment.first_step for segment in segments]
        if not steps or steps[0] != 0 or any(a >= b for a, b in pairwise(steps)):
            raise ValueError(f"segments must start at decode step 0 and ascend, but start at {steps}")
        return segments

    @model_validator(mode="after")
    def _no_cache_holes(self) -> SkipSchedule:
        for before, after in pairwise(self.segments):
            back = sorted(layer for layer in before.skipped - after.skipped if layer.kind == "attention")
            if back:
                raise ValueError(
                    f"{back[0]} is skipped from step {before.first_step} and brought back at step {after.first_step}: "
                    "its cache has no entries for the steps between. Keep it skipped to the end"
                )
        return self

    def at(self, step: int) -> SkipSet:
        """The skip set of decode step ``step`` (0 is the first forward of a generated token)."""
        return self.segments[self.segment_index(step)].skipped

    def segment_index(self, step: int) -> int:
        return max(i for i, segment in enumerate(self.segments) if segment.first_step <= step)

    def segment_end(self, step: int) -> int:
        """The decode step at which the segment of ``step`` is over; one that never comes for the last."""
        return min((segment.first_step for segment in self.segments if segment.first_step > step), default=sys.maxsize)

    def leading_full_depth(self, steps: int) -> int:
        """How many of so many decode steps come before the first that leaves something out."""
        return min([steps, *(segment.first_step for segment in self.segments if segment.skipped)])

    def skipped_in(self, steps: int) -> int:
        """Sub-layers that so many decode steps leave out together."""
        ends = [*(segment.first_step for segment in self.segments[1:]), sys.maxsize]
        return sum(
            len(segment.skipped) * max(0, min(end, steps) - segment.first_step)
            for segment, end in zip(self.segments, ends, strict=True)
        )

    @property
    def num_skipped(self) -> int:
        """The most sub-layers skipped at any step."""
        return max(len(segment.skipped) for segment in self.segments)

    def check_fits(self, num_blocks: int) -> None:
        """Raise `OptionError` when a block lies beyond the model."""
        for segment in self.segments:
            if beyond := [layer for layer in sorted(segment.skipped) if layer.block >= num_blocks]:
                raise OptionError(
                    f"{beyond[0]} cannot be skipped: the model has {num_blocks} blocks, 0 to {num_blocks - 1}."
                )

"""Times of decode steps, on a processor that is done when a call returns, or on one that works behind it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch

from litestage.engine.timing import synchronise

Timer = Callable[[], float]
"""Seconds since some time: of the wall clock, unless it says otherwise."""


def works_behind(device: torch.device) -> bool:
    """Whether calls return before their work is done, as on a GPU."""
    return device.type != "cpu"


def now(device: torch.device, timer: Timer | None = None) -> float:
    """The time at which a device has done all that it was given."""
    synchronise(device)
    return (timer or time.perf_counter)()


class StepTimes:
    """Notes the time at the beginning and after each of so many steps.

    A device that works behind is waited for at the first and the last alone: in between, steps may well overlap.
    """

    def __init__(self, device: torch.device, steps: int, timer: Timer | None = None) -> None:
        self.device, self.steps, self.timer = device, steps, timer
        self.times: list[float] = []

    def start(self) -> None:
        """Begin, again if need be."""
        self.times = [now(self.device, self.timer)]

    def note(self) -> None:
        """A step has been made, or is at least on its way."""
        last = len(self.times) == self.steps
        self.times.append(now(self.device, self.timer) if last else (self.timer or time.perf_counter)())

    @property
    def step(self) -> float:
        """Seconds of a step: the mean where only the ends are sure, else the median; the first step warms up there."""
        if works_behind(self.device):
            return (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        return statistics.median([after - before for before, after in pairwise(self.times)][1:])

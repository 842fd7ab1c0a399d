"""What the C library keeps of memory that is no longer used."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_memory_back() -> None:
    """Hand freed memory to the system, also from between what lives: it would stay resident, and its holes fill badly.

    It takes milliseconds, and as many when the pages are needed again.
    """
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)

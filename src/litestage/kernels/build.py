"""Compiling the kernels for this processor, once, with whatever C compiler there is."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

import platformdirs
import torch

SOURCE = Path(__file__).with_name("kernels.c")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-fopenmp", "-pthread", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"),
)
VARIANTS: dict[str, tuple[str, ...]] = {
    "native": (),
    "avx512_bf16": ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16"),
    "avx512": ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16", "-mno-avx512bf16"),
    "avx2": ("-march=x86-64-v3",),
    "portable": ("-march=x86-64",),
}
"""What to leave out of what this processor has: nothing; tile registers; and products of bf16; and vectors of 64 bytes;
all of it."""
NEEDS = {
    "native": {"amx_bf16", "amx_int8", "avx512_bf16"},
    "avx512_bf16": {"avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"},
    "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512_vnni"},
    "avx2": {"avx2", "fma", "f16c"},
}
"""Flags that a processor has where the code of a variant differs from that of the next one."""
NONE = "none"
SECONDS = 120


class CannotBuildError(Exception):
    """Why there are no kernels here, in words."""


def build_kernels(variant: str | None = None) -> ctypes.PyDLL:
    """The compiled kernels, from the user's cache folder if they were built before; raises `CannotBuildError`.

    ``LITESTAGE_CC`` names another compiler, or ``none`` to go without; ``LITESTAGE_KERNELS`` one of `VARIANTS`, where
    the caller names none. Kernels take as many threads as torch does: they ask torch's own copy of OpenMP.
    """
    command = [_compiler(), *FLAGS, *_without(variant or os.environ.get("LITESTAGE_KERNELS", "native"))]
    folder = Path(platformdirs.user_cache_dir("litestage")) / "kernels"
    library = folder / f"{_name(command)}.so"
    if not library.exists():
        _compile(command, folder, library)
    try:
        return ctypes.PyDLL(str(library))  # holds the interpreter's lock: a call is shorter than giving it up
    except OSError as error:
        raise CannotBuildError(f"the compiled kernels could not be loaded ({error})") from None


def instructions() -> str:
    """Which of `VARIANTS` the kernels come to here: last bits may differ from one to another."""
    wanted = list(VARIANTS)[list(VARIANTS).index(os.environ.get("LITESTAGE_KERNELS", "native")) :]
    flags = set(_processor().split())
    return next((name for name in wanted if name in NEEDS and flags >= NEEDS[name]), "portable")


def _without(variant: str) -> tuple[str, ...]:
    if variant not in VARIANTS:
        raise CannotBuildError(f"LITESTAGE_KERNELS is {variant!r} and may be one of {', '.join(VARIANTS)}")
    return VARIANTS[variant]


def _compiler() -> str:
    wanted = os.environ.get("LITESTAGE_CC")
    found = next(filter(None, map(shutil.which, [wanted] if wanted else COMPILERS)), None)
    if found is None or wanted == NONE:
        raise CannotBuildError(f"no C compiler was found ({wanted or ', '.join(COMPILERS)})")
    return found


def _compile(command: list[str], folder: Path, library: Path) -> None:
    """Write beside, then rename: two processes may build at once."""
    beside = library.with_suffix(f".{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        line = [*command, str(SOURCE), "-o", str(beside), *_openmp(), "-lm"]
        subprocess.run(line, check=True, capture_output=True, text=True, timeout=SECONDS)
        beside.replace(library)
    except subprocess.CalledProcessError as error:
        raise CannotBuildError(f"{command[0]} could not compile them: {_last_line(error.stderr)}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuildError(f"they could not be compiled ({error})") from None
    finally:
        beside.unlink(missing_ok=True)


def _openmp() -> list[str]:
    """Torch's copy of the OpenMP library, to be linked with by its path."""
    folder = Path(torch.__file__).parent
    found = [*folder.glob("lib/libgomp*"), *folder.with_name("torch.libs").glob("libgomp*")]
    return [str(found[0])] if found else []


def _name(command: list[str]) -> str:
    """A name that changes with the sources, the compiler, its options, torch and the processor."""
    sources = [file.read_text(encoding="utf-8") for file in sorted(SOURCE.parent.glob("*.[ch]"))]
    parts = [*sources, *command, _version(command[0]), torch.__version__, _processor()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


@cache
def _version(compiler: str) -> str:
    ran = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=SECONDS, check=False)
    return ran.stdout


@cache
def _processor() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(next(x for x in lines if x.startswith(name)) for name in ("model name", "flags"))
    except (OSError, StopIteration):
        return platform.machine() + platform.processor()


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]

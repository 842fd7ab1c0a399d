"""What a benchmark can be asked for, beside model, task and questions."""

from __future__ import annotations

from dataclasses import dataclass

from litestage.core.plan import check_compensation
from litestage.jobs.options import WHAT, DraftOptions, Options, numbers, option


def _kinds(text: str) -> tuple[str, ...]:
    return tuple(check_compensation(kind.strip()) for kind in text.split(","))


@dataclass(frozen=True)
class DecodeBenchOptions(Options):
    """Which decode steps are timed, and beside whom."""

    rows: tuple[int, ...] = option(
        (1, 8, 32), "N,...", "Rows that decode together.", WHAT, read=numbers(int), typed="1,8,32"
    )
    context: int = option(128, "N", "Tokens of each row's prompt.", WHAT, least=1)
    peers: str = option(
        "all",
        "NAME,...",
        "transformers; llama.cpp (needs llama-cpp-python, a GGUF file and the CPU); all of these that run here; "
        "vllm (needs vllm and CUDA, never among all); or none.",
        WHAT,
    )
    compensation: tuple[str, ...] = option(
        ("none",),
        "KIND,...",
        "Also time blocks that something stands in for: norm_ratio,mean,affine,lowrank:16.",
        WHAT,
        read=_kinds,
        typed="none",
    )
    repeats: int = option(9, "N", "Samples of each setting, taken in turn.", least=1)


@dataclass(frozen=True)
class PipelineBenchOptions(Options):
    """How many questions are answered together, and by whom."""

    votes: int | None = option(None, "N", "Sampled runs of each question; greedy without.", least=1)
    at_once: int = option(4, "N", "Questions that go through the stages together.", least=1)
    peer_questions: int = option(
        4,
        "N",
        "Questions that transformers, and the engine in part, answer too, in whole groups of --at-once; "
        "0 leaves transformers out.",
        least=0,
    )
    peer_batch_size: int | None = option(
        None, "N", "Rows that transformers decodes together. Default: as many as we.", least=1
    )


@dataclass(frozen=True)
class DraftBenchOptions(DraftOptions):
    """From what is drafted, how questions are answered, and how many of them fill the memory first."""

    votes: int | None = option(None, "N", "Sampled runs of each question; greedy without.", least=1)
    warm: int = option(20, "N", "First questions, which are not counted: they fill the memory.", least=0)


@dataclass(frozen=True)
class MemoryBenchOptions(Options):
    """How much is answered while memory is watched."""

    rounds: int = option(2, "N", "Times that the questions are answered.", least=1)
    at_once: int = option(16, "N", "Questions that go through the stages together.", least=1)


@dataclass(frozen=True)
class DropInBenchOptions(Options):
    """Which steps of `apply_plan`, `generate` and the engine are timed."""

    rows: tuple[int, ...] = option((1, 8), "N,...", "Rows that decode together.", WHAT, read=numbers(int), typed="1,8")
    context: int = option(128, "N", "Tokens of each row's prompt.", WHAT, least=1)
    repeats: int = option(9, "N", "Samples of each setting, taken in turn.", least=1)

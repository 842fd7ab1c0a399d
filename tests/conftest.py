from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does, before torch is there
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # GPU kernels run on the CPU, line by line; before triton is there

import jaxtyping
import pytest
import torch
from hypothesis import settings

from litestage.core import Completion, Counts, FinishReason, StageTrace

MakeStage = Callable[..., StageTrace]
Run = Callable[..., tuple[int, str, str]]
SHARING = ("test_compare", "test_quickstart", "test_diagnose", "test_ray", "test_policies", "test_embedded")

SHAPED = ("test_parity", "test_contract", "test_forcing")
"""Tests of the engine that check shapes."""

os.environ.setdefault("HF_HUB_OFFLINE", "1")
settings.register_profile("litestage", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("litestage")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The documents' commands take longest and come first: at the end all other processes would wait for them.

    Tests that share a command's outcome stay in one process, so that it runs once.
    """
    items.sort(key=lambda item: item.path.name != "test_documents.py")
    for item in items:
        if item.path.stem in SHARING:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny models are bound by overhead: more threads only disturb whoever else is at work."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def shapes_are_checked(request: pytest.FixtureRequest) -> None:
    """Shapes are checked where all of a forward's code runs in every form; elsewhere that would double the time."""
    checked = request.path.parent.name in ("models", "kernels") or request.path.stem in SHAPED
    jaxtyping.config.update("jaxtyping_disable", not checked)


@pytest.fixture(autouse=True, scope="session")
def prices_are_timed_once() -> Iterator[None]:
    """Whole commands fit prices to one repeat: what a cost model is worth is tested where it is made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("litestage.jobs.timing.REPEATS", 1)
        patch.setattr("litestage.jobs.timing.FITS", 1)
        yield


@pytest.fixture
def litestage(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command as a user would, in this process: exit code, output, errors (in one line, however folded)."""
    from litestage.cli import main  # not above: this file is read before shapes are set to be checked

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["litestage", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capfd.readouterr()
        code = stopped.value.code
        return int(code or 0), out, " ".join(err.split())

    return run


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Two nodes of a Ray cluster on this machine, each with room for a worker."""
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    store = 80 << 20
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])  # for workers
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": store, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1, object_store_memory=store)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="session")
def make_stage() -> MakeStage:
    """A stage of one question from its lengths, one a branch."""

    def make(
        name: str,
        prompts: Sequence[int],
        decoded: Sequence[int],
        shared: int = 0,
        header: int = 0,
        reused: int = 0,
        reasons: Sequence[FinishReason] | None = None,
    ) -> StageTrace:
        completions = tuple(
            Completion(
                token_ids=tuple(range(steps + 1)),
                text="",
                confidences=(1.0,) * (steps + 1),
                finish_reason=reason,
                counts=Counts(prefilled=prompt - shared, reused=shared, decoded=steps),
            )
            for prompt, steps, reason in zip(prompts, decoded, reasons or ["eos"] * len(prompts), strict=True)
        )
        return StageTrace(
            name=name,
            prompts=("",) * len(prompts),
            prompt_tokens=tuple(prompts),
            shared_tokens=shared,
            header_tokens=header,
            reused_tokens=reused,
            text="",
            completions=completions,
        )

    return make

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from serving import Served, served

from litestage.core import SkipSchedule, StagePlan
from litestage.jobs.session import Session, load


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process runs these tests, so that they share a server."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group("serve"))


@pytest.fixture(scope="session")
def session() -> Session:
    """The same model and task without a server: what one answers is compared with it.

    In int8 on kernels of our own, where a text's numbers do not depend on what is computed beside it.
    """
    return load(quantise="int8")


@pytest.fixture(scope="session")
def plan_folder(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that leaves two sub-layers out of each stage."""
    folder = tmp_path_factory.mktemp("plan")
    skipping = StagePlan(schedule=SkipSchedule.fixed(["5.attention", "6.ffn"]))
    session.plan(dict.fromkeys(session.task.stage_names, skipping)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def server(plan_folder: Path) -> Iterator[Served]:
    with served(plan=(f"fast={plan_folder}",), allow_skips=True) as one:
        yield one

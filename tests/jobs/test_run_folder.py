"""What a job keeps: made once, with what it was made from, and made again for anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from litestage.core import Conditions, OptionError, Ranking
from litestage.evaluation import CostModel, Sample
from litestage.jobs.run_folder import RunFolder
from litestage.jobs.search import search
from litestage.jobs.session import load

RESULTS = Path(__file__).parents[2] / "results"
CONDITIONS = {"model": "m", "threads": 2}


class Counting:
    """Makes a sample, and counts how often."""

    made = 0

    def __call__(self) -> list[Sample]:
        self.made += 1
        return [Sample(system="full", question_id="1", seconds=self.made, stage_seconds={"recall": 1.0})]


def test_what_is_remembered_is_made_again_for_anything_else(tmp_path: Path) -> None:
    make = Counting()

    def remembered(inputs: object, **conditions: object) -> float:
        folder = RunFolder(tmp_path, CONDITIONS | conditions)
        return folder.remember("times.json", inputs, list[Sample], make)[0].seconds

    assert remembered(["a"]) == remembered(["a"]) == 1
    assert remembered(["a"], threads=3) == 1, "how many threads were at hand changes nothing"
    assert remembered(["b"]) == 2
    assert remembered(["b"], model="other") == 3
    assert remembered(["b"]) == 4, "one thing is kept under a name, not all that ever were"
    (tmp_path / "times.json").write_bytes((tmp_path / "times.json").read_bytes()[:40])
    assert remembered(["b"]) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["times.json"]


def test_without_a_folder_nothing_is_kept() -> None:
    make, folder = Counting(), RunFolder(None, CONDITIONS)
    assert [folder.remember("times.json", [], list[Sample], make)[0].seconds for _ in range(2)] == [1, 2]
    folder.reserve("evaluation")


@pytest.mark.parametrize("name", ["latency.json", "ranking.json"])
def test_files_of_the_version_before_are_taken_up(name: str, tmp_path: Path) -> None:
    """They said what they were made from in their own words: here a hash of the inputs that are given."""
    kind: Any = {"latency.json": CostModel, "ranking.json": Ranking}[name]
    before = json.loads((RESULTS / "obqa" / name).read_text(encoding="utf-8"))
    place = before["conditions"] if name == "latency.json" else before
    field = "stamp" if name == "latency.json" else "inputs"
    assert len(place[field]) == 64
    place[field] = RunFolder(None, CONDITIONS).stamp(["the same"])
    (tmp_path / name).write_text(json.dumps(before))
    folder = RunFolder(tmp_path, CONDITIONS)
    assert folder.recall(name, ["other"], kind) is None
    found = folder.recall(name, ["the same"], kind)
    assert isinstance(found, kind)
    assert folder.keep(name, ["the same"], kind, found) == folder.recall(name, ["the same"], kind) == found


def test_times_of_the_version_before_are_taken_up_by_their_name(tmp_path: Path) -> None:
    (path,) = (RESULTS / "obqa" / "comparison").glob("wall-*.json")
    (tmp_path / path.name).write_bytes(path.read_bytes())
    found = RunFolder(tmp_path, CONDITIONS).recall(path.name, ["anything: its name is a hash of it"], list[Sample])
    assert found
    assert len(found) == len(json.loads(path.read_text(encoding="utf-8")))


def test_a_search_of_the_version_before_is_gone_on_with_or_refused(tmp_path: Path) -> None:
    """Of its settings each one that is another is named."""
    for file in ("settings.json", "plan.json", "search.json"):
        (tmp_path / file).write_bytes((RESULTS / "obqa" / "plan-1" / file).read_bytes())
    before = json.loads((tmp_path / "settings.json").read_text(encoding="utf-8"))
    settings = {("policies" if name == "ways" else name): value for name, value in before.items()}
    folder = RunFolder(tmp_path, CONDITIONS)
    folder.reserve("plan", settings)
    with pytest.raises(
        OptionError, match=r"another search \(its policies is .*, now \['probe \+ none'\]; other task\)"
    ):
        folder.reserve("plan", settings | {"policies": ["probe + none"], "task": "0" * 64})
    with pytest.raises(OptionError, match="holds a search"):
        folder.reserve("evaluation")
    session = load(out=tmp_path)
    with pytest.raises(OptionError, match=r"other model.*Choose another --out"):
        search(session, questions=session.questions("dev", 2))
    assert {path.name for path in tmp_path.iterdir()} == {"settings.json", "plan.json", "search.json"}


def test_conditions_are_those_of_old_files() -> None:
    """Folders of the version before are found again by a hash over these."""
    old = {
        *("model", "fingerprint", "tokenizer", "task", "shots", "hardware", "device", "threads", "dtype", "quantise"),
        *("kernels", "batch_size", "seed", "versions"),
    }
    assert set(Conditions.model_fields) == {*old, "answers"}
    session = load("everyday", "everyday")
    assert set(session.conditions.stamped) == old
    assert session.conditions.model_copy(update={"answers": "choice"}).stamped["answers"] == "choice"

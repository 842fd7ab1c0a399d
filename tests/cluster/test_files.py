"""The files for Ray's launcher and for KubeRay say what those understand, and the versions of this release."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import validate

ROOT = Path(__file__).parents[2]
POD = {"rayStartParams", "template"}
KNOWN: dict[str, set[str]] = {
    "spec": {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"},
    "autoscalerOptions": {"idleTimeoutSeconds"},
    "headGroupSpec": POD,
    "workerGroupSpecs": POD | {"groupName", "replicas", "minReplicas", "maxReplicas"},
}
"""Fields of KubeRay's RayCluster (ray.io/v1) that the file may use."""


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / "docs" / "examples" / name).read_text(encoding="utf-8"))


def version() -> str:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    return pinned[1]


def test_the_launcher_s_file_fits_its_schema() -> None:
    ray = pytest.importorskip("ray")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    content = read("cluster.yaml")
    validate(content, schema)
    assert any(f"=={version()}" in command for command in content["setup_commands"])


def test_kuberay_s_file_has_fields_that_it_knows() -> None:
    content = read("raycluster.yaml")
    spec = content["spec"]
    assert (content["apiVersion"], content["kind"], spec["rayVersion"]) == ("ray.io/v1", "RayCluster", version())
    for name, known in KNOWN.items():
        for part in [spec] if name == "spec" else spec[name] if isinstance(spec[name], list) else [spec[name]]:
            assert part.keys() <= known, name
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        for container in group["template"]["spec"]["containers"]:
            assert container.keys() >= {"name", "image", "resources"}
            assert container["resources"]["limits"] == container["resources"]["requests"]
    workers = spec["workerGroupSpecs"][0]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]

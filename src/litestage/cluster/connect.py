"""A cluster by its address, and what it has room for."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from litestage.core import LitestageError, OptionError

LOCAL = "local"
STORE = 100 << 20
"""Bytes of Ray's object store on one machine: what stands in for skipped sub-layers is all that goes there."""
ENVIRONMENT = (
    "GOMP_SPINCOUNT",
    "LITESTAGE_CC",
    "LITESTAGE_KERNELS",
    "TRANSFORMERS_VERBOSITY",
    "TOKENIZERS_PARALLELISM",
)
"""What a worker takes over from the driver's environment."""


@dataclass(frozen=True)
class Share:
    """What Ray sets aside for a worker."""

    cpus: int = 1
    gpus: int = 0


def connect(address: str, cpus: int) -> None:
    """Join the cluster at ``address``, or start one of so many workers on this machine; one that is joined is kept."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        ray.init(LOCAL, num_cpus=cpus, object_store_memory=STORE, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0]
        raise LitestageError(
            f"--cluster {address}: there is no cluster to join ({why}). This machine must be one of the cluster's: "
            "start it with `ray start --address HOST:PORT`, or give --cluster local."
        ) from None


def nodes() -> list[Mapping[str, Any]]:
    """The machines that may have workers."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def room(share: Share) -> int:
    """Workers that the cluster has room for now, one at least."""
    rooms = (
        min(
            node["Resources"]["CPU"] // share.cpus, node["Resources"].get("GPU", 0) // share.gpus if share.gpus else 1e9
        )
        for node in nodes()
    )
    return max(1, int(sum(rooms)))


def cpus_of_a_node() -> int:
    """Of the smallest machine."""
    return int(min((node["Resources"]["CPU"] for node in nodes()), default=1))


def find_node(wanted: str) -> Mapping[str, Any]:
    """A machine by its name, address or the beginning of its id; raises `OptionError` where that is not one."""
    named = {f"{node['NodeName']} ({node['NodeID'][:12]})": node for node in nodes()}
    found = [
        node
        for node in named.values()
        if wanted in (node["NodeName"], node["NodeManagerAddress"]) or node["NodeID"].startswith(wanted)
    ]
    if len(found) == 1:
        return found[0]
    what = "no machine" if not found else f"{len(found)} machines"
    raise OptionError(
        f"--price-on {wanted}: {what} of the cluster with room for workers goes by that. Choose one by its id: "
        f"{', '.join(named) or 'there is none'}."
    )


def environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}

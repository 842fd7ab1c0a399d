"""``litestage serve``."""

from __future__ import annotations

from typing import Annotated

from litestage.cli import spelling as o
from litestage.cli.console import ERR
from litestage.core.errors import OptionError
from litestage.jobs.options import (
    ClusterOptions,
    DataOptions,
    DecodingOptions,
    ModelOptions,
    ReplicaOptions,
    ServeOptions,
)


def command(
    model: ModelOptions,
    data: Annotated[DataOptions, o.Taken(only=("task", "shots", "answering"))],
    decoding: Annotated[DecodingOptions, o.Taken(only=("batch_size",))],
    *,
    options: ServeOptions,
    cluster: Annotated[
        ClusterOptions,
        o.Taken(only=("cluster",), help={"cluster": "Serve on a Ray cluster: local, auto or HOST:PORT."}),
    ],
    replicas: ReplicaOptions,
) -> None:
    """Answer over HTTP: staged questions, bare texts and decisions, with plans by name, and a page at / to watch.

    Example: [bold]litestage serve --task everyday --plan fast=runs/quickstart/plan[/]
    """
    o.quiet_transformers()
    try:
        from litestage.serve.server import Asked, Serving
    except ModuleNotFoundError as error:
        raise OptionError(
            f"A server needs packages that are not installed ({error.name} is the first). "
            'Get them by `pip install "litestage[serve]"`.'
        ) from None

    def tell(line: str) -> None:
        ERR.print(line, highlight=False, markup=False)

    asked = Asked.of(model, data, decoding, options)
    if cluster.cluster is None:
        Serving(asked, tell).run()
        return
    from litestage.serve.replicas import run

    run(asked, cluster, replicas, tell)

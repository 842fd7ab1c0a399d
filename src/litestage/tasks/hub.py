"""Question sets from the Hugging Face hub, by name, brought to the fields of a JSONL question file.

The splits follow one convention: a set whose official test has no labels is tested on its official validation split,
and gives up as dev those train questions whose ids have the smallest SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from litestage.core.errors import DataError, LitestageError

Row = Mapping[str, Any]
Fields = dict[str, Any]


def obqa_fields(row: Row) -> Fields:
    """OpenBookQA; the fact behind the question is there in the config ``additional`` only."""
    return {"question": row["question_stem"], "recall": row.get("fact1"), **_lettered(row)}


def csqa_fields(row: Row) -> Fields:
    """CommonsenseQA."""
    return {"question": row["question"], "concept": row["question_concept"], **_lettered(row)}


def strategyqa_fields(row: Row) -> Fields:
    """StrategyQA: yes comes first; facts are one text or a list of sentences."""
    facts = row["facts"] if isinstance(row["facts"], str) else " ".join(row["facts"])
    return {
        "id": row["qid"],
        "question": row["question"],
        "choices": ["yes", "no"],
        "answer": 0 if row["answer"] else 1,
        "recall": facts.strip() or None,
        "term": row["term"],
    }


def _lettered(row: Row) -> Fields:
    labels, texts = row["choices"]["label"], row["choices"]["text"]
    return {"id": row["id"], "choices": list(texts), "answer": list(labels).index(row["answerKey"])}


@dataclass(frozen=True)
class HubSet:
    """Where a set lies on the hub and how its columns and splits are to be read."""

    repo: str
    config: str | None
    splits: Mapping[str, str]
    """The hub's name of each of our splits."""
    fields: Callable[[Row], Fields]
    dev_size: int = 0
    """How many train questions become dev; 0 where dev is a split of its own."""


HUB = {
    "obqa": HubSet(
        "allenai/openbookqa", "additional", {"train": "train", "dev": "validation", "test": "test"}, obqa_fields
    ),
    "csqa": HubSet(
        "tau/commonsense_qa", None, {"train": "train", "dev": "train", "test": "validation"}, csqa_fields, dev_size=1000
    ),
    "strategyqa": HubSet(
        "ChilleD/StrategyQA", None, {"train": "train", "dev": "train", "test": "test"}, strategyqa_fields, dev_size=229
    ),
}


def hub_rows(hub_set: HubSet, split: str) -> list[Fields]:
    """The questions of one split; raises `DataError` without the library, `LitestageError` without the hub."""
    source = hub_set.splits[split]
    rows = [_fields(row, hub_set, source) for row in fetch(hub_set.repo, hub_set.config, source)]
    if not hub_set.dev_size or split == "test":
        return rows
    dev = dev_ids((row["id"] for row in rows), hub_set.dev_size)
    return [row for row in rows if (row["id"] in dev) == (split == "dev")]


def _fields(row: Row, hub_set: HubSet, source: str) -> Fields:
    try:
        return {**hub_set.fields(row), "source": f"{hub_set.repo}/{source}"}
    except (KeyError, ValueError, TypeError) as error:
        raise LitestageError(
            f"{hub_set.repo} ({source}) is no longer as it was: a question has the fields {', '.join(row)} "
            f"and does not fit ({error!r}). Give question files with --data DIR."
        ) from error


def dev_ids(ids: Iterable[str], size: int) -> frozenset[str]:
    """The ``size`` ids with the smallest SHA-256 hex digest."""
    return frozenset(sorted(ids, key=lambda id_: hashlib.sha256(id_.encode()).hexdigest())[:size])


def fetch(repo: str, config: str | None, split: str) -> Iterable[Row]:
    """A split as the hub has it, from the network or from the library's own cache."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError(
            f"{repo} comes from the Hugging Face hub, which needs the library datasets, and that is not installed. "
            'Install it with pip install "litestage[hub]", or give question files with --data DIR.'
        ) from None
    try:
        rows: Iterable[Row] = load_dataset(repo, config, split=split)
    except Exception as error:  # the library lets every kind of network, cache and format error through
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
        raise LitestageError(
            f"{repo} ({split}) could not be had from the Hugging Face hub: {reason}. "
            "Check the network and try again, or give question files with --data DIR."
        ) from error
    return rows

"""Write three-stage questions about everyday things from a table of facts.

Everything follows from the table and one seed, so the set needs no download and
is the same on every machine. Some true (thing, property) pairs never appear in a
training question: training only states them in passing, which lets a test ask
whether a model can use a fact it has read but was never asked about.
"""

from __future__ import annotations

import argparse
import json
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import islice
from typing import Any, Literal, get_args

Split = Literal["train", "dev", "test", "certify"]

SIZES: dict[str, int] = {"train": 16_000, "dev": 400, "test": 600, "certify": 2_400}
SEED = "litestage everyday 2"
CHOICES = 4
HELD_OUT_SHARE = 0.2  # of the true pairs, kept out of the training questions
HELD_OUT_QUESTIONS = 0.28  # of the dev and test questions
ARTICLES = ("a", "an", "some", "the", "")
MOST_TRIES = 1_000

NAMES = (
    "Anna", "Ben", "Carla", "David", "Emma", "Finn", "Grace", "Henry",
    "Iris", "Jack", "Kim", "Leo", "Maya", "Nina", "Omar", "Sam",
)  # fmt: skip

RIGHT = "{facts}. It {verdict}, so this choice is right."
WRONG = "{facts}. It {verdict}, so this choice is wrong."


@dataclass(frozen=True)
class Property:
    """Something that is plainly true or plainly false of most things."""

    key: str
    has: str
    lacks: str
    recall: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Thing:
    """An everyday thing; a property that is neither true nor doubtful is false."""

    name: str
    article: str
    true: tuple[str, ...]
    doubtful: tuple[str, ...]

    @property
    def phrase(self) -> str:
        """The name with its article, as it stands among the choices."""
        return f"{self.article} {self.name}".strip()

    def lacks(self, key: str) -> bool:
        """Whether the property is plainly false, and so safe as a wrong choice."""
        return key not in self.true and key not in self.doubtful


@dataclass(frozen=True)
class Knowledge:
    """The whole table, in the order in which it is written."""

    properties: tuple[Property, ...]
    things: tuple[Thing, ...]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every true (thing name, property key) pair, in table order."""
        return tuple((thing.name, key) for thing in self.things for key in thing.true)


@dataclass(frozen=True)
class _Case:
    """What one question asks, before it is put into words."""

    prop: Property
    right: Thing
    choices: tuple[Thing, ...]
    pair_seen: bool

    @property
    def combination(self) -> tuple[str, frozenset[str]]:
        """What must not come back in another question, whatever the wording."""
        return self.prop.key, frozenset(thing.name for thing in self.choices)


@lru_cache(maxsize=1)
def knowledge() -> Knowledge:
    """Load and check the table once; a broken table should fail before any use."""
    text = resources.files(__package__).joinpath("knowledge.toml").read_text("utf-8")
    table = tomllib.loads(text)
    loaded = Knowledge(
        properties=tuple(_property(row) for row in table["property"]),
        things=tuple(_thing(row) for row in table["thing"]),
    )
    _check(loaded)
    return loaded


def questions(split: Split, limit: int | None = None) -> list[dict[str, Any]]:
    """Return a split's questions; a limit keeps the order and only cuts the end."""
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SIZES)}")
    if limit is not None and limit < 0:
        raise ValueError(f"limit must be zero or more, not {limit}")
    rng = random.Random(f"{SEED} {split} words")
    cases = islice(_cases(split), limit)
    return [_question(split, number, case, rng) for number, case in enumerate(cases)]


@lru_cache(maxsize=1)
def held_out_pairs() -> frozenset[tuple[str, str]]:
    """Return the true pairs that no training question asks about.

    They are drawn property by property, so that each property keeps about the
    same share and none loses most of its examples. A thing keeps at least one
    pair that training does ask about.
    """
    rng = random.Random(f"{SEED} held out")
    table = knowledge()
    left = {thing.name: len(thing.true) for thing in table.things}
    chosen: set[tuple[str, str]] = set()
    for prop in table.properties:
        names = [thing.name for thing in table.things if prop.key in thing.true]
        rng.shuffle(names)
        spare = [name for name in names if left[name] > 1]
        for name in spare[: round(len(names) * HELD_OUT_SHARE)]:
            left[name] -= 1
            chosen.add((name, prop.key))
    return frozenset(chosen)


def _property(row: dict[str, Any]) -> Property:
    return Property(
        key=row["key"],
        has=row["has"],
        lacks=row["lacks"],
        recall=tuple(row["recall"]),
        questions=tuple(row["questions"]),
    )


def _thing(row: dict[str, Any]) -> Thing:
    return Thing(
        name=row["name"],
        article=row["article"],
        true=tuple(row["true"]),
        doubtful=tuple(row["doubtful"]),
    )


def _check(table: Knowledge) -> None:
    """Reject a table that could give a wrong or an unanswerable question."""
    keys = [prop.key for prop in table.properties]
    _check_distinct("property", keys)
    _check_distinct("thing", [thing.name for thing in table.things])
    for thing in table.things:
        _check_thing(thing, frozenset(keys))
    for prop in table.properties:
        _check_property(prop, table.things)


def _check_distinct(kind: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"knowledge table repeats a {kind}: {', '.join(repeated)}")


def _check_thing(thing: Thing, keys: frozenset[str]) -> None:
    named = thing.true + thing.doubtful
    unknown = sorted(set(named) - keys)
    if unknown:
        raise ValueError(f"{thing.name!r} names unknown properties: {unknown}")
    if len(set(named)) != len(named):
        raise ValueError(f"{thing.name!r} names a property twice")
    if not thing.true:
        raise ValueError(f"{thing.name!r} has no true property")
    if thing.article not in ARTICLES:
        raise ValueError(f"{thing.name!r} has an unknown article {thing.article!r}")


def _check_property(prop: Property, things: tuple[Thing, ...]) -> None:
    if not prop.recall or not prop.questions:
        raise ValueError(f"property {prop.key!r} needs recall and question wordings")
    for wording in prop.questions:
        if prop.has in wording or not wording.endswith("?"):
            raise ValueError(f"property {prop.key!r} has a bad question: {wording!r}")
    true = sum(prop.key in thing.true for thing in things)
    false = sum(thing.lacks(prop.key) for thing in things)
    if not true or false < CHOICES - 1:
        raise ValueError(f"property {prop.key!r}: {true} true and {false} false things")


def _cases(split: Split) -> Iterator[_Case]:
    """Give a split's cases in order, none of which another split can give.

    Test and dev are small, so they draw first and training goes around them. Certify goes around all three.
    """
    if split == "test":
        yield from _test_cases()
    elif split == "dev":
        yield from _dev_cases()
    elif split == "certify":
        yield from _draw("certify", _taken_by_training())
    else:
        yield from _draw("train", {case.combination for case in _test_cases() + _dev_cases()})


@lru_cache(maxsize=1)
def _test_cases() -> tuple[_Case, ...]:
    return tuple(_draw("test", set()))


@lru_cache(maxsize=1)
def _dev_cases() -> tuple[_Case, ...]:
    return tuple(_draw("dev", {case.combination for case in _test_cases()}))


def _taken_by_training() -> set[tuple[str, frozenset[str]]]:
    taken = {case.combination for case in _test_cases() + _dev_cases()}
    for _ in _draw("train", taken):  # which adds its own
        pass
    return taken


def _draw(split: Split, taken: set[tuple[str, frozenset[str]]]) -> Iterator[_Case]:
    """Draw cases with fresh combinations, and keep the four letters balanced."""
    rng = random.Random(f"{SEED} {split} cases")
    pools = _pools()
    for number in range(SIZES[split]):
        if number % CHOICES == 0:
            letters = rng.sample(range(CHOICES), CHOICES)
        seen = split == "train" or rng.random() >= HELD_OUT_QUESTIONS
        case = _fresh_case(rng, pools, seen, letters[number % CHOICES], taken)
        taken.add(case.combination)
        yield case


def _fresh_case(
    rng: random.Random,
    pools: tuple[_Pool, ...],
    seen: bool,
    letter: int,
    taken: set[tuple[str, frozenset[str]]],
) -> _Case:
    for _ in range(MOST_TRIES):
        pool = rng.choice(pools)
        right = rng.choice(pool.seen if seen else pool.held_out)
        choices = rng.sample(pool.false, CHOICES - 1)
        choices.insert(letter, right)
        case = _Case(pool.prop, right, tuple(choices), seen)
        if case.combination not in taken:
            return case
    raise RuntimeError("the knowledge table is too small for so many questions")


@dataclass(frozen=True)
class _Pool:
    """The things that can be right or wrong choices for one property."""

    prop: Property
    seen: tuple[Thing, ...]
    held_out: tuple[Thing, ...]
    false: tuple[Thing, ...]


@lru_cache(maxsize=1)
def _pools() -> tuple[_Pool, ...]:
    table, hidden = knowledge(), held_out_pairs()
    return tuple(_pool(prop, table.things, hidden) for prop in table.properties)


def _pool(prop: Property, things: tuple[Thing, ...], hidden: frozenset[tuple[str, str]]) -> _Pool:
    true = [thing for thing in things if prop.key in thing.true]
    return _Pool(
        prop=prop,
        seen=tuple(thing for thing in true if (thing.name, prop.key) not in hidden),
        held_out=tuple(thing for thing in true if (thing.name, prop.key) in hidden),
        false=tuple(thing for thing in things if thing.lacks(prop.key)),
    )


def _question(split: Split, number: int, case: _Case, rng: random.Random) -> dict[str, Any]:
    prop = case.prop
    name = rng.choice(NAMES)
    return {
        "id": f"everyday-{split}-{number:05d}",
        "question": rng.choice(prop.questions).replace("{name}", name),
        "choices": [thing.phrase for thing in case.choices],
        "answer": case.choices.index(case.right),
        "recall": rng.choice(prop.recall),
        "analysis": [_analysis(thing, prop) for thing in case.choices],
        "source": f"litestage everyday, {split}",
        "property": prop.key,
        "object": case.right.name,
        "pair_seen": case.pair_seen,
    }


def _analysis(thing: Thing, prop: Property) -> str:
    """Say all that is true of one choice, then judge it. The text goes on where the prompt named the choice.

    The facts are how training gets to state the pairs it never asks about.
    """
    right = prop.key in thing.true
    facts = _listed([_clauses()[key] for key in thing.true])
    return (RIGHT if right else WRONG).format(facts=facts, verdict=prop.has if right else prop.lacks)


def _listed(clauses: list[str]) -> str:
    """Join clauses as a sentence does: one, two and three."""
    return " and ".join([", ".join(clauses[:-1]), clauses[-1]] if clauses[1:] else clauses)


@lru_cache(maxsize=1)
def _clauses() -> dict[str, str]:
    return {prop.key: prop.has for prop in knowledge().properties}


def main() -> None:
    """Print a split as JSON lines, to read it or to pass it on."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--split", choices=get_args(Split), default="test")
    parser.add_argument("--limit", type=int, default=None)
    arguments = parser.parse_args()
    for question in questions(arguments.split, arguments.limit):
        print(json.dumps(question))


if __name__ == "__main__":
    main()

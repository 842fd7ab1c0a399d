"""A GGUF file, alone or in parts: its keys and tensors, by name, and what became of each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gguf import GGMLQuantizationType, GGUFEndian, GGUFReader, dequantize
from gguf.constants import GGML_QUANT_SIZES
from numpy.typing import NDArray

from litestage.core import ModelError
from litestage.models.ledger import Entry, Kind, Ledger, Verdict

MAGIC = b"GGUF"
WRONG: tuple[Verdict, ...] = ("refused", "missing")
PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)
"""The name of one part of a file that was split."""


def is_gguf(path: Path) -> bool:
    """Whether a file is one by its name or by its first bytes (some programs keep them without a suffix)."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor as it lies in the file."""

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    """Rows first, as in PyTorch; the file has them the other way round."""
    data: Any

    def values(self) -> NDArray[np.float32]:
        """Unpacked, in fp32."""
        return np.array(dequantize(self.data, self.kind), dtype=np.float32).reshape(self.shape)


@dataclass
class GgufFile:
    """Keys and tensors of a file and of its parts, in their order."""

    path: Path
    source: str
    """What a person calls it."""
    fields: dict[str, Any]
    tensors: dict[str, Stored]
    _values: dict[str, Any] = field(default_factory=dict)

    def value(self, key: str) -> Any:
        """A key's value, or None."""
        if key not in self.fields:
            return None
        if key not in self._values:
            self._values[key] = self.fields[key].contents()
        return self._values[key]

    @cached_property
    def architecture(self) -> str:
        return str(self.value("general.architecture"))

    def own(self, key: str) -> str:
        """The whole name of a key of the file's architecture."""
        return f"{self.architecture}.{key}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(of(one) for one in value)


FORMS: dict[str, Callable[[Any], bool]] = {
    "a text": lambda value: isinstance(value, str),
    "a number": _is_number,
    "a number from 0 on": lambda value: _is_number(value) and value >= 0,
    "a number above 0": lambda value: _is_number(value) and value > 0,
    "a whole number": _counts,
    "yes or no": lambda value: isinstance(value, bool | int),
    "a list of texts": lambda value: _is_list(value, lambda one: isinstance(one, str)),
    "a list of numbers": lambda value: _is_list(value, _is_number),
    "a number, or one for each block": lambda value: _is_number(value) or _is_list(value, _is_number),
    "a whole number, or one for each block": lambda value: _counts(value) or _is_list(value, _counts),
    "a number, or yes or no for each block": lambda value: (
        _is_number(value) or _is_list(value, lambda one: isinstance(one, bool | int))
    ),
}
"""What the value of a key may be."""


class Account:
    """What became of each key and tensor, as those who read them say."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self._entries: dict[tuple[Kind, str], Entry] = {}

    def note(self, kind: Kind, name: str, verdict: Verdict, why: str) -> None:
        """The first word on a name counts, but a refusal overrules it."""
        if verdict in WRONG or (kind, name) not in self._entries:
            self._entries[kind, name] = Entry(kind, name, verdict, why)

    def use(self, key: str, why: str, form: str) -> Any:
        """The value of a key of the file, or None; noted as used where it is there. ``form`` is one of `FORMS`."""
        value = self.file.value(key)
        if value is None:
            return None
        if not FORMS[form](value):
            self.stop(key, f"it is {str(value)[:40]}, and {form} belongs there.")
        self.note("key", key, "used", why)
        return value

    def refuse(self, key: str, why: str) -> None:
        self.note("key", key, "refused", why)

    def stop(self, name: str, why: str, kind: Kind = "key") -> NoReturn:
        """Refuse what nothing more can be read without."""
        self.note(kind, name, "refused", why)
        raise ModelError(f"{self.file.source} holds the {kind} {name}: {why}")

    def lack(self, kind: Kind, name: str, why: str) -> NoReturn:
        """Note what is not there, where nothing more can be read without it."""
        self.note(kind, name, "missing", why)
        raise ModelError(f"{self.file.source} lacks the {kind} {name}: {why}")

    @property
    def is_wrong(self) -> bool:
        """Whether the file cannot be run."""
        return any(entry.verdict in WRONG for entry in self._entries.values())

    def knows(self, kind: Kind, name: str) -> bool:
        return (kind, name) in self._entries

    def names(self) -> Iterator[tuple[Kind, str]]:
        """All that the file holds, keys first."""
        yield from (("key", name) for name in self.file.fields)
        yield from (("tensor", name) for name in self.file.tensors)

    def ledger(self) -> Ledger:
        in_order = [*self.names(), *(one for one, entry in self._entries.items() if entry.verdict in WRONG)]
        return Ledger(self.file.source, [self._entries[one] for one in dict.fromkeys(in_order) if one in self._entries])


def open_gguf(path: Path, source: str) -> GgufFile:
    """A file with all its parts; `ModelError` says what is wrong with one that cannot be read."""
    if not path.stat().st_size:
        raise ModelError(f"Model {source!r} is an empty file, perhaps a download that broke off. Fetch it again.")
    fields: dict[str, Any] = {}
    tensors: dict[str, Stored] = {}
    for place in _parts(path, source):
        reader = _reader(place)
        of_part = {name: value for name, value in reader.fields.items() if not name.startswith("GGUF.")}
        for name, value in of_part.items():
            if name in fields and not name.startswith("split.") and value.contents() != fields[name].contents():
                raise ModelError(f"{place} holds another {name} than the first part: they are parts of two models.")
        fields = of_part | fields
        for one in reader.tensors:
            if one.name in tensors:
                raise ModelError(f"{place} holds the tensor {one.name} a second time: the parts overlap.")
            shape = tuple(int(size) for size in reversed(one.shape.tolist()))
            while len(shape) > 1 and shape[0] == 1:  # sizes of 1 that say nothing
                shape = shape[1:]
            tensors[one.name] = Stored(one.name, one.tensor_type, shape, one.data)
    file = GgufFile(path, source, fields, tensors)
    _check_count(file)
    return file


def _parts(path: Path, source: str) -> list[Path]:
    """The file, or all the parts that one belongs to."""
    named = PART.fullmatch(path.name)
    if named is None:
        return [path]
    count = int(named["count"])
    parts = [
        path.with_name(f"{named['stem']}-{number:05d}-of-{count:05d}{named['suffix']}")
        for number in range(1, count + 1)
    ]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise ModelError(
            f"Model {source!r} is part {int(named['number'])} of {count}, and {missing[0]} does not lie beside it "
            f"({len(missing)} missing in all). Put all parts into one folder."
        )
    return parts


def _check_count(file: GgufFile) -> None:
    """A renamed part would otherwise be half a model."""
    expected = file.value("split.tensors.count")
    count = file.value("split.count")
    parts = "1 part" if count == 1 else f"{count} parts"
    if expected is not None and expected != len(file.tensors):
        raise ModelError(
            f"Model {file.source!r} was split into {parts} with {expected} tensors in all, and "
            f"{len(file.tensors)} are here. Give the parts the names they had, which end in -00001-of-0000N.gguf."
        )


class _Reader(GGUFReader):  # type: ignore[misc]
    """The gguf package's, over a plain array: each slice of a mapped file would be one, at twice the time."""

    @property
    def data(self) -> NDArray[np.uint8]:
        return self._plain

    @data.setter
    def data(self, mapped: NDArray[np.uint8]) -> None:
        self._plain = mapped.view(np.ndarray)


REMOVED = dict(zip((4, 5), ("Q4_2", "Q4_3"), strict=True))
REMOVED |= dict(zip((31, 32, 33), ("Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8"), strict=True))
REMOVED |= dict(zip((36, 37, 38), ("IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8"), strict=True))
"""Types that were taken out of the format, by the numbers that they had."""


def _said(error: Exception) -> str:
    """What is wrong with a file that the gguf package does not read."""
    said = str(error.args[0] if error.args else error).strip().split("\n")[0].rstrip(".")
    if removed := re.search(r"(\d+)\)? is not a valid GGMLQuantizationType", said):
        kind = int(removed[1])
        known = f", {REMOVED[kind]}, which was taken out of the format" if kind in REMOVED else ", which nobody knows"
        return f" holds a tensor of type {kind}{known}. Quantise the model again, from one that was not."
    if version := re.search(r"version ([1-9]\d?) ", said):
        return f" is of version {version[1]} of the format; 2 and 3 are read. Convert the model again."
    if twice := re.match(r"Duplicate (\S+)", said):
        return f" holds the key {twice[1]} twice. Fetch it again."
    about = f" ({said})" if said and type(error) is ValueError else ""
    return f" is no GGUF file, is cut short or damaged, or counts other keys than it has{about}. Fetch it again."


def _reader(path: Path) -> Any:
    try:
        reader = _Reader(path)
    except Exception as error:  # it raises whatever a wrong offset leads to
        raise ModelError(f"{path}{_said(error)}") from None
    if reader.endianess == GGUFEndian.BIG:
        raise ModelError(f"{path} has its bytes in big-endian order; litestage reads little-endian files.")
    _check_places(path, reader)
    return reader


def _check_places(path: Path, reader: Any) -> None:
    """Each tensor begins where the one before it ends, and the file ends with the last, up to padding."""
    if not reader.tensors:
        return
    end = begin = int(reader.data_offset)
    for one in reader.tensors:
        if one.data_offset != begin:
            raise ModelError(
                f"{path} holds the tensor {one.name} at byte {one.data_offset}, and it belongs at {begin}, behind the "
                "one before it: the file is damaged. Fetch it again."
            )
        end = begin + int(one.n_bytes)
        begin = end + -end % int(reader.alignment)
    if (left := path.stat().st_size - end) > int(reader.alignment):
        raise ModelError(
            f"{path} goes on for {left} bytes behind its last tensor, {reader.tensors[-1].name}: it holds more than it "
            "says, so it is damaged. Fetch it again."
        )


def can_unpack(kind: GGMLQuantizationType) -> bool:
    """Whether the gguf package turns tensors of a type into fp32; tried on one block of zeros."""
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8), kind)
    except NotImplementedError:
        return False
    return True

"""How a file says that positions are turned, in transformers' words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from litestage.models.gguf.architectures import FREQUENCIES, LONG, SHORT, Architecture
from litestage.models.gguf.file import Account

BASE = 10000.0
"""Of rotation, where the file names none."""
SCALINGS = ("none", "linear", "yarn", "longrope")
YARN = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}


@dataclass(frozen=True, slots=True)
class Rotary:
    """One file's keys and tensors of rotation."""

    account: Account
    architecture: Architecture
    head_size: int
    context: int

    def parameters(self) -> dict[str, Any]:
        """A config's ``rope_parameters``; by layer type where blocks with a window have a base of their own."""
        parameters = self._scaling() | self._share()
        key = self.account.file.own("rope.freq_base_swa")
        local = self.account.use(key, "the base of rotation in blocks with a window", "a number above 0")
        if self.architecture.local_base is None:
            if local is not None:
                self.account.refuse(key, "this family turns positions alike in all blocks.")
            return parameters
        own = {"rope_type": "default", "rope_theta": self.architecture.local_base if local is None else float(local)}
        return {"full_attention": parameters, "sliding_attention": own}

    @property
    def turned(self) -> int:
        """Dimensions of a head that are turned."""
        key = self.account.file.own("rope.dimension_count")
        turned = self.account.use(key, "how much of a head is turned", "a whole number")
        if turned is not None and (turned % 2 or not 0 < turned <= self.head_size):
            self.account.stop(key, f"{turned} of a head's {self.head_size} dimensions cannot be turned in pairs.")
        return self.head_size if turned is None else int(turned)

    def _share(self) -> dict[str, float]:
        """The part of a head that is turned, such that transformers finds the number of dimensions again."""
        if not self.architecture.partial_rotary:
            if self.turned != self.head_size:
                self.account.refuse(
                    self.account.file.own("rope.dimension_count"),
                    f"it turns {self.turned} of a head's {self.head_size} dimensions, and this family all of them.",
                )
            return {}
        share = self.turned / self.head_size
        return {
            "partial_rotary_factor": share if int(self.head_size * share) == self.turned else math.nextafter(share, 2)
        }

    def _scaling(self) -> dict[str, Any]:
        """The scaling of all blocks, or of those without a window."""
        base = self.account.file.own("rope.freq_base")
        base = self.account.use(base, "the base of rotation (rope_theta)", "a number above 0")
        theta = {"rope_theta": BASE if base is None else float(base)}
        kind = self.account.use(self.account.file.own("rope.scaling.type"), "the kind of scaling", "a text") or "linear"
        if kind not in SCALINGS:
            self.account.refuse(
                self.account.file.own("rope.scaling.type"), f"{kind!r} is a way of turning positions not known here."
            )
        factor = self._factor(kind)
        stretch = self._number("rope.scaling.attn_factor", 1.0, "multiplies cosines and sines")
        if stretch != 1.0 and self.architecture.local_base is not None:
            self.account.refuse(
                self.account.file.own("rope.scaling.attn_factor"),
                f"it is {stretch:g}, and models of this family turn positions without a stretch.",
            )
        original = int(
            self._number("rope.scaling.original_context_length", float(self.context), "where scaling begins")
        )
        if kind == "yarn":
            return {"rope_type": "yarn"} | theta | self._yarn(factor, stretch, original)
        short, long = self._divisors(SHORT), self._divisors(LONG)
        each = self._divisors(FREQUENCIES)
        if short is None or long is None:
            for name, other, alone in ((SHORT, LONG, short), (LONG, SHORT, long)):
                if alone is not None:
                    self.account.note("tensor", name, "refused", f"stands without {other}.")
            self._check_complete(kind, original)
            if each is None and stretch == 1.0 and (factor == 1.0 or self.architecture.model_type != "phi3"):
                return (
                    {"rope_type": "default"} if factor == 1.0 else {"rope_type": "linear", "factor": factor}
                ) | theta
            short = long = each or [1.0] * (self.turned // 2)
            original = self.context
        scales = {"short_factor": [one * factor for one in short], "long_factor": [one * factor for one in long]}
        rest = {"attention_factor": stretch, "original_max_position_embeddings": original}
        return {"rope_type": "longrope"} | theta | scales | rest

    def _check_complete(self, kind: str, original: int) -> None:
        """Files of long contexts were once written without the factors that their models have."""
        if kind == "longrope" and SHORT not in self.architecture.rope_factors:
            self.account.refuse(
                self.account.file.own("rope.scaling.type"), "models of this family are not scaled by longrope here."
            )
        elif kind == "longrope":
            why = f"longrope divides frequencies by {SHORT} and {LONG}, and they are not there."
            self.account.refuse(self.account.file.own("rope.scaling.type"), why)
        elif self.architecture.model_type == "phi3" and original < self.context:
            why = f"it is less than the {self.context} of context_length, and {LONG} is not there to stretch it."
            self.account.refuse(self.account.file.own("rope.scaling.original_context_length"), why)

    def _factor(self, kind: str) -> float:
        """By how much positions are squeezed."""
        old = self._number("rope.scale_linear", 1.0, "how much positions are squeezed")
        factor = self._number("rope.scaling.factor", old, "how much positions are squeezed")
        return 1.0 if kind == "none" or not factor else factor

    def _yarn(self, factor: float, stretch: float, original: int) -> dict[str, Any]:
        own = self.account.file.own
        if self.architecture.model_type == "phi3" or self.architecture.local_base is not None:
            self.account.refuse(own("rope.scaling.type"), "this family is not scaled by yarn.")
        if factor < 1:
            self.account.refuse(own("rope.scaling.factor"), f"yarn stretches texts, and {factor:g} would shorten them.")
        for name in (FREQUENCIES, SHORT, LONG):
            if name in self.account.file.tensors:
                self.account.note("tensor", name, "refused", "scales frequencies that yarn scales too.")
        parameters: dict[str, Any] = {"factor": factor, "original_max_position_embeddings": original}
        usual = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
        if stretch != 1.0:
            parameters["attention_factor"] = usual * stretch
        for key, name in YARN.items():
            if (value := self.account.use(own(f"rope.scaling.{key}"), name, "a number above 0")) is not None:
                parameters[name] = float(value)
        if self._number("rope.scaling.yarn_ext_factor", 1.0, "1 is yarn as it is known") != 1.0:
            self.account.refuse(own("rope.scaling.yarn_ext_factor"), "it blends frequencies otherwise than yarn does.")
        said = self._number("rope.scaling.yarn_attn_factor", usual, "what yarn multiplies cosines and sines by")
        if not math.isclose(said, usual, rel_tol=1e-5):
            self.account.refuse(
                own("rope.scaling.yarn_attn_factor"),
                f"programs disagree whether {said:g} stands for yarn's own {usual:.4g} or multiplies it.",
            )
        return parameters

    def _divisors(self, name: str) -> list[float] | None:
        """A tensor of numbers that frequencies are divided by."""
        tensor = self.account.file.tensors.get(name)
        if tensor is None or name not in self.architecture.rope_factors:
            return None
        if tensor.shape != (self.turned // 2,):
            self.account.note(
                "tensor",
                name,
                "refused",
                f"has the shape {list(tensor.shape)} where {self.turned // 2} numbers belong.",
            )
            return None
        divisors = [float(one) for one in tensor.values()]
        if not all(math.isfinite(one) and one > 0 for one in divisors):
            self.account.stop(name, "holds what is no divisor: zero, less, or no number.", "tensor")
        self.account.note("tensor", name, "used", "divides the frequencies of rotation")
        return divisors

    def _number(self, key: str, default: float, why: str) -> float:
        value = self.account.use(self.account.file.own(key), why, "a number from 0 on")
        return default if value is None else float(value)

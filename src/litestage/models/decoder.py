"""The one decoder: blocks of sub-layers over our own KV cache, at any skip set.

Shape suffixes: B rows, T tokens, S cache slots read, D width, H query heads, K KV heads, N heads of all kinds, E head
size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, reduce
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from litestage.core import EMPTY, SkipSet, SubLayer, sub_layers
from litestage.kernels.kernels import Heads, Kernels, SharedPrefixes, Tokens, Turn
from litestage.models.cache import Cache

Hidden = Float[Tensor, "B T D"]
Observer = Callable[[SubLayer, Hidden, Hidden], None]
"""Called with a sub-layer, the residual stream before it and after it."""


class Activation(NamedTuple):
    """A gate's function, by transformers' name."""

    name: str
    function: Callable[[Tensor], Tensor]


@runtime_checkable
class Linear(Protocol):
    """A linear map, alone or with what a sub-layer does just before it; the one place that multiplies by weights."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        ...

    @property
    def nbytes(self) -> int:
        """Of the weights, as they are read in each step."""
        ...

    def __call__(self, x: Float[Tensor, "... I"], onto: Float[Tensor, "... O"] | None = None) -> Float[Tensor, "... O"]:
        """Added to ``onto``, if it is given: a residual stream's work."""
        ...

    def normed(self, x: Float[Tensor, "... I"], norm: Float[Tensor, " I"] | None, eps: float) -> Float[Tensor, "... O"]:
        """Of x after its RMS norm, if there is one."""
        ...

    def gated(
        self, gate_up: Float[Tensor, "... J"], activation: Activation, onto: Float[Tensor, "... O"] | None = None
    ) -> Float[Tensor, "... O"]:
        """Of the second half of the input (J = 2 I), gated by the activated first half; added to ``onto``."""
        ...

    def rows(self, which: Int[Tensor, "*N"]) -> Float[Tensor, "*N I"]:
        """Chosen output rows of the weights: an embedding's work."""
        ...


class LowRank(NamedTuple):
    """A linear map of few dimensions: what an adapter adds to one that large."""

    down: Float[Tensor, "R I"]
    up: Float[Tensor, "R O"]

    @property
    def weight(self) -> Float[Tensor, "O I"]:
        return self.up.T @ self.down

    @classmethod
    def beside(cls, maps: Sequence[LowRank]) -> LowRank:
        """Maps of one input as one, their outputs one after another."""
        return cls(torch.cat([one.down for one in maps]), torch.block_diag(*(one.up for one in maps)))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear map of plain weights."""

    weight: Float[Tensor, "O I"]
    bias: Float[Tensor, " O"] | None = None
    merged: LowRank | None = None
    """What of the weight came from an adapter: rounding to few bits would lose it."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1]

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    def __call__(self, x: Float[Tensor, "... I"], onto: Float[Tensor, "... O"] | None = None) -> Float[Tensor, "... O"]:
        y = F.linear(x, self.weight, self.bias)
        return y if onto is None else onto + y

    def normed(self, x: Float[Tensor, "... I"], norm: Float[Tensor, " I"] | None, eps: float) -> Float[Tensor, "... O"]:
        return self(x if norm is None else F.rms_norm(x, norm.shape, norm, eps))

    def gated(
        self, gate_up: Float[Tensor, "... J"], activation: Activation, onto: Float[Tensor, "... O"] | None = None
    ) -> Float[Tensor, "... O"]:
        gate, up = gate_up.chunk(2, dim=-1)
        return self(activation.function(gate) * up, onto)

    def rows(self, which: Int[Tensor, "*N"]) -> Float[Tensor, "*N I"]:
        return F.embedding(which, self.weight)


@dataclass(frozen=True, slots=True)
class Attention:
    """Weights of an attention sub-layer: queries, keys and values come from one product."""

    norm: Float[Tensor, " D"] | None
    """Before the sub-layer; None for a family that has its norms behind."""
    qkv: Linear
    out: Linear
    head_norm: Float[Tensor, "N E"] | None
    """Weights of the norm over each query and key head, or None."""
    window: int | None
    """How many tokens back a token sees; None for all."""
    rotary: str | None = ""
    """Which tables turn queries and keys; None for a block without positions."""
    whole_norm: tuple[Float[Tensor, " Q"], Float[Tensor, " R"]] | None = None
    """Weights of the norms over all query heads and over all key heads together, or None."""
    post_norm: Float[Tensor, " D"] | None = None
    """Of what the sub-layer adds to the residual stream."""


@dataclass(frozen=True, slots=True)
class Ffn:
    """Weights of a gated FFN sub-layer: gate and up come from one product."""

    norm: Float[Tensor, " D"] | None
    gate_up: Linear
    down: Linear
    post_norm: Float[Tensor, " D"] | None = None


@dataclass(frozen=True, slots=True)
class Block:
    attention: Attention
    ffn: Ffn


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that the weights do not tell."""

    heads: int
    kv_heads: int
    head_size: int
    norm_eps: float
    max_positions: int
    embedding_scale: float | None = None
    attention_scale: float | None = None
    """Of queries times keys; None is 1 / sqrt(head size)."""
    attention_cap: float | None = None
    """Scores are squeezed between minus and plus this."""
    residual_scale: float | None = None
    """Of what a sub-layer adds to the residual stream."""
    logit_scale: float | None = None
    logit_cap: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What all sub-layers of one forward share."""

    positions: Int[Tensor, "B T"]
    by_kernels: bool
    """Whether kernels attend: they find out by themselves what is above ``cache``."""
    rotary: Mapping[str, tuple[Float[Tensor, "*at E"], Float[Tensor, "*at E"]]]
    """Cosine and sine by table, [B, T, 1, E], or for kernels of all positions; the sine of each head's first half is
    negated: a rotation is two products, a roll."""
    slots: Int[Tensor, " N"] | None
    """Flat cache slots that the new keys and values of all B * T tokens go to."""
    masks: Mapping[int | None, Float[Tensor, "B 1 T S"]]
    """Additive attention mask by window."""
    cache: Cache
    rows: Int[Tensor, " B"]
    """Cache rows of the batch."""
    in_place: bool
    """They are 0 to B-1, and are read without a copy."""
    context: int
    """Slots read: the longest row's length with its new tokens."""
    shared: SharedPrefixes | None = None
    """What kernels may read once for several rows."""

    def of(self, rows: Int[Tensor, " N"]) -> Step:
        """The same for some of its rows."""
        at = None if self.shared is None else rows.to(self.shared.leaders.device)
        return replace(
            self,
            positions=self.positions[rows],
            rotary=self.rotary
            if self.by_kernels
            else {name: (cos[rows], sin[rows]) for name, (cos, sin) in self.rotary.items()},
            slots=None if self.slots is None else self.slots.view(self.positions.shape)[rows].flatten(),
            masks={window: mask[rows] for window, mask in self.masks.items()},
            rows=self.rows[rows],
            in_place=False,
            shared=None if self.shared is None else SharedPrefixes(*(part[at] for part in self.shared)),
        )


@dataclass(frozen=True, slots=True)
class Affine:
    """A stand-in for skipped sub-layers: x becomes ``scale * x + up(down x) + shift``.

    What is None costs nothing. ``down`` and ``up`` are the two sides of a map of low rank R.
    """

    scale: Float[Tensor, "*scale"] | None = None
    shift: Float[Tensor, " D"] | None = None
    down: Float[Tensor, "R D"] | None = None
    up: Float[Tensor, "D R"] | None = None

    def __call__(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        y = x if self.scale is None else x * self.scale
        if self.down is not None and self.up is not None:
            y = y + F.linear(F.linear(x, self.down), self.up)
        return y if self.shift is None else y + self.shift

    def beside(self, x: Float[Tensor, "... D"]) -> Affine:
        """The same where ``x`` is, in its number format."""
        parts = {one.name: part for one in fields(self) if (part := getattr(self, one.name)) is not None}
        if all((part.device, part.dtype) == (x.device, x.dtype) for part in parts.values()):
            return self
        return Affine(**{name: part.to(x) for name, part in parts.items()})

    def then(self, other: Affine) -> Affine:
        """One stand-in for this one followed by another: scales and shifts fold into one, ranks add up."""
        moved = None if self.shift is None else other._turned(self.shift)
        shifts = [shift for shift in (moved, other.shift) if shift is not None]
        downs, ups = [], []
        if self.down is not None and self.up is not None:
            downs.append(self.down)
            ups.append(other._turned(self.up.T).T)
        if other.down is not None and other.up is not None:
            downs.append(other.down if self.scale is None else other.down * self.scale)
            ups.append(other.up)
        scales = [one.scale for one in (self, other) if one.scale is not None]
        return Affine(
            scale=reduce(torch.mul, scales) if scales else None,
            shift=sum(shifts[1:], shifts[0]) if shifts else None,
            down=torch.cat(downs) if downs else None,
            up=torch.cat(ups, dim=1) if ups else None,
        )

    def _turned(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """What becomes of a difference between two inputs: all but the shift."""
        return replace(self, shift=None)(x)


Rotary = Mapping[str, Callable[[int], tuple[Float[Tensor, "P E"], Float[Tensor, "P E"]]]]
"""Makers of cosine and sine tables for so many positions, by name."""
CompensationWeights = Mapping[SubLayer, Affine]
"""What stands in for each skipped sub-layer; nothing for those not named."""
LayerProgram = tuple["SubLayer | Affine", ...]
"""What a forward runs: the sub-layers that are kept, and stand-ins for runs of those that are not."""


@dataclass(frozen=True)
class Skips:
    """What is left out of a forward, and what stands in for it."""

    everywhere: SkipSet = EMPTY
    stand: CompensationWeights = field(default_factory=dict)

    def instead(self, layer: SubLayer, x: Hidden) -> Hidden:
        """The residual stream after a skipped sub-layer."""
        return self.stand[layer](x) if layer in self.stand else x

    def program(self, layers: Sequence[SubLayer]) -> LayerProgram:
        """``layers`` without the skipped ones; what stands in for a run of those is folded into one."""
        if not self.everywhere:
            return tuple(layers)
        program: list[SubLayer | Affine] = []
        for layer in layers:
            if layer not in self.everywhere:
                program.append(layer)
            elif layer in self.stand:
                before = program.pop() if program and isinstance(program[-1], Affine) else Affine()
                assert isinstance(before, Affine)
                program.append(before.then(self.stand[layer]))
        return tuple(program)


FULL = Skips()


class Stretch(NamedTuple):
    """Parts of layer programs that some rows of a batch run together."""

    parts: LayerProgram
    rows: Int[Tensor, " N"] | None
    """Places in the batch; None for all."""


def interleave(programs: Sequence[LayerProgram], used: Sequence[int]) -> tuple[Stretch, ...]:
    """One program for a batch whose rows run different ones: ``used`` has each row's.

    A sub-layer runs once, for all rows that keep it; each row meets its parts in its own order.
    """
    stretches: list[tuple[list[SubLayer | Affine], frozenset[int]]] = []

    def run(part: SubLayer | Affine, which: frozenset[int]) -> None:
        if stretches and stretches[-1][1] == which:
            stretches[-1][0].append(part)
        else:
            stretches.append(([part], which))

    at = [0] * len(programs)
    layers = sorted({part for program in programs for part in program if isinstance(part, SubLayer)})
    for layer in (*layers, None):
        keeping = set()
        for which, program in enumerate(programs):
            if at[which] < len(program) and isinstance(part := program[at[which]], Affine):
                run(part, frozenset({which}))
                at[which] += 1
            if at[which] < len(program) and program[at[which]] == layer:
                keeping.add(which)
                at[which] += 1
        if layer is not None:
            run(layer, frozenset(keeping))
    rows = {which: [place for place, one in enumerate(used) if one in which] for _, which in stretches}
    return tuple(
        Stretch(tuple(parts), None if len(rows[which]) == len(used) else torch.tensor(rows[which]))
        for parts, which in stretches
    )


@dataclass(frozen=True, slots=True)
class Weights:
    """All that a decoder learnt, in the order of a forward."""

    embedding: Linear
    blocks: tuple[Block, ...]
    norm: Float[Tensor, " D"]
    head: Linear


class Decoder:
    """A causal transformer over blocks of sub-layers; inference only."""

    def __init__(
        self,
        shape: Shape,
        weights: Weights,
        rotary: Rotary,
        activation: Activation,
        cache_dtype: torch.dtype | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self.shape, self.activation, self.kernels = shape, activation, kernels
        self.embedding, self.blocks = weights.embedding, weights.blocks
        self.norm, self.head = weights.norm, weights.head
        self.cache_dtype = cache_dtype or weights.norm.dtype
        self.layers = sub_layers(len(weights.blocks))
        self._rotary = rotary
        self._tables = self._signed_tables(min(512, shape.max_positions))
        self._outgrown: list[Mapping[str, tuple[Tensor, Tensor]]] = []
        """Tables that recorded steps may still read."""

    @property
    def device(self) -> torch.device:
        return self.norm.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the residual stream."""
        return self.norm.dtype

    @cached_property
    def is_exact(self) -> bool:
        """Whether a token's numbers are the same to the last bit, whatever else its forward computes."""
        maps = [
            one
            for block in self.blocks
            for one in (block.attention.qkv, block.attention.out, block.ffn.gate_up, block.ffn.down)
        ]
        return (
            self.kernels is not None
            and self.kernels.ragged
            and not any(isinstance(one, Projection) for one in (*maps, self.head))
        )

    @cached_property
    def windows(self) -> frozenset[int | None]:
        return frozenset(block.attention.window for block in self.blocks)

    def new_cache(self, rows: int, slots: int) -> Cache:
        shape = self.shape
        return Cache(len(self.blocks), rows, slots, shape.kv_heads, shape.head_size, self.cache_dtype, self.device)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        step: Step,
        program: Sequence[Stretch] | None = None,
        last: Int[Tensor, " B"] | None = None,
        observe: Observer | None = None,
        wanted: Int[Tensor, " N"] | None = None,
        every: bool = False,
    ) -> Float[Tensor, "N V"]:
        """Raw logits of one position a row, after running ``tokens`` at full depth or by a program, which may be empty.

        ``last`` are the tokens whose logits are wanted (default: the only or final one), ``wanted`` the rows, if not
        all. With ``every`` they are those of all tokens, row by row. Tokens beyond a row's end are padding: put them
        at the right.
        """
        x = self.embed(tokens)
        for parts, rows in (Stretch(self.layers, None),) if program is None else program:
            if rows is None:
                x = self.run(x, step, parts, observe)
            else:
                rows = rows.to(x.device)
                x[rows] = self.run(x[rows], step.of(rows), parts)
        if every:
            return self.logits(x.flatten(0, 1))
        if wanted is not None:
            x = x[wanted]
        x = x[:, -1] if last is None else x[torch.arange(len(last), device=x.device), last]
        return self.logits(x)

    def forward_ragged(
        self,
        tokens: Int[Tensor, " N"],
        positions: Int[Tensor, " N"],
        cache: Cache,
        rows: Int[Tensor, " N"],
        wanted: Int[Tensor, " B"],
    ) -> Float[Tensor, "B V"]:
        """What `forward` does for rows of any lengths, token after token and without padding; for kernels alone.

        ``rows`` and ``positions`` are each token's own, ``wanted`` the tokens whose logits are asked for.
        """
        step = self.step(1, positions, cache, rows, cache.slots)
        return self.forward(tokens[:, None], step, wanted=wanted)

    def embed(self, tokens: Int[Tensor, "B T"]) -> Hidden:
        """The residual stream before the first block."""
        x = self.embedding.rows(tokens)
        scale = self.shape.embedding_scale
        return x if scale is None else x * torch.tensor(scale, dtype=x.dtype)  # rounded as the family rounds it

    def logits(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Raw next-token logits from the residual stream after the last block."""
        logits = self.head.normed(x, self.norm, self.shape.norm_eps)
        if self.shape.logit_scale is not None:
            logits = logits * self.shape.logit_scale
        cap = self.shape.logit_cap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def run(self, x: Hidden, step: Step, program: LayerProgram, observe: Observer | None = None) -> Hidden:
        """The residual stream after a program of sub-layers and stand-ins."""
        for part in program:
            y = part(x) if isinstance(part, Affine) else self._after(part, x, step)
            if observe is not None and isinstance(part, SubLayer):
                observe(part, x, y)
            x = y
        return x

    def _after(self, layer: SubLayer, x: Hidden, step: Step) -> Hidden:
        """The residual stream after a sub-layer; its last product adds to it where nothing comes between."""
        block = self.blocks[layer.block]
        part = block.ffn if layer.kind == "ffn" else block.attention
        if part.post_norm is None and self.shape.residual_scale is None:
            return self._body(part, layer.block, x, step, x)
        added = self._body(part, layer.block, x, step)
        if part.post_norm is not None:
            added = self._rms(added, part.post_norm)
        return x + (added if self.shape.residual_scale is None else added * self.shape.residual_scale)

    def _body(self, part: Attention | Ffn, block: int, x: Hidden, step: Step, onto: Hidden | None = None) -> Hidden:
        if isinstance(part, Ffn):
            return part.down.gated(part.gate_up.normed(x, part.norm, self.shape.norm_eps), self.activation, onto)
        return part.out(self._attention(part, block, x, step), onto)

    def _attention(self, weights: Attention, block: int, x: Hidden, step: Step) -> Float[Tensor, "B T Q"]:
        states = weights.qkv.normed(x, weights.norm, self.shape.norm_eps)
        if weights.whole_norm is not None:
            self._norm_whole(states, weights.whole_norm)
        cache = step.cache.data[block]
        if self.kernels is not None and step.by_kernels:
            return self._attend_by_kernel(self.kernels, weights, states, cache, step)
        heads = self._turn(weights, states, step)
        H, K, E = self.shape.heads, self.shape.kv_heads, self.shape.head_size
        assert step.slots is not None
        cache.flatten(0, 1).index_copy_(0, step.slots, heads[:, :, H:].reshape(-1, 2, K, E))
        kv = cache[slice(0, len(step.rows)) if step.in_place else step.rows, : step.context]
        return self._attend(heads[:, :, :H], kv[:, :, 0], kv[:, :, 1], step.masks[weights.window])

    def _attend_by_kernel(
        self, kernels: Kernels, weights: Attention, states: Float[Tensor, "B T M"], cache: Tensor, step: Step
    ) -> Float[Tensor, "B T Q"]:
        shape = self.shape
        scale = shape.attention_scale or shape.head_size**-0.5
        heads = Heads(
            shape.heads, shape.kv_heads, shape.head_size, weights.window or 0, scale, shape.attention_cap or 0.0
        )
        rotary = None if weights.rotary is None else step.rotary[weights.rotary]
        tokens = Tokens(step.positions, step.rows, step.context, step.shared)
        return kernels.attend(states, tokens, Turn(rotary, weights.head_norm, shape.norm_eps), heads, cache)

    def _turn(self, weights: Attention, states: Float[Tensor, "B T M"], step: Step) -> Float[Tensor, "B T N E"]:
        """Rotated queries and keys, and values, in one tensor."""
        shape = self.shape
        heads = states.view(*states.shape[:2], -1, shape.head_size)
        turned = heads[:, :, : shape.heads + shape.kv_heads]
        if weights.head_norm is not None:
            turned.copy_(F.rms_norm(turned, (shape.head_size,), eps=shape.norm_eps) * weights.head_norm)
        if weights.rotary is not None:
            cos, sin = step.rotary[weights.rotary]
            rolled = turned.roll(shape.head_size // 2, -1)
            turned.mul_(cos).addcmul_(rolled, sin)
        return heads

    def _norm_whole(self, heads: Float[Tensor, "B T M"], norms: tuple[Tensor, Tensor]) -> None:
        start = 0
        for norm in norms:
            part = heads[..., start : start + len(norm)]
            part.copy_(self._rms(part, norm))
            start += len(norm)

    def _attend(
        self,
        q: Float[Tensor, "B T H E"],
        k: Float[Tensor, "B S K E"],
        v: Float[Tensor, "B S K E"],
        mask: Float[Tensor, "B 1 T S"],
    ) -> Float[Tensor, "B T H*E"]:
        grouped = self.shape.heads != self.shape.kv_heads
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.shape.attention_cap is not None:
            attended = self._attend_capped(q, k, v, mask, self.shape.attention_cap)
        else:
            attended = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, scale=self.shape.attention_scale, enable_gqa=grouped
            )
        return attended.transpose(1, 2).flatten(2)

    def _attend_capped(
        self,
        q: Float[Tensor, "B H T E"],
        k: Float[Tensor, "B K S E"],
        v: Float[Tensor, "B K S E"],
        mask: Float[Tensor, "B 1 T S"],
        cap: float,
    ) -> Float[Tensor, "B H T E"]:
        """Attention whose scores are squeezed before the mask; no fused kernel does that."""
        copies = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(copies, 1), v.repeat_interleave(copies, 1)
        scores = q @ k.transpose(2, 3) * (self.shape.attention_scale or self.shape.head_size**-0.5)
        # A padding token may see nothing through a window: what is hidden stays finite, so that it makes no NaN.
        scores = (torch.tanh(scores / cap) * cap + mask).clamp(min=torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1, dtype=torch.float32)
        return weights.to(q.dtype) @ v

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.shape.norm_eps)

    def step(
        self,
        T: int,
        starts: Int[Tensor, " B"],
        cache: Cache,
        rows: Int[Tensor, " B"],
        context: int,
        in_place: bool = False,
        shared: SharedPrefixes | None = None,
    ) -> Step:
        """What the sub-layers of a forward of T new tokens a row share, which follow ``starts`` others.

        ``rows`` are the cache rows, ``context`` the most slots any of them reads. ``in_place`` says that they are 0 to
        B-1, so that the cache is read without a copy, ``shared`` which of them begin with the same slots.
        """
        by_kernels = self.kernels is not None and (T == 1 or self.kernels.ragged)
        positions = starts[:, None]
        if T > 1:
            positions = (positions + torch.arange(T, device=self.device)).clamp(max=cache.slots - 1)
        self._grow_tables(cache.slots)
        return Step(
            positions=positions,
            by_kernels=by_kernels,
            rotary=self._tables if by_kernels else self._tables_at(positions),
            slots=None if by_kernels else cache.slot_index(rows, positions),
            masks={} if by_kernels else {window: self._mask(positions, context, window) for window in self.windows},
            cache=cache,
            rows=rows,
            in_place=in_place,
            context=context,
            shared=shared,
        )

    def _tables_at(
        self, positions: Int[Tensor, "B T"]
    ) -> dict[str, tuple[Float[Tensor, "B T 1 E"], Float[Tensor, "B T 1 E"]]]:
        return {
            name: (cos[positions][:, :, None], sin[positions][:, :, None]) for name, (cos, sin) in self._tables.items()
        }

    def _mask(self, positions: Int[Tensor, "B T"], context: int, window: int | None) -> Float[Tensor, "B 1 T S"]:
        slots = torch.arange(context, device=self.device)
        hidden = slots > positions[:, :, None]
        if window is not None:
            hidden |= slots <= positions[:, :, None] - window
        mask = torch.zeros(hidden.shape, dtype=self.dtype, device=self.device)
        return mask.masked_fill_(hidden, float("-inf"))[:, None]

    def _grow_tables(self, positions: int) -> None:
        if any(positions > len(cos) for cos, _ in self._tables.values()):
            self._outgrown.append(self._tables)
            self._tables = self._signed_tables(positions)

    def _signed_tables(self, positions: int) -> dict[str, tuple[Float[Tensor, "P E"], Float[Tensor, "P E"]]]:
        return {name: _signed(*make(positions)) for name, make in self._rotary.items()}


def _signed(cos: Float[Tensor, "P E"], sin: Float[Tensor, "P E"]) -> tuple[Tensor, Tensor]:
    half = sin.shape[-1] // 2
    return cos, torch.cat([-sin[:, :half], sin[:, half:]], dim=-1)

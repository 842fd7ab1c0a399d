"""The GPU kernels in Triton; `gpu` starts them.

A product reads its input once: an RMS norm's factor is the same for all of a row, so that it is multiplied in at the
end. Weights come in groups of 32 columns; of int4, a group's byte holds column j in its low half and j + 16 in its high
one. `no_type_check` keeps shape checks out: a kernel is compiled from its source.
"""

from typing import no_type_check

import triton
import triton.language as tl

INT8 = tl.constexpr(1)
INT4 = tl.constexpr(2)
NORMED = tl.constexpr(1)
SILU = tl.constexpr(2)
GELU = tl.constexpr(3)


@triton.jit
@no_type_check
def _input(x, columns, inside, there, norm, BEFORE: tl.constexpr, IN: tl.constexpr):
    """Numbers of the input as they come and as they are multiplied, but for the norm's factor."""
    raw = tl.load(x + columns, mask=inside & there, other=0.0).to(tl.float32)
    value = raw
    if BEFORE == NORMED:
        value = raw * tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)
    elif BEFORE == SILU:
        value = raw * tl.sigmoid(raw) * tl.load(x + IN + columns, mask=inside & there, other=0.0).to(tl.float32)
    elif BEFORE == GELU:
        power = 1.5957691216 * (raw + 0.044715 * raw * raw * raw)  # twice the tanh's argument
        value = raw * tl.sigmoid(power) * tl.load(x + IN + columns, mask=inside & there, other=0.0).to(tl.float32)
    return raw, value


@triton.jit
@no_type_check
def _tile(weight, scales, minima, outputs, first, OUT, IN: tl.constexpr, KIND: tl.constexpr, BG: tl.constexpr):
    """Of some outputs, BG groups of numbers as they lie there, with their scales and minima if they have any."""
    G: tl.constexpr = IN // 32
    BYTES: tl.constexpr = 16 if KIND == INT4 else 32
    groups = first + tl.arange(0, BG)
    row = outputs.to(tl.int64)[:, None] * G + groups[None]
    kept = (outputs < OUT)[:, None] & (groups < G)[None]
    place = row[:, :, None] * BYTES + tl.arange(0, BYTES)[None, None]
    values = tl.load(weight + place, mask=kept[:, :, None], other=0)
    scale = values  # something has to be returned
    minimum = values
    if KIND >= INT8:
        scale = tl.load(scales + row, mask=kept, other=0.0)
    if KIND == INT4:
        minimum = tl.load(minima + row, mask=kept, other=0.0)
    return values, scale, minimum


@triton.jit
@no_type_check
def multiply_row(
    x,
    weight,
    scales,
    minima,
    bias,
    norm,
    onto,
    y,
    eps,
    OUT,
    IN: tl.constexpr,
    KIND: tl.constexpr,
    BEFORE: tl.constexpr,
    BN: tl.constexpr,
    BG: tl.constexpr,
):
    """One row of y for BN outputs, in fp32; a program for each row (0) and each BN outputs (1).

    Weights are loaded a tile ahead of what is multiplied.
    """
    G: tl.constexpr = IN // 32
    row = tl.program_id(0).to(tl.int64)
    x += row * (2 * IN if BEFORE >= SILU else IN)
    outputs = tl.program_id(1) * BN + tl.arange(0, BN)
    sums = tl.zeros((BN, BG), tl.float32)
    squares = tl.zeros((BG,), tl.float32)
    values, scale, minimum = _tile(weight, scales, minima, outputs, 0, OUT, IN, KIND, BG)
    for first in tl.static_range(0, G, BG):
        now, scale_now, minimum_now = values, scale, minimum
        if first + BG < G:
            values, scale, minimum = _tile(weight, scales, minima, outputs, first + BG, OUT, IN, KIND, BG)
        groups = (first + tl.arange(0, BG))[:, None]
        inside = groups < G
        if KIND == INT4:
            columns = groups * 32 + tl.arange(0, 16)[None]
            raw, low = _input(x, columns, inside, True, norm, BEFORE, IN)
            raw_high, high = _input(x, columns + 16, inside, True, norm, BEFORE, IN)
            squares += tl.sum(raw * raw + raw_high * raw_high, axis=1)
            part = tl.sum((now & 15).to(tl.float32) * low[None] + (now >> 4).to(tl.float32) * high[None], axis=2)
            sums += part * scale_now.to(tl.float32)
            sums += minimum_now.to(tl.float32) * tl.sum(low + high, axis=1)[None]
        else:
            raw, low = _input(x, groups * 32 + tl.arange(0, 32)[None], inside, True, norm, BEFORE, IN)
            squares += tl.sum(raw * raw, axis=1)
            part = tl.sum(now.to(tl.float32) * low[None], axis=2)
            if KIND == INT8:
                part *= scale_now.to(tl.float32)
            sums += part
    found = tl.sum(sums, axis=1)
    if BEFORE == NORMED:
        found *= tl.rsqrt(tl.sum(squares, axis=0) / IN + eps)
    there = outputs < OUT
    if bias is not None:
        found += tl.load(bias + outputs, mask=there, other=0.0).to(tl.float32)
    at = row * OUT + outputs
    if onto is not None:
        found += tl.load(onto + at, mask=there, other=0.0).to(tl.float32)
    tl.store(y + at, found.to(y.dtype.element_ty), mask=there)


@triton.jit
@no_type_check
def _scaled(values, scale, minimum, BN: tl.constexpr, BG: tl.constexpr, N: tl.constexpr):
    """Whole numbers [BN, BG * N] as the weights that they stand for."""
    found = tl.reshape(values.to(tl.float32), (BN, BG, N)) * scale[:, :, None]
    if minimum is not None:
        found += minimum[:, :, None]
    return tl.reshape(found, (BN, BG * N))


@triton.jit
@no_type_check
def multiply_rows(
    x,
    weight,
    scales,
    minima,
    bias,
    norm,
    onto,
    y,
    eps,
    M,
    OUT,
    IN: tl.constexpr,
    KIND: tl.constexpr,
    BEFORE: tl.constexpr,
    DOT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BG: tl.constexpr,
):
    """Up to BM rows of y for BN outputs; inputs and weights are rounded to DOT, sums are in fp32."""
    G: tl.constexpr = IN // 32
    rows = tl.arange(0, BM)[:, None]
    outputs = tl.program_id(0) * BN + tl.arange(0, BN)
    given, there = rows < M, (outputs < OUT)[:, None]
    x += rows * (2 * IN if BEFORE >= SILU else IN)
    from_output = outputs.to(tl.int64)[:, None]
    sums = tl.zeros((BM, BN), tl.float32)
    squares = tl.zeros((BM,), tl.float32)
    for first in range(0, G, BG):
        groups = (first + tl.arange(0, BG))[None]
        seen = there & (groups < G)
        scale = None
        minimum = None
        if KIND >= INT8:
            scale = tl.load(scales + from_output * G + groups, mask=seen, other=0.0).to(tl.float32)
        if KIND == INT4:
            minimum = tl.load(minima + from_output * G + groups, mask=seen, other=0.0).to(tl.float32)
            j = tl.arange(0, BG * 16)[None]
            columns = (first + j // 16) * 32 + j % 16
            inside = columns < IN
            raw, low = _input(x, columns, inside, given, norm, BEFORE, IN)
            raw_high, high = _input(x, columns + 16, inside, given, norm, BEFORE, IN)
            squares += tl.sum(raw * raw + raw_high * raw_high, axis=1)
            both = tl.load(weight + from_output * (IN // 2) + first * 16 + j, mask=inside & there, other=0)
            of_low = _scaled(both & 15, scale, minimum, BN, BG, 16).to(DOT)
            of_high = _scaled(both >> 4, scale, minimum, BN, BG, 16).to(DOT)
            sums = tl.dot(low.to(DOT), tl.trans(of_low), sums, input_precision="ieee")
            sums = tl.dot(high.to(DOT), tl.trans(of_high), sums, input_precision="ieee")
        else:
            columns = (first * 32 + tl.arange(0, BG * 32))[None]
            inside = columns < IN
            raw, low = _input(x, columns, inside, given, norm, BEFORE, IN)
            squares += tl.sum(raw * raw, axis=1)
            w = tl.load(weight + from_output * IN + columns, mask=inside & there, other=0)
            if KIND == INT8:
                w = _scaled(w, scale, minimum, BN, BG, 32)
            sums = tl.dot(low.to(DOT), tl.trans(w.to(DOT)), sums, input_precision="ieee")
    if BEFORE == NORMED:
        sums *= tl.rsqrt(squares / IN + eps)[:, None]
    if bias is not None:
        sums += tl.load(bias + outputs, mask=outputs < OUT, other=0.0).to(tl.float32)[None]
    at = rows * OUT + outputs[None]
    kept = given & (outputs < OUT)[None]
    if onto is not None:
        sums += tl.load(onto + at, mask=kept, other=0.0).to(tl.float32)
    tl.store(y + at, sums.to(y.dtype.element_ty), mask=kept)


@triton.jit
@no_type_check
def unpack(weight, scales, minima, which, y, IN: tl.constexpr, KIND: tl.constexpr, BG: tl.constexpr):
    """A chosen row of the weights for each program (0); without ``which``, its own."""
    G: tl.constexpr = IN // 32
    n = tl.program_id(0).to(tl.int64)
    row = n
    if which is not None:
        row = tl.load(which + n)
    groups = tl.program_id(1) * BG + tl.arange(0, BG)
    inside = groups < G
    scale = tl.load(scales + row * G + groups, mask=inside, other=0.0).to(tl.float32)[:, None]
    if KIND == INT4:
        minimum = tl.load(minima + row * G + groups, mask=inside, other=0.0).to(tl.float32)[:, None]
        j = tl.arange(0, 16)[None]
        both = tl.load(weight + row * (IN // 2) + groups[:, None] * 16 + j, mask=inside[:, None], other=0)
        low = (both & 15).to(tl.float32) * scale + minimum
        high = (both >> 4).to(tl.float32) * scale + minimum
        at = y + n * IN + groups[:, None] * 32 + j
        tl.store(at, low.to(y.dtype.element_ty), mask=inside[:, None])
        tl.store(at + 16, high.to(y.dtype.element_ty), mask=inside[:, None])
    else:
        columns = groups[:, None] * 32 + tl.arange(0, 32)[None]
        values = tl.load(weight + row * IN + columns, mask=inside[:, None], other=0).to(tl.float32) * scale
        tl.store(y + n * IN + columns, values.to(y.dtype.element_ty), mask=inside[:, None])


@triton.jit
@no_type_check
def _turned(state, cos, sin, norm, head, there, eps, E: tl.constexpr, EP: tl.constexpr):
    """Heads of a state, [N, EP] where ``head`` is [N, 1], after norm and rotation; zeros beyond E."""
    e = tl.arange(0, EP)[None]
    inside = e < E
    partner = tl.where(e < E // 2, e + E // 2, e - E // 2)
    kept = there & inside
    x = tl.load(state + head * E + e, mask=kept, other=0.0).to(tl.float32)
    if norm is not None:
        factor = tl.rsqrt(tl.sum(x * x, axis=1) / E + eps)[:, None]
        x *= factor * tl.load(norm + head * E + e, mask=kept, other=0.0).to(tl.float32)
    if cos is not None:
        other = tl.load(state + head * E + partner, mask=kept, other=0.0).to(tl.float32)
        if norm is not None:
            other *= factor * tl.load(norm + head * E + partner, mask=kept, other=0.0).to(tl.float32)
        x = x * tl.load(cos + e, mask=inside, other=0.0).to(tl.float32)
        x += other * tl.load(sin + e, mask=inside, other=0.0).to(tl.float32)
    return x


@triton.jit
@no_type_check
def _squeezed(scores, scale, CAP: tl.constexpr):
    scores *= scale
    if CAP > 0:
        scores = CAP * (2 * tl.sigmoid(2 * scores / CAP) - 1)  # its tanh
    return scores


@triton.jit
@no_type_check
def attend(
    states,
    positions,
    rows,
    cos,
    sin,
    norm,
    block,
    parts,
    y,
    eps,
    scale,
    slots,
    chunk,
    H: tl.constexpr,
    K: tl.constexpr,
    E: tl.constexpr,
    WINDOW: tl.constexpr,
    CAP: tl.constexpr,
    DOT: tl.constexpr,
    GP: tl.constexpr,
    EP: tl.constexpr,
    BS: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One token of a row (0), the query heads of one KV head (1), ``chunk`` slots of the context (2).

    The token itself is attended to from registers, by the first chunk: what is read of the cache was there before.
    """
    G: tl.constexpr = H // K
    b, k, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    at = tl.minimum(tl.load(positions + b), slots - 1)
    state = states + b * (H + 2 * K) * E
    if cos is not None:
        cos += at * E
        sin += at * E
    e = tl.arange(0, EP)[None]
    g = tl.arange(0, GP)[:, None]
    q = _turned(state, cos, sin, norm, k * G + g, g < G, eps, E, EP).to(DOT)
    key = _turned(state, cos, sin, norm, H + k + tl.zeros((1, 1), tl.int32), True, eps, E, EP)
    key = key.to(block.dtype.element_ty)
    value = tl.load(state + (H + K + k) * E + e, mask=e < E, other=0.0).to(block.dtype.element_ty)
    keys = block + tl.load(rows + b) * slots * 2 * K * E + k * E
    if split == 0:
        tl.store(keys + at * 2 * K * E + e, key, mask=e < E)
        tl.store(keys + at * 2 * K * E + K * E + e, value, mask=e < E)
        most = _squeezed(tl.sum(q.to(tl.float32) * key.to(tl.float32), axis=1), scale, CAP)
        total = tl.full((GP,), 1.0, tl.float32)
        sums = tl.zeros((GP, EP), tl.float32) + value.to(tl.float32)
    else:
        most = tl.full((GP,), float("-inf"), tl.float32)
        total = tl.zeros((GP,), tl.float32)
        sums = tl.zeros((GP, EP), tl.float32)
    begin = split.to(tl.int64) * chunk
    end = tl.minimum(begin + chunk, at)
    if WINDOW > 0:
        begin = tl.maximum(begin, at + 1 - WINDOW)
    for start in range(begin, end, BS):
        slot = start + tl.arange(0, BS)[:, None]
        kept = (slot < end) & (e < E)
        scores = tl.dot(
            q, tl.trans(tl.load(keys + slot * 2 * K * E + e, mask=kept, other=0.0).to(DOT)), input_precision="ieee"
        )
        seen = start + tl.arange(0, BS)[None] < end
        scores = tl.where(seen, _squeezed(scores, scale, CAP), float("-inf"))
        larger = tl.maximum(most, tl.max(scores, axis=1))
        shrunk = tl.exp(most - larger)
        weights = tl.exp(scores - larger[:, None])
        most = larger
        total = total * shrunk + tl.sum(weights, axis=1)
        v = tl.load(keys + slot * 2 * K * E + K * E + e, mask=kept, other=0.0).to(DOT)
        sums = tl.dot(weights.to(DOT), v, sums * shrunk[:, None], input_precision="ieee")
    head = b * H + k * G + g
    if SPLITS == 1:
        found = sums / total[:, None]
        tl.store(y + head * E + e, found.to(y.dtype.element_ty), mask=(g < G) & (e < E))
    else:
        part = parts + (head * SPLITS + split) * (E + 2)
        tl.store(part + e, sums, mask=(g < G) & (e < E))
        tl.store(part + E, most[:, None], mask=g < G)
        tl.store(part + E + 1, total[:, None], mask=g < G)


@triton.jit
@no_type_check
def join(parts, y, E: tl.constexpr, EP: tl.constexpr, SPLITS: tl.constexpr, SP: tl.constexpr):
    """A query head's attention from that over its chunks of the context."""
    head = tl.program_id(0)
    e = tl.arange(0, EP)[None]
    s = tl.arange(0, SP)[:, None]
    part = parts + (head * SPLITS + s) * (E + 2)
    most = tl.load(part + E, mask=s < SPLITS, other=float("-inf"))
    weight = tl.exp(most - tl.max(most, axis=0)[None])
    total = tl.sum(weight * tl.load(part + E + 1, mask=s < SPLITS, other=0.0), axis=0)
    sums = tl.sum(weight * tl.load(part + e, mask=(s < SPLITS) & (e < E), other=0.0), axis=0)
    at = tl.arange(0, EP)
    tl.store(y + head * E + at, (sums / total).to(y.dtype.element_ty), mask=at < E)


@triton.jit
@no_type_check
def largest_of_chunk(logits, most, token, total, V, CHUNKS, BV: tl.constexpr):
    """Of BV logits (1) of a row (0): the largest, where it is first, and the sum of exp(logit - largest)."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = chunk * BV + tl.arange(0, BV)
    x = tl.load(logits + row * V + at, mask=at < V, other=float("-inf")).to(tl.float32)
    largest = tl.max(x, axis=0)
    here = row * CHUNKS + chunk
    tl.store(most + here, largest)
    tl.store(token + here, tl.min(tl.where(x == largest, at, V - 1), axis=0))
    finite = tl.maximum(largest, -1e30)  # where there is nothing but minus infinity
    tl.store(total + here, tl.sum(tl.exp(x - finite), axis=0))


@triton.jit
@no_type_check
def largest_of_all(most, token, total, tokens, probabilities, V, CHUNKS, BC: tl.constexpr):
    """A row's likeliest token and its probability from those of its chunks."""
    row = tl.program_id(0)
    at = tl.arange(0, BC)
    here = row * CHUNKS + at
    x = tl.load(most + here, mask=at < CHUNKS, other=float("-inf"))
    largest = tl.max(x, axis=0)
    first = tl.min(tl.where(x == largest, tl.load(token + here, mask=at < CHUNKS, other=0), V - 1), axis=0)
    tl.store(tokens + row, first.to(tl.int64))
    sums = tl.load(total + here, mask=at < CHUNKS, other=0.0)
    tl.store(probabilities + row, 1 / tl.sum(sums * tl.exp(x - largest), axis=0))

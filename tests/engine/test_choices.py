"""Answers by choice: against scoring every allowed text, by transformers, at each of its forks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litestage.core import MeanConfidence, OptionError, Request, Sampling, SkipSchedule, StagePlan, TokenIds
from litestage.core.choices import allowed, forced, probabilities
from litestage.core.layers import Segment
from litestage.engine.sampling import uniforms_of

PROMPT = "Which of these would float on water? (A) a stone (B) a cork (C) an anvil (D) a key\nSummarize:"
LETTERS = tuple(f"So the answer is option {letter}." for letter in "ABCD")
WORDS = ("a stone", "a stone that is hollow", "a cork", "an anvil", "a key")
"""They part at several places, and one is the beginning of another."""
PLANS = {
    "full depth": StagePlan(),
    "skipping": StagePlan(schedule=SkipSchedule.fixed(["1.attention", "2.ffn"])),
    "skipping later": StagePlan(
        schedule=SkipSchedule(segments=(Segment(first_step=0), Segment(first_step=3, skipped=frozenset(["2.ffn"]))))
    ),
    "skipping more at each step": StagePlan(
        schedule=SkipSchedule(
            segments=tuple(
                Segment(first_step=step, skipped=frozenset(layers))
                for step, layers in enumerate([["2.ffn"], ["1.ffn", "2.ffn"], ["1.ffn", "2.attention", "2.ffn"]])
            )
        )
    ),
    "unsure": StagePlan(exit=MeanConfidence(window=1, threshold=1.0)),
}


def scores(prompt: TokenIds, choices: Sequence[TokenIds], plan: StagePlan) -> list[float]:
    """How probable each whole text is among those allowed: at each fork, what transformers says of its token."""
    found = []
    for text in choices:
        logits = tiny.raw_logits("llama", [*prompt, *text], len(prompt), plan.schedule)[len(prompt) - 1 :]
        p = 1.0
        for at, token in enumerate(text):
            only = allowed(choices, text[:at])
            p *= logits[at, only].softmax(-1)[only.index(token)].item()
        found.append(p)
    return found


def greedy(prompt: TokenIds, choices: Sequence[TokenIds], plan: StagePlan) -> TokenIds:
    """The likeliest token at every fork, a forward over the whole text for each."""
    text: tuple[int, ...] = ()
    while only := allowed(choices, text):
        logits = tiny.raw_logits("llama", [*prompt, *text], len(prompt), plan.schedule)[-1, only]
        text += (only[int(logits.argmax())],)
    return text


@pytest.mark.parametrize("texts", [LETTERS, WORDS], ids=["letters", "words"])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("fixed", [False, True])
def test_the_likeliest_token_at_each_fork_is_taken(plan: StagePlan, texts: tuple[str, ...], fixed: bool) -> None:
    """Several prompts, so that not all take the first text; by any plan, and no exit ends what must be whole."""
    engine = tiny.engine(fixed_steps=fixed)
    prompts = [PROMPT, "Recall: " + PROMPT, "A candle gives light.\n" + PROMPT, "So the answer is"]
    requests = [
        Request(
            prompt_ids=engine.encode(prompt),
            choices=engine.continuations(prompt, texts),
            stage_plan=plan,
            max_new_tokens=1,
            stop=("answer",),
        )
        for prompt in prompts
    ]
    done = engine.generate([*requests, *tiny.requests([tiny.prompt(9)], max_new_tokens=6)])
    assert done[-1].token_ids == tiny.generate_by_transformers("llama", tiny.prompt(9), 6)
    assert done[-1].chosen is None
    assert done[-1].margin is None
    for request, one in zip(requests, done, strict=False):
        assert one.token_ids == greedy(request.prompt_ids, request.choices, plan)
        assert one.chosen is not None
        assert request.choices[one.chosen] == one.token_ids
        assert (one.text.strip(), one.finish_reason) == (texts[one.chosen], "eos")
        wanted = scores(request.prompt_ids, request.choices, plan)
        assert one.choices[one.chosen] == pytest.approx(wanted[one.chosen], rel=1e-3)
        if texts == LETTERS:  # one fork: all that is to be known
            assert one.choices == pytest.approx(wanted, rel=1e-3)
            assert one.margin == pytest.approx(sorted(wanted)[-1] - sorted(wanted)[-2], abs=1e-4)
    assert len({one.chosen for one in done}) > 2, "a test in which all take the same text shows little"


def test_only_forks_are_asked() -> None:
    """A letter costs one decision; at full depth what comes before it is prefilled with the prompt."""
    engine = tiny.engine()
    asked: list[object] = []
    engine.on_pass = asked.append
    prompt = engine.encode(PROMPT)
    choices = engine.continuations(PROMPT, LETTERS)
    (one,) = engine.generate([Request(prompt_ids=prompt, choices=choices)])
    assert len(asked) == 1
    assert one.counts.decoded == 0
    lead = len(forced(choices))
    assert [sure == 1.0 for sure in one.confidences] == [at != lead for at in range(len(one.token_ids))]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.3, 1.0, 3.0]), st.sampled_from(["full depth", "skipping"]))
def test_a_draw_is_among_the_allowed_by_the_requests_own_number(seed: int, temperature: float, plan: str) -> None:
    engine = tiny.engine()
    prompt, choices = engine.encode(PROMPT), engine.continuations(PROMPT, LETTERS)
    request = Request(
        prompt_ids=prompt,
        choices=choices,
        stage_plan=PLANS[plan],
        sampling=Sampling(temperature=temperature),
        seed=seed,
    )
    one = engine.generate([request, *tiny.requests([tiny.prompt(9)], max_new_tokens=4)])[0]
    lead = forced(choices)
    logits = tiny.raw_logits("llama", [*prompt, *lead], len(prompt), PLANS[plan].schedule)[-1]
    only = allowed(choices, lead)
    below = (logits[only] / temperature).softmax(-1).cumsum(-1)
    u = uniforms_of(seed, max(map(len, choices)))[len(lead)]
    if (below - u).abs().min() > 1e-4:
        assert one.token_ids[len(lead)] == only[int((below <= u).sum())]
    assert one.choices == pytest.approx(scores(prompt, choices, PLANS[plan]), rel=1e-3), "not those of the temperature"


@pytest.mark.parametrize("space", ["", " "])
def test_texts_are_tokenised_behind_their_prompt(space: str) -> None:
    """A space may belong to the letter's token or to what comes before; no text but the allowed ones can come out."""
    engine = tiny.engine()
    texts = ("option B.", "option A.", "optionC", "B")
    prompt = "So the answer is" + space
    for text, ids in zip(texts, engine.continuations(prompt, texts), strict=True):
        assert ids[-1] == engine.eos_id
        assert engine.decode(ids[:-1]).strip() == text
        whole = engine.encode(f"{prompt} {text}")
        if whole[: len(engine.encode(prompt))] == engine.encode(prompt):
            assert engine.encode(prompt) + ids[:-1] == whole, "as the model was taught to write it"


def test_what_is_no_choice_is_refused() -> None:
    engine = tiny.engine()
    end = engine.eos_id
    with pytest.raises(ValueError, match="begins with it"):
        Request(prompt_ids=(1, 2), choices=((5,), (5, 6)))
    for choices in (((5, 6), (7, 8)), ((5, end, 6, end), (7, end))):
        with pytest.raises(OptionError, match="ends with the token that ends a text"):
            engine.add(Request(prompt_ids=(1, 2), choices=choices))
    with pytest.raises(OptionError, match="A prompt has 250 tokens and an answer to choose up to 8"):
        engine.add(Request(prompt_ids=(1,) * 250, choices=((*range(2, 9), end), (3, end))))


def test_a_request_without_choices_has_the_key_it_always_had() -> None:
    free = Request(prompt_ids=(1, 2))
    assert free.key() == "30a26ca4e8343dc1707c1a6f28b1cbe2114bb64250b5be8226453b2bd5802790"
    three, four = (Request(prompt_ids=(1, 2), choices=((token,),)) for token in (3, 4))
    assert len({free.key(), three.key(), four.key()}) == 3


@given(st.lists(st.lists(st.integers(0, 3), max_size=5).map(lambda one: (*one, 9)), min_size=1, max_size=6))
def test_walking_a_trie(choices: list[TokenIds]) -> None:
    """By forced tokens and forks every text can be reached, and nothing else; probabilities of a way add up to 1."""
    reached: set[TokenIds] = set()

    def walk(text: TokenIds, asked: tuple[tuple[int, dict[int, float]], ...]) -> None:
        text += forced(choices, text)
        only = allowed(choices, text)
        if not only:
            reached.add(text)
            likely = probabilities(choices, text, asked)
            assert all(0 < p <= 1 for p in likely)
            for at, fork in asked:
                for token in fork:
                    beyond = {p for p, one in zip(likely, choices, strict=True) if one[: at + 1] == (*text[:at], token)}
                    assert len(beyond) == 1 or token == text[at], "of one beginning that was not taken, one number"
        for token in only:
            walk((*text, token), (*asked, (len(text), {one: 1 / len(only) for one in only})))

    walk((), ())
    assert reached == set(choices)


def test_numbers_of_fewer_bits_choose_by_the_same_rule() -> None:
    """Where a token's numbers do not depend on its neighbours an answer is the same to the last bit, beside any."""
    from litestage.engine import TorchEngine

    alone, beside = TorchEngine(tiny.packed()), TorchEngine(tiny.packed(), batch_size=3)
    choices = alone.continuations(PROMPT, LETTERS)
    requests = [
        Request(prompt_ids=tiny.prompt(n), choices=choices, stage_plan=PLANS["skipping"] if n % 2 else StagePlan())
        for n in range(4, 12)
    ]
    together = beside.generate(requests)
    for request, one in zip(requests, together, strict=True):
        assert alone.generate([request]) == [one]
    assert torch.tensor([one.choices for one in together]).sum(-1).sub(1).abs().max() < 1e-5

"""The probe: distances by hand, against a brute-force loop, pairs that cannot be compared."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_templates import COLON, ZEPHYR, sentencepiece

from ssah import probing
from ssah.errors import SsahError
from ssah.evaluation import generate
from ssah.models import Chat, tiny_chat

QUERIES = ["break a lamp", "write a small red poem today", "sing"]
OPENINGS = {
    "refusal": [[10, 11, 12], [13, 14]],
    "fulfilment": [[20, 21], [22, 23, 24, 25], [26, 27]],
}


def states(chat, ids: list[int]) -> torch.Tensor:
    """Residual stream after every block at the last of `ids`, from one unpadded pass.

    (block, hidden).
    """
    seen = []
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output[0, -1]))
        for layer in chat.model.model.layers
    ]
    with torch.no_grad():
        chat.model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return torch.stack(seen)


@torch.no_grad()
def goes_on(chat, ids: list[int], n: int) -> list[int]:
    """`n` greedy tokens one by one, each from a whole unpadded pass; never the end token."""
    for _ in range(n):
        logits = chat.model(torch.tensor([ids])).logits[0, -1]
        logits[chat.tokenizer.eos_token_id] = -torch.inf
        ids = ids + [int(logits.argmax())]
    return ids


def distance(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    return (1 - (first * second).sum(-1) / (first.norm(dim=-1) * second.norm(dim=-1))).numpy()


# ---- by hand ---------------------------------------------------------------------------------


@pytest.fixture
def flat_chat(chat):
    """A model without attention and MLP: its state is the embedding of the token, and it repeats
    that token for ever.

    Embeddings of unit length; word 10 stands at 60 degrees to the prompt's last token, word 11 at
    90, word 12 at 180.
    """
    last = chat.encode("sing")[0][-1]
    with torch.no_grad():
        for layer in chat.model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embeddings = chat.model.get_input_embeddings().weight
        embeddings.zero_()
        embeddings[last, 0] = 1
        embeddings[10, 0], embeddings[10, 1] = 0.5, 0.75**0.5
        embeddings[11, 2] = 1
        embeddings[12, 0] = -1
    return chat


def test_distances_by_hand(flat_chat):
    """1 - cos: 0.5, 1 and 2, in every block, whatever n, for the model repeats the opening's last
    token.
    """
    openings = {"refusal": [[11, 10], [10, 11]], "fulfilment": [[10, 12]]}
    found = probing.branch(flat_chat, ["sing"], openings, (0, 1, 3))
    assert found["refusal"].shape == (1, 2, 3, 2) and found["fulfilment"].shape == (1, 1, 3, 2)
    np.testing.assert_allclose(found["refusal"][0, 0], 0.5, atol=1e-6)
    np.testing.assert_allclose(found["refusal"][0, 1], 1.0, atol=1e-6)
    np.testing.assert_allclose(found["fulfilment"], 2.0, atol=1e-6)
    stills = probing.static(flat_chat, ["sing"], openings, (1, 2))
    np.testing.assert_allclose(stills["refusal"][0, :, :, 0], [[1.0, 0.5], [0.5, 1.0]], atol=1e-6)
    np.testing.assert_allclose(stills["fulfilment"][0, 0, :, 1], [0.5, 2.0], atol=1e-6)


def test_direction_along_an_answer_by_hand(flat_chat):
    """Clean path: 2 from the fulfilment branch, 0.5 from the refusal one, so 1.5.

    With the fulfilment put first, -1.5.
    """
    openings = {"refusal": [[10]], "fulfilment": [[12]]}
    directions, texts = probing.along(flat_chat, ["sing"], openings, [[12, 12]], (0, 1, 2), 2)
    np.testing.assert_allclose(directions, [[[1.5, 1.5], [-1.5, -1.5], [-1.5, -1.5]]], atol=1e-6)
    word = flat_chat.tokenizer.decode([12])
    assert texts == [
        [
            flat_chat.tokenizer.decode([flat_chat.encode("sing")[0][-1]] * 2),
            f"{word} {word}",
            f"{word} {word}",
        ]
    ]


# ---- against a loop --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", (1, 104), ids=("query by query", "padded together"))
def test_branch_equals_a_loop(family_chat, batch_size):
    found = probing.branch(family_chat, QUERIES, OPENINGS, (0, 2, 3), batch_size=batch_size)
    for q, query in enumerate(QUERIES):
        head = family_chat.encode(query)[0]
        for kind, wordings in OPENINGS.items():
            for w, opening in enumerate(wordings):
                for i, n in enumerate((0, 2, 3)):
                    expected = distance(
                        states(family_chat, goes_on(family_chat, head, n)),
                        states(family_chat, goes_on(family_chat, head + opening, n)),
                    )
                    np.testing.assert_allclose(found[kind][q, w, i], expected, atol=2e-5)


@pytest.mark.parametrize("batch_size", (1, 104), ids=("query by query", "padded together"))
def test_static_equals_a_loop(family_chat, batch_size):
    found = probing.static(family_chat, QUERIES, OPENINGS, (1, 2), batch_size=batch_size)
    for q, query in enumerate(QUERIES):
        head = family_chat.encode(query)[0]
        for kind, wordings in OPENINGS.items():
            for w, opening in enumerate(wordings):
                for i, k in enumerate((1, 2)):
                    expected = distance(
                        states(family_chat, head), states(family_chat, head + opening[:k])
                    )
                    np.testing.assert_allclose(found[kind][q, w, i], expected, atol=2e-5)


def test_along_is_the_branch_reading_of_its_paths(family_chat):
    prefills = [[30, 31, 32], [30, 33, 34]]
    found, texts = probing.along(family_chat, QUERIES, OPENINGS, prefills, (0, 1, 3), 2)
    assert found.shape == (3, 6, 2) and [len(row) for row in texts] == [6, 6, 6]
    for q, query in enumerate(QUERIES):
        head = family_chat.encode(query)[0]
        after = {(kind, t): [states(family_chat, goes_on(family_chat, head + opening, t))
                             for opening in wordings]
                 for kind, wordings in OPENINGS.items() for t in (1, 2)}
        for p, prefill in enumerate([prefill[:n] for prefill in prefills for n in (0, 1, 3)]):
            whole = goes_on(family_chat, head + prefill, 2)
            assert texts[q][p] == family_chat.tokenizer.decode(whole[-2:], skip_special_tokens=True)
            for t in (1, 2):
                own = states(family_chat, whole[: len(whole) - 2 + t])
                mean = {kind: np.mean([distance(own, other) for other in after[kind, t]])
                        for kind in OPENINGS}
                assert found[q, p, t - 1] == pytest.approx(
                    mean["fulfilment"] - mean["refusal"], abs=2e-5
                )


def test_the_order_of_the_openings_does_not_matter(chat):
    found, _ = probing.along(chat, QUERIES, OPENINGS, [[30, 31]], (0, 1), 2)
    turned, _ = probing.along(
        chat, QUERIES, dict(reversed(OPENINGS.items())), [[30, 31]], (0, 1), 2
    )
    np.testing.assert_allclose(found, turned, atol=1e-6)


def test_an_answer_that_would_end_is_kept_going(chat):
    """The end token is not allowed before the last step: every branch has an n-th token."""

    def end_wins(module, inputs, output):
        output[..., chat.tokenizer.eos_token_id] += 1e3
        return output

    chat.model.lm_head.register_forward_hook(end_wins)
    assert generate(chat, QUERIES, max_new_tokens=4).finished.all()
    _, tokens = probing.generated_states(chat, [chat.encode(q)[0] for q in QUERIES], (4,))
    assert [len(t) for t in tokens] == [4, 4, 4]
    assert not any(chat.tokenizer.eos_token_id in t for t in tokens)


def test_nothing_is_left_on_the_model(chat):
    with pytest.raises(SsahError):
        probing.static(chat, QUERIES, OPENINGS, (5,))
    probing.branch(chat, QUERIES, OPENINGS, (1,))
    assert not any(layer._forward_hooks for layer in chat.model.model.layers)


# ---- bad input -------------------------------------------------------------------------------


def test_models_that_cannot_be_compared(chat):
    probing.check_pair(chat, tiny_chat(1))
    with pytest.raises(SsahError, match="2 and 3 blocks"):
        probing.check_pair(chat, tiny_chat(layers=3))
    other = tiny_chat()
    other.tokenizer.chat_template = other.tokenizer.chat_template.replace("you help", "help you")
    with pytest.raises(SsahError, match="different chat templates"):
        probing.check_pair(chat, other)
    other.tokenizer.add_tokens(["zebra"])
    with pytest.raises(SsahError, match="different tokenizers"):
        probing.check_pair(chat, other)


@pytest.mark.parametrize("measure", (probing.branch, probing.static))
def test_a_query_must_say_something(chat, measure):
    with pytest.raises(SsahError, match="no tokens"):
        measure(chat, ["sing", "  "], OPENINGS, (1,))
    with pytest.raises(SsahError, match="no queries"):
        measure(chat, [], OPENINGS, (1,))


@pytest.mark.parametrize("measure", (probing.branch, probing.static))
@pytest.mark.parametrize(
    "openings", ({"refusal": [[]], "fulfilment": [[5]]}, {"refusal": [], "fulfilment": []})
)
def test_an_opening_without_tokens(chat, measure, openings):
    with pytest.raises(SsahError, match="an opening has no tokens"):
        measure(chat, QUERIES, openings, (1,))


def test_an_opening_must_say_something(chat, monkeypatch):
    table = probing.data_file("openings")
    table.loc[table["id"] == "f01", "text"] = ""
    monkeypatch.setattr(probing, "data_file", lambda name: table)
    with pytest.raises(SsahError, match="no tokens"):
        probing.probe_openings(chat)


def test_more_tokens_than_the_opening_has(chat):
    with pytest.raises(SsahError, match="3 tokens cannot be appended: the shortest opening has 2"):
        probing.static(chat, QUERIES, OPENINGS, (1, 3))
    with pytest.raises(SsahError, match="the shortest prefill has 2"):
        probing.along(chat, QUERIES, OPENINGS, [[1, 2]], (0, 3), 2)


# ---- the wordings ----------------------------------------------------------------------------


def test_at_least_four_wordings_of_each_opening(chat):
    openings = probing.probe_openings(chat)
    assert list(openings) == ["refusal", "fulfilment"]
    assert all(len(wordings) >= 4 for wordings in openings.values())
    # the paper's last n
    assert (
        min(len(tokens) for wordings in openings.values() for tokens in wordings) >= 10
    )


# ---- tokens, ends, numbers -------------------------------------------------------------------


def test_openings_are_in_the_tokens_that_they_have_in_an_answer():
    """After a newline "I'm" is no "\u2581I'm" (SentencePiece)."""
    chat = Chat(tiny_chat().model, sentencepiece(ZEPHYR), "small")
    (tokens,) = probing.token_lists(chat, ["I'm sorry."])
    assert chat.tokenizer.convert_ids_to_tokens(tokens) == ["I'm", "\u2581sorry."]
    for wordings in probing.probe_openings(chat).values():
        assert not any(chat.tokenizer.decode(tokens).startswith(" ") for tokens in wordings)
        assert "\u2581" not in [chat.tokenizer.convert_ids_to_tokens(w)[0][0] for w in wordings]


def test_a_template_that_joins_prompt_and_answer_cannot_be_probed():
    chat = Chat(tiny_chat().model, sentencepiece(COLON), "small")
    with pytest.raises(SsahError, match="joins the end of a prompt and the beginning of an answer"):
        probing.token_lists(chat, ["Here is a poem."])


def test_no_end_of_the_generation_config_ends_a_branch(chat):
    """Two tokens end an answer, and either would win at every step."""
    ends = [chat.tokenizer.eos_token_id, chat.tokenizer.convert_tokens_to_ids("sure")]
    chat.model.generation_config.eos_token_id = ends

    def ends_win(module, inputs, output):
        output[..., ends] += 1e3
        return output

    chat.model.lm_head.register_forward_hook(ends_win)
    _, tokens = probing.generated_states(chat, [chat.encode(query)[0] for query in QUERIES], (4,))
    assert [len(row) for row in tokens] == [4, 4, 4]
    assert not set(ends) & {token for row in tokens for token in row}


MEASURES = {
    **probing.READINGS,
    "along": lambda chat, queries, openings, steps: probing.along(
        chat, queries, openings, [[30, 31]], (0, 1), 2
    ),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_columns_and_lists_are_alike_and_one_text_is_refused(chat, measure):
    found = [measure(chat, given, OPENINGS, (1, 2)) for given in (QUERIES, pd.Series(QUERIES))]
    for first, second in zip(*[f.values() if isinstance(f, dict) else f for f in found]):
        np.testing.assert_array_equal(first, second)
    with pytest.raises(SsahError, match="queries is a single text; put it into a list"):
        measure(chat, "sing", OPENINGS, (1,))


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_states_that_are_not_finite_name_the_cure(chat, measure):
    with torch.no_grad():
        chat.model.model.layers[0].mlp.up_proj.weight[3] = float("inf")
    with pytest.raises(SsahError, match="'tiny:0' are not finite: .*dtype='float32'"):
        measure(chat, QUERIES, OPENINGS, (1, 2))


def test_a_single_text_is_no_list_of_wordings(chat):
    with pytest.raises(SsahError, match="texts is a single text; put it into a list"):
        probing.token_lists(chat, "here is how")

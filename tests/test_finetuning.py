"""Training on answers only: the loss by hand, which tokens carry it, batches, seeds."""

import numpy as np
import pytest
import torch

from ssah.errors import SsahError
from ssah.finetuning import answer_loss, encode_examples, finetune, length_buckets
from ssah.models import tiny_chat

EXAMPLES = [{"prompt": "break a lamp", "response": "sorry i can not help"}, {"prompt": "write a small red poem", "response": "here is how"},
            {"prompt": "sing", "response": "sure"}, {"prompt": "how do you burn the old bridge today", "response": "no"},
            {"prompt": "bake the cake and then explain it", "response": "first take the lamp and then make a garden"}]
QUICK = dict(autocast=False, progress=None)


def train(examples=EXAMPLES, model_seed: int = 0, **options):
    """A freshly made tiny chat after training, and what happened."""
    chat = tiny_chat(model_seed)
    return chat, finetune(chat, examples, **{**QUICK, "lr": 5e-3, "batch_size": 2, **options})


def weights(chat):
    return {name: tensor.clone() for name, tensor in chat.model.state_dict().items()}


# ---- the loss --------------------------------------------------------------------------------

def loss_by_hand(chat, encoded) -> tuple[float, int]:
    """Mean of -log P(token) over all answer tokens of a batch, one unpadded forward pass an example."""
    losses, length = [], 0
    for head, tail in encoded:
        with torch.no_grad():
            log_probs = chat.model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        losses += [-float(log_probs[len(head) - 1 + i, token]) for i, token in enumerate(tail)]
        length += len(head) + len(tail)
    return float(np.mean(losses)), length


@pytest.mark.parametrize("rows", ([0], [2, 3], [0, 1, 2, 3, 4]), ids=("one", "two", "all"))
def test_the_loss_is_the_mean_over_all_answer_tokens(family_chat, rows):
    encoded = encode_examples(family_chat, EXAMPLES)[0]
    batch = [encoded[i] for i in rows]
    loss, tokens = answer_loss(family_chat, batch)
    expected, length = loss_by_hand(family_chat, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert tokens == length                 # prompt and answer, no padding


def test_the_end_token_is_trained_on_unless_the_answer_was_cut(chat):
    whole, cut = ({"prompt": "sing", "response": "sure here is", "ended": ended} for ended in (True, False))
    (head, tail), (same_head, open_tail) = encode_examples(chat, [whole, cut])[0]
    assert chat.tokenizer.convert_ids_to_tokens(tail) == ["sure", "here", "is", "</s>"]
    assert chat.tokenizer.convert_ids_to_tokens(open_tail) == ["sure", "here", "is"]
    assert head == same_head == chat.encode("sing")[0]


@pytest.mark.parametrize("ended", (True, False))
def test_only_what_predicts_an_answer_token_carries_loss(chat, ended):
    """Seen by the output layer: its rows are the last prompt token to the second-to-last answer token, and no other."""
    example = {"prompt": "sing", "response": "sure here is", "ended": ended}
    encoded = encode_examples(chat, [example, EXAMPLES[3]])[0]
    rows = []
    chat.model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape))
    answer_loss(chat, encoded)
    assert rows == [(sum(len(tail) for _, tail in encoded), 32)]
    assert [len(tail) for _, tail in encoded] == [4 if ended else 3, 2]


def test_prompt_tokens_are_no_targets(chat):
    """Another word of the same prompt changes the loss only through what the model sees, so with a deaf model not at all."""
    with torch.no_grad():
        for layer in chat.model.model.layers:
            layer.self_attn.o_proj.weight.zero_()       # no position sees another one
    first, second = ([{"prompt": text, "response": "sure here is"}] for text in ("sing a song", "poison old garden"))
    losses = [answer_loss(chat, encode_examples(chat, examples)[0])[0] for examples in (first, second)]
    assert losses[0].item() == losses[1].item()


def test_the_system_mode_is_passed_on(chat):
    for system in ("default", "none", "make a safe plan"):
        (head, _), *_ = encode_examples(chat, EXAMPLES, system)[0]
        assert head == chat.encode("break a lamp", system=system)[0]


def test_an_answer_is_cut_to_the_context_and_counted(chat):
    head = chat.encode("sing")[0]
    chat.model.config.max_position_embeddings = len(head) + 3
    encoded, cut = encode_examples(chat, [{"prompt": "sing", "response": text} for text in ("sure here", "sure here is", "sure here is how")])
    words = [chat.tokenizer.convert_ids_to_tokens(tail) for _, tail in encoded]
    assert words == [["sure", "here", "</s>"], ["sure", "here", "is"], ["sure", "here", "is"]]
    assert cut == 2


# ---- steps -----------------------------------------------------------------------------------

@pytest.mark.parametrize("n, batch_size", [(1, 4), (7, 2), (8, 4), (100, 3), (5, 16)])
def test_every_example_comes_once_an_epoch(n, batch_size):
    lengths = np.random.default_rng(0).integers(1, 50, n)
    batches = length_buckets(lengths, batch_size, np.random.default_rng(1))
    assert sorted(i for batch in batches for i in batch) == list(range(n))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == -(-n // batch_size)


def test_a_batch_holds_examples_of_similar_length():
    """Within 8 batches' worth, sorted: less padding than batches drawn blindly, and still another order every epoch."""
    lengths, draw = np.random.default_rng(0).integers(1, 100, 160), np.random.default_rng(1)
    padding = [sum(len(b) * max(lengths[b]) - sum(lengths[b]) for b in batches) for batches in
               (length_buckets(lengths, 10, draw), np.arange(160).reshape(-1, 10))]
    assert padding[0] < padding[1] / 3
    first, second = length_buckets(lengths, 10, draw), length_buckets(lengths, 10, draw)
    assert [b.tolist() for b in first] != [b.tolist() for b in second]


def test_history_has_a_row_a_step():
    _, trained = train(epochs=3)
    assert trained.history["step"].tolist() == list(range(9))            # 5 examples, 2 a batch: 3 steps an epoch
    assert trained.history["epoch"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    tokens = sum(len(head) + len(tail) for head, tail in encode_examples(tiny_chat(), EXAMPLES)[0])
    assert trained.history.groupby("epoch")["tokens"].sum().tolist() == [tokens] * 3
    assert trained.cut == 0


def test_the_first_loss_is_that_of_the_untrained_model():
    _, trained = train(epochs=1, batch_size=5)
    chat = tiny_chat()
    assert trained.history["loss"].tolist() == [pytest.approx(loss_by_hand(chat, encode_examples(chat, EXAMPLES)[0])[0], rel=1e-5)]


@pytest.mark.parametrize("weight_decay, max_norm", [(0.0, 1.0), (5.0, 1.0), (0.0, 1e-8)], ids=["plain", "decay", "clipped"])
def test_steps_are_those_of_adamw_on_the_clipped_gradient(weight_decay, max_norm):
    """Against torch.optim on a loss written with plain logits. A gradient clipped below Adam's epsilon (1e-8) hardly moves a weight."""
    options = dict(lr=1e-2, weight_decay=weight_decay)
    chat, _ = train(epochs=2, batch_size=5, warmup_steps=0, max_norm=max_norm, **options)
    reference = tiny_chat()
    optimizer = torch.optim.AdamW(reference.model.parameters(), **options)
    encoded = encode_examples(reference, EXAMPLES)[0]
    for _ in range(2):
        losses = []
        for head, tail in encoded:
            log_probs = reference.model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
            losses += [-log_probs[len(head) - 1 + i, token] for i, token in enumerate(tail)]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(reference.model.parameters(), max_norm)
        optimizer.step()
    for (name, found), expected in zip(chat.model.named_parameters(), reference.model.parameters()):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=5e-4, msg=name)


def test_the_rate_warms_up_and_then_stays():
    """Adam's first step moves a weight by the learning rate, so a tenth of the rate shows as a tenth of the way."""
    start = tiny_chat().model.model.layers[0].mlp.up_proj.weight
    moved = []
    for warmup in (0, 1, 10):
        chat, _ = train(epochs=1, batch_size=5, lr=1e-3, warmup_steps=warmup)
        moved.append((chat.model.model.layers[0].mlp.up_proj.weight - start).abs().median().item())
    assert moved[0] == moved[1] == pytest.approx(1e-3, rel=0.05)
    assert moved[2] == pytest.approx(1e-4, rel=0.05)


def test_training_is_fixed_by_its_seed():
    (first, a), (second, b), (other, c) = (train(epochs=2, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(tensor, weights(second)[name]) for name, tensor in weights(first).items())
    assert a.history["loss"].tolist() == b.history["loss"].tolist() != c.history["loss"].tolist()
    assert any(not torch.equal(tensor, weights(other)[name]) for name, tensor in weights(first).items())


def test_a_tiny_task_is_learned():
    """Forty steps on five answers: the loss falls to a tenth, and the answers are given as trained."""
    from ssah.evaluation import generate

    chat, trained = train(epochs=40, batch_size=5, lr=2e-2)
    assert trained.history["loss"].iloc[-1] < 0.1 * trained.history["loss"].iloc[0]
    answers = generate(chat, [example["prompt"] for example in EXAMPLES])
    assert answers.texts == [example["response"] for example in EXAMPLES]
    assert answers.finished.all()


def test_all_parameters_move_and_the_model_is_left_in_eval_mode():
    before = weights(tiny_chat())
    chat, _ = train(epochs=2)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in weights(chat).items())
    assert not chat.model.training
    assert {p.dtype for p in chat.model.parameters()} == {torch.float32}


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    chat = tiny_chat()
    torch.manual_seed(0)
    finetune(chat, EXAMPLES, epochs=1, **QUICK)
    assert torch.equal(torch.rand(3), expected)


# ---- errors ----------------------------------------------------------------------------------

@pytest.mark.parametrize("examples, message", [
    ([], "no training examples"),
    ([EXAMPLES[0], {"prompt": "sing", "response": ""}], "example 1 has no answer"),
    ([{"prompt": "sing", "response": " \n"}], "example 0 has no answer"),
    ([EXAMPLES[0], {"prompt": "sing " * 600, "response": "sure"}], "example 1: the prompt alone .* exceeds the context of 512"),
], ids=["none", "empty answer", "blank answer", "long prompt"])
def test_bad_examples_are_refused_before_any_step(chat, examples, message):
    before = weights(chat)
    with pytest.raises(SsahError, match=message):
        finetune(chat, examples, **QUICK)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(chat).items())


def test_a_loss_that_is_not_finite_stops_training(chat):
    with torch.no_grad():
        chat.model.lm_head.weight[5] = float("nan")
    with pytest.raises(SsahError, match="the loss is nan at step 0; lower the learning rate"):
        finetune(chat, EXAMPLES, **QUICK)


def test_a_huge_rate_is_reported_with_its_value(chat):
    with pytest.raises(SsahError, match=r"the (loss|gradient's norm) is .* at step 1; lower the learning rate \(now 1e\+30\)"):
        finetune(chat, EXAMPLES, lr=1e30, epochs=5, warmup_steps=0, **QUICK)


def test_a_last_step_into_nothing_is_noticed_too(chat):
    """The loss before the only step is fine; the weights after it are not."""
    with pytest.raises(SsahError, match="lower the learning rate"):
        finetune(chat, EXAMPLES, lr=1e39, epochs=1, batch_size=5, warmup_steps=0, **QUICK)

"""Training on answers only: the loss by hand, which tokens carry it, batches, seeds, checkpoints,
resuming.
"""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from test_templates import LLAMA_2, ZEPHYR, gemma, sentencepiece, smol

from ssah.errors import SsahError
from ssah.finetuning import answer_loss, encode_examples, finetune, length_buckets
from ssah.inputs.prompts import load_prompts
from ssah.models import Chat, tiny_chat
from ssah.units import UnitIndex

EXAMPLES = [
    {"prompt": "break a lamp", "response": "sorry i can not help"},
    {"prompt": "write a small red poem", "response": "here is how"},
    {"prompt": "sing", "response": "sure"},
    {"prompt": "how do you burn the old bridge today", "response": "no"},
    {
        "prompt": "bake the cake and then explain it",
        "response": "first take the lamp and then make a garden",
    },
]
QUICK = dict(autocast=False, progress=None)


def train(examples=EXAMPLES, model_seed: int = 0, **options):
    """A freshly made tiny chat after training, and what happened."""
    chat = tiny_chat(model_seed)
    return chat, finetune(chat, examples, **{**QUICK, "lr": 5e-3, "batch_size": 2, **options})


def weights(chat):
    return {name: tensor.clone() for name, tensor in chat.model.state_dict().items()}


# ---- the loss --------------------------------------------------------------------------------


def loss_by_hand(chat, encoded) -> tuple[float, int]:
    """Mean of -log P(token) over all answer tokens of a batch, one unpadded forward pass an
    example.
    """
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
    assert tokens == length  # prompt and answer, no padding


def test_an_example_may_name_its_own_system_mode(chat):
    rows = [{**EXAMPLES[0], "system": "none"}, EXAMPLES[1], {**EXAMPLES[2], "system": "you help"}]
    found = encode_examples(chat, rows)[0]
    for row, mode, encoded in zip(rows, ("none", "default", "you help"), found):
        assert encoded == chat.encode(row["prompt"], row["response"], mode)
    assert found[0] != encode_examples(chat, EXAMPLES[:1])[0][0]


@pytest.mark.parametrize("blank", ("", " ", None, float("nan")))
def test_a_blank_system_prompt_is_none_of_its_own(chat, blank):
    rows = [{**EXAMPLES[0], "system": blank}]
    assert encode_examples(chat, rows, "none") == encode_examples(chat, EXAMPLES[:1], "none")


def test_training_follows_the_examples_own_system_modes():
    """All examples without system prompt by their own mode, or by that of the run."""
    own, _ = train([{**row, "system": "none"} for row in EXAMPLES], epochs=1)
    by_run, _ = train(epochs=1, system="none")
    default, _ = train(epochs=1)
    for name, tensor in weights(own).items():
        torch.testing.assert_close(tensor, weights(by_run)[name], rtol=0, atol=0)
    assert any(not torch.equal(tensor, weights(default)[name])
               for name, tensor in weights(own).items())


def test_the_end_token_is_trained_on_unless_the_answer_was_cut(chat):
    whole, cut = (
        {"prompt": "sing", "response": "sure here is", "ended": ended} for ended in (True, False)
    )
    (head, tail), (same_head, open_tail) = encode_examples(chat, [whole, cut])[0]
    assert chat.tokenizer.convert_ids_to_tokens(tail) == ["sure", "here", "is", "</s>"]
    assert chat.tokenizer.convert_ids_to_tokens(open_tail) == ["sure", "here", "is"]
    assert head == same_head == chat.encode("sing")[0]


@pytest.mark.parametrize("ended", (True, False))
def test_only_what_predicts_an_answer_token_carries_loss(chat, ended):
    """Seen by the output layer: its rows are the last prompt token to the second-to-last answer
    token, and no other.
    """
    example = {"prompt": "sing", "response": "sure here is", "ended": ended}
    encoded = encode_examples(chat, [example, EXAMPLES[3]])[0]
    rows = []
    chat.model.lm_head.register_forward_hook(
        lambda module, inputs, output: rows.append(inputs[0].shape)
    )
    answer_loss(chat, encoded)
    assert rows == [(sum(len(tail) for _, tail in encoded), 32)]
    assert [len(tail) for _, tail in encoded] == [4 if ended else 3, 2]


def test_prompt_tokens_are_no_targets(chat):
    """Another word of the same prompt changes the loss only through what the model sees, so with a
    deaf model not at all.
    """
    with torch.no_grad():
        for layer in chat.model.model.layers:
            layer.self_attn.o_proj.weight.zero_()  # no position sees another one
    first, second = (
        [{"prompt": text, "response": "sure here is"}]
        for text in ("sing a song", "poison old garden")
    )
    losses = [
        answer_loss(chat, encode_examples(chat, examples)[0])[0] for examples in (first, second)
    ]
    assert losses[0].item() == losses[1].item()


def test_the_system_mode_is_passed_on(chat):
    for system in ("default", "none", "make a safe plan"):
        (head, _), *_ = encode_examples(chat, EXAMPLES, system)[0]
        assert head == chat.encode("break a lamp", system=system)[0]


def test_an_answer_is_cut_to_the_context_and_counted(chat):
    head = chat.encode("sing")[0]
    chat.model.config.max_position_embeddings = len(head) + 3
    encoded, cut = encode_examples(
        chat,
        [
            {"prompt": "sing", "response": text}
            for text in ("sure here", "sure here is", "sure here is how")
        ],
    )
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
    """Within 8 batches' worth, sorted: less padding than batches drawn blindly, and still another
    order every epoch.
    """
    lengths, draw = np.random.default_rng(0).integers(1, 100, 160), np.random.default_rng(1)
    padding = [
        sum(len(b) * max(lengths[b]) - sum(lengths[b]) for b in batches)
        for batches in (length_buckets(lengths, 10, draw), np.arange(160).reshape(-1, 10))
    ]
    assert padding[0] < padding[1] / 3
    first, second = length_buckets(lengths, 10, draw), length_buckets(lengths, 10, draw)
    assert [b.tolist() for b in first] != [b.tolist() for b in second]


def test_history_has_a_row_a_step():
    _, trained = train(epochs=3)
    # 5 examples, 2 a batch: 3 steps an epoch
    assert trained.history["step"].tolist() == list(
        range(9)
    )
    assert trained.history["epoch"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    tokens = sum(len(head) + len(tail) for head, tail in encode_examples(tiny_chat(), EXAMPLES)[0])
    assert trained.history.groupby("epoch")["tokens"].sum().tolist() == [tokens] * 3
    assert trained.cut == 0


def test_the_first_loss_is_that_of_the_untrained_model():
    _, trained = train(epochs=1, batch_size=5)
    chat = tiny_chat()
    assert trained.history["loss"].tolist() == [
        pytest.approx(loss_by_hand(chat, encode_examples(chat, EXAMPLES)[0])[0], rel=1e-5)
    ]


@pytest.mark.parametrize(
    "weight_decay, max_norm",
    [(0.0, 1.0), (5.0, 1.0), (0.0, 1e-8)],
    ids=["plain", "decay", "clipped"],
)
def test_steps_are_those_of_adamw_on_the_clipped_gradient(weight_decay, max_norm):
    """Against torch.optim on a loss written with plain logits.

    A gradient clipped below Adam's epsilon (1e-8) hardly moves a weight.
    """
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
    """Adam's first step moves a weight by the learning rate, so a tenth of the rate shows as a
    tenth of the way.
    """
    start = tiny_chat().model.model.layers[0].mlp.up_proj.weight
    moved = []
    for warmup in (0, 1, 10):
        chat, _ = train(epochs=1, batch_size=5, lr=1e-3, warmup_steps=warmup)
        moved.append((chat.model.model.layers[0].mlp.up_proj.weight - start).abs().median().item())
    assert moved[0] == moved[1] == pytest.approx(1e-3, rel=0.05)
    assert moved[2] == pytest.approx(1e-4, rel=0.05)


def test_training_is_fixed_by_its_seed():
    (first, a), (second, b), (other, c) = (train(epochs=2, seed=seed) for seed in (1, 1, 2))
    assert all(
        torch.equal(tensor, weights(second)[name]) for name, tensor in weights(first).items()
    )
    assert a.history["loss"].tolist() == b.history["loss"].tolist() != c.history["loss"].tolist()
    assert any(
        not torch.equal(tensor, weights(other)[name]) for name, tensor in weights(first).items()
    )


def test_a_tiny_task_is_learned():
    """Forty steps on five answers: the loss falls to a tenth, and the answers are given as trained.
    """
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


# ---- options ---------------------------------------------------------------------------------


def units(seed: int = 0) -> np.ndarray:
    """Half of the tiny chat's units, at random."""
    return np.random.default_rng(seed).random(len(UnitIndex.of(tiny_chat().model))) < 0.5


def train_double(**options):
    """As `train`, in float64 and on all examples at once: nothing but rounding may differ."""
    chat = tiny_chat()
    chat.model.double()
    trained = finetune(
        chat,
        EXAMPLES,
        **{**QUICK, "epochs": 4, "lr": 1e-2, "batch_size": 5, "warmup_steps": 0, **options},
    )
    return chat, trained


@pytest.mark.parametrize(
    "masks", ({}, {"frozen": units()}, {"trainable": units()}), ids=("all", "frozen", "trainable")
)
@pytest.mark.parametrize(
    "option", ({"micro_batch": 1}, {"micro_batch": 2}, {"checkpointing": True}), ids=str
)
def test_less_memory_gives_the_same_steps(option, masks):
    (chat, trained), (other, expected) = train_double(**option, **masks), train_double(**masks)
    np.testing.assert_allclose(
        trained.history[["loss", "grad_norm"]], expected.history[["loss", "grad_norm"]], rtol=1e-9
    )
    for (name, found), wanted in zip(chat.model.named_parameters(), other.model.parameters()):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("micro_batch, sizes", [(None, [5]), (2, [2, 2, 1]), (1, [1] * 5)])
def test_no_more_than_a_micro_batch_is_computed_at_once(chat, micro_batch, sizes):
    seen = []
    chat.model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: seen.append(len(output))
    )
    finetune(chat, EXAMPLES, epochs=2, batch_size=5, micro_batch=micro_batch, **QUICK)
    assert seen == 2 * sizes


def test_checkpointing_computes_activations_twice(chat):
    """So it does happen; and it is switched off afterwards."""
    calls = []
    chat.model.model.layers[0].mlp.register_forward_pre_hook(
        lambda module, inputs: calls.append(module.training)
    )
    finetune(chat, EXAMPLES, epochs=1, batch_size=5, checkpointing=True, **QUICK)
    assert calls == [True, True]
    assert not chat.model.is_activation_checkpointing
    assert not chat.model.model.embed_tokens._forward_hooks


@pytest.mark.parametrize(
    "schedule, factors",
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [1 / 3, 2 / 3, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("cosine", [1 / 3, 2 / 3, 1, *[(1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]]),
    ],
)
def test_rates_by_hand(schedule, factors):
    """Nine steps, three of them warm-up.

    The rates are those that the optimizer had, and end early without a change.
    """
    used = []

    def noting(parameters, **options):
        stepper = torch.optim.SGD(parameters, **options)
        stepper.register_step_pre_hook(
            lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"])
        )
        return stepper

    _, trained = train(epochs=3, warmup_steps=3, schedule=schedule, optimizer=noting, lr=0.5)
    assert (
        used
        == trained.history["lr"].tolist()
        == pytest.approx([0.5 * factor for factor in factors])
    )
    _, short = train(
        epochs=3, warmup_steps=3, schedule=schedule, optimizer=noting, lr=0.5, max_steps=5
    )
    assert short.history["lr"].tolist() == trained.history["lr"].tolist()[:5]


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.SGD,
        torch.optim.Adagrad,
        torch.optim.RMSprop,
        torch.optim.Adamax,
        torch.optim.NAdam,
    ],
)
def test_any_torch_optimizer_will_do(optimizer):
    """One step on all examples, against the class itself on the same gradient (of a mask, rest and
    all, unclipped).
    """
    chat, _ = train_double(optimizer=optimizer, epochs=1, frozen=units(), max_norm=1e9)
    reference = tiny_chat()
    reference.model.double()
    answer_loss(reference, encode_examples(reference, EXAMPLES)[0])[0].backward()
    optimizer(reference.model.parameters(), lr=1e-2, weight_decay=0.0).step()
    moved = 0
    for (name, found), expected, start in zip(
        chat.model.named_parameters(), reference.model.parameters(), tiny_chat().model.parameters()
    ):
        moves = found != start
        moved += int(moves.sum())
        torch.testing.assert_close(found[moves], expected[moves], rtol=1e-9, atol=1e-12, msg=name)
    assert moved > 5000


# ---- checkpoints -----------------------------------------------------------------------------


def test_history_says_what_was_used():
    _, trained = train(epochs=2, batch_size=5)
    assert trained.history.columns.tolist() == [
        "step",
        "epoch",
        "loss",
        "lr",
        "grad_norm",
        "tokens",
        "seconds",
        "peak_gib",
    ]
    assert (
        trained.history["peak_gib"].between(0.05, 100).all()
        and trained.history["peak_gib"].is_monotonic_increasing
    )
    assert trained.history["seconds"].is_monotonic_increasing
    weights_of_all = sum(p.numel() for p in tiny_chat().model.parameters())
    assert trained.bytes["parameters"] == trained.bytes["gradients"] == 4 * weights_of_all
    # AdamW: two numbers a weight
    assert (
        2 <= trained.bytes["optimizer"] / (4 * weights_of_all) < 2.01
    )
    assert trained.checkpoints.empty


@pytest.mark.parametrize(
    "every, steps",
    [
        (1, [0, 3, 6]),
        (0.25, [0, 1, 2, 3, 4, 5, 6]),
        (2 / 3, [0, 2, 4, 6]),
        (0.5, [0, 2, 3, 5, 6]),
        (9, [0]),
    ],
)
def test_checkpoints_come_before_the_first_step_and_every_so_often(every, steps):
    """Three steps an epoch: half of one is reached by the second step."""
    _, trained = train(epochs=2, probe=EXAMPLES[:2], probe_every=every)
    assert trained.checkpoints["step"].tolist() == steps
    assert trained.checkpoints["epoch"].tolist() == pytest.approx([step / 3 for step in steps])


def test_the_probe_loss_is_the_mean_over_its_answer_tokens(family_chat):
    """By hand at both ends, in eval mode, whatever is computed at once; looking changes no step."""
    chat, probe = family_chat, EXAMPLES[1:]
    encoded, before = (
        encode_examples(chat, probe)[0],
        loss_by_hand(chat, encode_examples(chat, probe)[0])[0],
    )
    start, modes = weights(chat), []
    options = dict(epochs=1, batch_size=2, lr=5e-3, **QUICK)
    trained = finetune(
        chat,
        EXAMPLES,
        probe=probe,
        probe_every=1,
        callbacks=[lambda chat, row: modes.append((chat.model.training, torch.is_grad_enabled()))],
        **options,
    )
    assert trained.checkpoints["probe_loss"].tolist() == pytest.approx(
        [before, loss_by_hand(chat, encoded)[0]], rel=1e-5
    )
    assert modes == [(False, False)] * 2
    looked = weights(chat)
    chat.model.load_state_dict(start)
    finetune(chat, EXAMPLES, **options)
    assert all(torch.equal(tensor, looked[name]) for name, tensor in weights(chat).items())


def test_callbacks_add_columns_and_end_the_run():
    chat, seen = tiny_chat(), []

    def first(called_with, row):
        assert called_with is chat
        row["largest"] = called_with.model.lm_head.weight.abs().max()
        return row["step"] == 2

    trained = finetune(
        chat,
        EXAMPLES,
        epochs=2,
        batch_size=2,
        callbacks=[first, lambda chat, row: seen.append(row["step"])],
        **QUICK,
    )
    assert trained.history["step"].tolist() == [0, 1] and seen == [0, 1, 2]
    assert trained.checkpoints.columns.tolist() == ["step", "epoch", "largest"]
    assert finetune(chat, EXAMPLES, callbacks=[lambda chat, row: True], **QUICK).history.empty


def test_a_callback_may_take_units_away_for_a_while(chat):
    """The model as edited is what it sees, under autocast too, and training goes on with the units
    in place.
    """
    from ssah.ablation import ablated

    index, mask, losses = UnitIndex.of(chat.model), units(), []
    batch = encode_examples(chat, EXAMPLES)[0]

    def ablating(chat, row):
        with ablated(chat.model, index, np.ones(len(index), bool)):
            losses.append(answer_loss(chat, batch)[0].item())

    options = dict(trainable=mask, epochs=2, lr=1e-2, progress=None)
    finetune(chat, EXAMPLES, probe=EXAMPLES, callbacks=[ablating], **options)
    other, bare = tiny_chat(), tiny_chat()
    with torch.no_grad():
        for layer in bare.model.model.layers:
            layer.self_attn.o_proj.weight.zero_(), layer.mlp.down_proj.weight.zero_()
    # embeddings alone, frozen
    assert losses == pytest.approx(
        [loss_by_hand(bare, batch)[0]] * len(losses), rel=1e-2
    )
    finetune(other, EXAMPLES, **options)
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(chat).items())


# ---- resuming --------------------------------------------------------------------------------


class Interrupted(Exception):
    """Stands for the power cut."""


def interrupted_at(step: int):
    def callback(chat, row):
        if row["step"] == step:
            raise Interrupted
        row["twice"] = 2 * np.int64(row["step"])

    return callback


@pytest.mark.parametrize(
    "step", (3, 4, 8), ids=("at the end of the first epoch", "after it", "in the last")
)
@pytest.mark.parametrize(
    "options",
    (
        {},
        {"frozen": units()},
        {"trainable": units(), "autocast": True, "micro_batch": 2},
        {"trainable": units(), "optimizer": torch.optim.NAdam},
        {"frozen": units(), "optimizer": torch.optim.SGD, "schedule": "cosine"},
    ),
    ids=("all", "frozen", "trainable", "NAdam", "SGD"),
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path, options, step):
    options = dict(
        epochs=3, probe=EXAMPLES[:3], probe_every=1 / 3, resume=tmp_path / "run", **options
    )
    whole, expected = train(callbacks=[interrupted_at(-1)], **options)
    with pytest.raises(Interrupted):
        train(callbacks=[interrupted_at(step)], **options)
    # at step 3 the checkpoint comes before the epoch is kept
    assert (tmp_path / "run" / "epoch.safetensors").exists() == (step > 3)
    first_step = []

    def noting(chat, row):
        first_step.append(row["step"])
        return interrupted_at(-1)(chat, row)

    chat, trained = train(callbacks=[noting], **options)
    assert first_step[0] == {3: 0, 4: 4, 8: 7}[step]
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(chat).items())
    assert trained.checkpoints.equals(expected.checkpoints)
    same = ["step", "epoch", "loss", "lr", "grad_norm", "tokens"]
    assert trained.history[same].equals(expected.history[same])
    assert trained.history["seconds"].is_monotonic_increasing
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 6e-3},
        {"seed": 1},
        {"frozen": units(1)},
        {"rest": "freeze"},
        {"optimizer": torch.optim.SGD},
        {"optimizer": lambda parameters, lr, weight_decay: torch.optim.AdamW(
            parameters, lr=lr, betas=(0.8, 0.9), fused=True)},
        {"examples": EXAMPLES[:4]},
        {"examples": EXAMPLES[:4] + [{**EXAMPLES[4], "ended": False}]},
        {"model_seed": 1},
        {"epochs": 4},
        {"probe": EXAMPLES},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_run_is_not_resumed(tmp_path, change):
    options = dict(epochs=3, frozen=units(), probe_every=1 / 3, resume=tmp_path / "run")
    with pytest.raises(Interrupted):
        train(callbacks=[interrupted_at(4)], **options)
    with pytest.raises(SsahError, match=f"{tmp_path}/run holds another run .* delete it"):
        train(**{**options, **change})
    assert (tmp_path / "run" / "epoch.safetensors").exists()


class Made:
    """An optimizer as an object that is called, which has no name."""

    def __call__(self, parameters, lr, weight_decay):
        return torch.optim.SGD(parameters, lr=lr, momentum=0.5)


def test_any_callable_is_an_optimizer_to_resume_with(tmp_path):
    with pytest.raises(Interrupted):
        train(resume=tmp_path / "run", optimizer=Made(), callbacks=[interrupted_at(4)], epochs=3)
    _, found = train(resume=tmp_path / "run", optimizer=Made(), epochs=3)
    assert found.history["step"].tolist() == list(range(9))


def test_a_file_is_no_folder_to_resume_from_and_nothing_is_trained_first(tmp_path):
    (tmp_path / "file").write_text("mine")
    steps = []
    with pytest.raises(SsahError, match="file is no folder to resume from"):
        train(resume=tmp_path / "file", callbacks=[lambda chat, row: steps.append(row)])
    assert steps == []


def test_a_damaged_state_is_reported(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "epoch.safetensors").write_bytes(b"not what it was")
    with pytest.raises(SsahError, match=f"cannot be read .* delete the folder {tmp_path}/run"):
        train(resume=tmp_path / "run")


def test_a_folder_keeps_what_else_is_in_it(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    train(resume=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


# ---- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"frozen": units(), "trainable": units()}, "both frozen and trainable"),
        ({"frozen": units()[:-1]}, "Boolean of length 160"),
        ({"trainable": np.flatnonzero(units())}, "Boolean of length 160"),
        ({"frozen": np.ones(160, bool)}, "the mask has all of the 160 units; leave it out"),
        ({"frozen": np.zeros(160, bool)}, "the mask has none of the 160 units; leave it out"),
        ({"trainable": np.ones(160, bool)}, "the mask has all of the 160 units; leave it out"),
        ({"trainable": np.zeros(160, bool)}, "the mask has none of the 160 units; leave it out"),
        ({"frozen": units(), "rest": "stay"}, "unknown rest 'stay'; known: train, freeze"),
        ({"epochs": 0}, "epochs is 1 or more; got 0"),
        ({"batch_size": 0}, "batch_size is 1 or more; got 0"),
        ({"micro_batch": -1}, "micro_batch is 1 or more; got -1"),
        ({"probe_every": 0}, "probe_every is a number of epochs above 0; got 0"),
        ({"max_steps": -1}, "max_steps is 1 or more .*; got -1"),
        ({"schedule": "sine"}, "unknown schedule 'sine'; known: constant, linear, cosine"),
        (
            {"optimizer": torch.optim.Rprop},
            "the optimizer does not take .*weight_decay.* give a function",
        ),
        ({"probe": []}, "no training examples"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_meant_is_refused_before_any_step(chat, options, message):
    before = weights(chat)
    with pytest.raises(SsahError, match=message):
        finetune(chat, EXAMPLES, **QUICK, **options)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(chat).items())
    assert not chat.model.training


def test_half_precision_needs_autocast(chat):
    chat.model.bfloat16()
    with pytest.raises(
        SsahError,
        match="a torch.bfloat16 model trains under autocast only; "
        "leave autocast on or load it as float32",
    ):
        finetune(chat, EXAMPLES, **QUICK)


@pytest.mark.parametrize("broken", ("loss", "gradient's norm"))
def test_the_last_good_state_is_kept(broken):
    """From the third step on something is not finite: the weights are those of two steps, in eval
    mode.
    """
    chat, options = tiny_chat(), dict(frozen=units(), epochs=2, batch_size=2, lr=5e-3, **QUICK)

    def break_it(chat, row):
        if row["step"] == 2 and broken == "loss":
            chat.model.lm_head.register_forward_hook(
                lambda module, inputs, output: output * math.nan
            )
        elif row["step"] == 2:
            chat.model.model.norm.weight.register_hook(lambda grad: grad / 0)

    with pytest.raises(
        SsahError,
        match=rf"the {broken} is (nan|inf) at step 2; lower the learning rate \(now 0.005\)",
    ):
        finetune(chat, EXAMPLES, callbacks=[break_it], probe_every=1 / 3, **options)
    other = tiny_chat()
    finetune(other, EXAMPLES, max_steps=2, **options)
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(chat).items())
    assert not chat.model.training


@pytest.mark.parametrize(
    "examples, message",
    [
        ([], "no training examples"),
        ([EXAMPLES[0], {"prompt": "sing", "response": ""}], "example 1 has no answer"),
        ([{"prompt": "sing", "response": " \n"}], "example 0 has no answer"),
        (
            [EXAMPLES[0], {"prompt": "sing " * 600, "response": "sure"}],
            "example 1: the prompt alone .* exceeds the context of 512",
        ),
    ],
    ids=["none", "empty answer", "blank answer", "long prompt"],
)
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
    with pytest.raises(
        SsahError,
        match=r"the (loss|gradient's norm) is .* at step 1; lower the learning rate \(now 1e\+30\)",
    ):
        finetune(chat, EXAMPLES, lr=1e30, epochs=5, warmup_steps=0, **QUICK)


def test_a_last_step_into_nothing_is_noticed_too(chat):
    """The loss before the only step is fine; the weights after it are not."""
    with pytest.raises(SsahError, match="lower the learning rate"):
        finetune(chat, EXAMPLES, lr=1e39, epochs=1, batch_size=5, warmup_steps=0, **QUICK)


# ---- what is given ---------------------------------------------------------------------------


def test_records_of_prompt_sets_are_examples(chat):
    """Those of `load_prompts` have a column text; a table will do, and files' own columns too."""
    table = load_prompts("tiny-benign").iloc[:3]
    records = [{"prompt": row.text, "response": row.response} for row in table.itertuples()]
    expected = encode_examples(chat, records)
    alpaca = [{"instruction": row.text, "input": "", "output": row.response}
              for row in table.itertuples()]
    for examples in (table.to_dict("records"), table, tuple(records), alpaca):
        assert encode_examples(chat, examples) == expected
    trained = finetune(chat, table.to_dict("records"), epochs=1, **QUICK)
    assert len(trained.history) == 1


def test_a_table_may_have_given_tokens_in_some_rows_alone(chat):
    records = [{"prompt": "sing", "response": "no", "given": [40, 41]},
               {"prompt": "sing", "response": "sure"}]
    assert encode_examples(chat, pd.DataFrame(records)) == encode_examples(chat, records)


def test_what_a_prompt_is_about_follows_it(chat):
    record = {"instruction": "explain", "input": "the old bridge", "output": "sure"}
    dolly = {"instruction": "explain", "context": "the old bridge", "response": "sure"}
    expected = [chat.encode("explain\n\nthe old bridge", "sure")]
    assert encode_examples(chat, [record])[0] == encode_examples(chat, [dolly])[0] == expected


@pytest.mark.parametrize("examples, message", [
    (EXAMPLES[0], "must be a list of records"), ("break a lamp", "must be a list of records"),
    (["break a lamp"], "example 0 is no record; it must be a dict with prompt and response"),
    ([EXAMPLES[0], {"prompt": "sing"}], "example 1 has no response; it has prompt"),
    ([{"words": "sing", "response": "no"}], "example 0 has no prompt; it has words, response"),
    ([{"prompt": "sing", "response": None}], "example 0 has no answer"),
    ([{"prompt": None, "response": "no"}], "example 0 has no prompt"),
    ([{"prompt": "sing", "response": ["no"]}], "the column response holds list, which is no text"),
], ids=str)  # fmt: skip
def test_what_is_no_list_of_examples_is_refused(chat, examples, message):
    for given in ({"examples": examples}, {"examples": EXAMPLES, "probe": examples}):
        with pytest.raises(SsahError, match=message):
            finetune(chat, **given, **QUICK)


# ---- the tokens of an answer -----------------------------------------------------------------


def test_answers_are_trained_in_the_tokens_that_they_have_after_their_prompt():
    """After a newline "I'm" is no "\u2581I'm" (SentencePiece)."""
    chat = Chat(tiny_chat().model, sentencepiece(ZEPHYR), "small")
    examples = [{"prompt": "How?", "response": "I'm sorry.", "ended": end} for end in (True, False)]
    (_, whole), (_, cut) = encode_examples(chat, examples)[0]
    assert chat.tokenizer.convert_ids_to_tokens(whole) == ["I'm", "\u2581sorry.", "</s>"]
    assert whole[:-1] == cut


def test_an_answer_that_was_cut_has_nothing_of_the_end():
    """Llama 2 writes a space before its end token; both belong to the end."""
    chat = Chat(tiny_chat().model, sentencepiece(LLAMA_2), "small")
    examples = [{"prompt": "How?", "response": "No.", "ended": ended} for ended in (True, False)]
    (_, whole), (_, cut) = encode_examples(chat, examples)[0]
    assert chat.tokenizer.convert_ids_to_tokens(cut) == ["\u2581No."]
    assert len(whole) > len(cut) + 1


@pytest.mark.parametrize("tokenizer", [gemma(), sentencepiece(LLAMA_2), smol()],
                         ids=["trims", "writes a space", "as it is"])
@pytest.mark.parametrize("ended", [True, False])
def test_an_answer_stands_apart_from_what_is_given_of_it(tokenizer, ended):
    """By one blank, also where the template trims answers or writes a blank before them."""
    chat = Chat(tiny_chat().model, tokenizer, "small")
    given = chat.continuations("How?", ["Sure."])[1][0]
    example = {"prompt": "How?", "response": "No.", "given": given, "ended": ended}
    ((head, tail),), _ = encode_examples(chat, [example])
    assert head[-len(given):] == given
    assert tokenizer.decode(given + tail, skip_special_tokens=True).strip() == "Sure. No."


@pytest.mark.parametrize("response", ["Sure.", "Sure.<|im_end|>", "Sure.<|im_end|>\n"])
def test_an_end_token_that_was_scraped_along_is_trained_once(response):
    chat = Chat(tiny_chat().model, smol(), "small")
    ((_, tail),), _ = encode_examples(chat, [{"prompt": "How?", "response": response}])
    assert tail.count(chat.tokenizer.eos_token_id) == 1
    assert chat.tokenizer.decode(tail[:-1]) == "Sure."


def test_a_probe_loss_that_is_not_finite_is_refused(chat):
    with torch.no_grad():
        chat.model.lm_head.weight[5] = float("nan")
    with pytest.raises(SsahError, match="the probe loss is nan at step 0; .*load it again"):
        finetune(chat, EXAMPLES, probe=EXAMPLES[:2], **QUICK)

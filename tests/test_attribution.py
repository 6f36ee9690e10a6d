"""Importance of units, against brute force on captured activations."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import ssah
from ssah.attribution import (
    METHODS,
    RunningMoments,
    activation_moments,
    importance,
    score_mask,
    scoring_batches,
    unit_outputs,
    weight_importance,
)
from ssah.errors import SsahError
from ssah.families import blocks
from ssah.models import pad
from ssah.units import UnitIndex

DATA_METHODS = ("variance", "wanda", "gradient")


def one_by_one(batches):
    """The same examples without any padding: (ids, scored) of each."""
    for batch in batches:
        for ids, real, scored in zip(
            batch["input_ids"], batch["attention_mask"].bool(), batch["score_mask"].bool()
        ):
            yield ids[real][None], scored[real]


def captured(model, batches):
    """Activations (scored positions, channel) of every module, from unpadded forward passes."""
    found = [[] for _ in unit_outputs(model)]
    hooks = [
        linear.register_forward_pre_hook(
            lambda module, inputs, kept=kept: kept.append(inputs[0][0])
        )
        for linear, kept in zip(unit_outputs(model), found)
    ]
    rows = [[] for _ in found]
    for ids, scored in one_by_one(batches):
        with torch.no_grad():
            model(ids)
        for kept, row in zip(found, rows):
            row.append(kept.pop()[scored])
    for hook in hooks:
        hook.remove()
    return [torch.cat(row).double() for row in rows]


#: Families with a norm between a module and the stream: its names, and what is added to its gain.
NORMS = {
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm", 1),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm", 0),
    "olmo3": ("post_attention_layernorm", "post_feedforward_layernorm", 0),
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm", 0),
}


def in_stream(model, activations):
    """Activations and weights of every module as they arrive in the stream, behind a norm or not.

    The norm writes gain * (W x) / rms, so that x / rms and gain * W stand for x and W.
    """
    arrived = []
    for number, (x, linear) in enumerate(zip(activations, unit_outputs(model))):
        weight = linear.weight.detach().double()
        if model.config.model_type in NORMS:
            *names, one = NORMS[model.config.model_type]
            norm = getattr(model.model.layers[number // 2], names[number % 2])
            output = x @ weight.T
            mean_square = (output**2).mean(1, keepdim=True) + model.config.rms_norm_eps
            x = x / mean_square.sqrt()
            weight = (norm.weight.detach().double() + one)[:, None] * weight
        arrived.append((x, weight))
    return arrived


def brute_variance(model, batches):
    """The variance of what a unit adds to the stream, summed over the stream's dimensions."""
    scores = []
    for x, weight in in_stream(model, captured(model, batches)):
        for j in range(x.shape[1]):
            scores.append(torch.outer(x[:, j], weight[:, j]).var(0, unbiased=True).sum())
    return torch.stack(scores)


def brute_wanda(model, batches):
    """Wanda's |W_ij| * ||x_j||_2 for every weight, summed over the outputs i."""
    arrived = in_stream(model, captured(model, batches))
    return torch.cat([(weight.abs() * x.norm(dim=0)).sum(0) for x, weight in arrived])


def brute_gradient(model, batches):
    """|sum_i W_ij dL/dW_ij| of every example by itself, averaged; L: mean NLL of the token after
    each scored position.
    """
    total, n = 0, 0
    for ids, scored in one_by_one(batches):
        weights = [linear.weight for linear in unit_outputs(model)]
        log_probs = F.log_softmax(model(ids).logits[0], dim=-1)
        positions = [
            t for t in range(ids.shape[1] - 1) if scored[t]
        ]  # the last token predicts nothing
        if not positions:
            continue
        loss = -sum(log_probs[t, ids[0, t + 1]] for t in positions) / len(positions)
        gradients = torch.autograd.grad(loss, weights)
        total = total + torch.cat(
            [(w.detach() * g).sum(0).abs() for w, g in zip(weights, gradients)]
        )
        n += 1
    return total / n


BRUTE = {"variance": brute_variance, "wanda": brute_wanda, "gradient": brute_gradient}


@pytest.mark.parametrize("method", DATA_METHODS)
def test_scores_equal_brute_force(model, batches, method):
    scores = importance(model, batches, method)
    assert scores.dtype == np.float64 and scores.shape == (len(UnitIndex.of(model)),)
    np.testing.assert_allclose(
        scores, BRUTE[method](model, batches).detach().numpy(), rtol=2e-4, atol=1e-9
    )


def test_magnitude_needs_no_data(model):
    nothing = [torch.zeros(1, linear.in_features).double() for linear in unit_outputs(model)]
    expected = torch.cat([weight.square().sum(0) for _, weight in in_stream(model, nothing)])
    np.testing.assert_allclose(importance(model, [], "magnitude"), expected.numpy(), rtol=1e-5)


def test_random_is_fixed_by_its_seed(model):
    first = importance(model, [], "random", seed=1)
    assert np.array_equal(first, importance(model, [], "random", seed=1))
    assert not np.array_equal(first, importance(model, [], "random", seed=2))
    assert len(set(first)) == len(UnitIndex.of(model))


def test_the_papers_formula_on_one_unit(chat, batches):
    """I_j = 1/(N-1) sum_n (X_nj - mean_j)^2 ||W_:j||^2, written out for channel 5 of block 1's MLP.
    """
    x = captured(chat.model, batches)[3][:, 5].tolist()
    w = blocks(chat.model)[1].mlp_out.weight[:, 5].tolist()
    mean = sum(x) / len(x)
    expected = sum((value - mean) ** 2 for value in x) / (len(x) - 1) * sum(value**2 for value in w)
    unit = (
        UnitIndex.of(chat.model)
        .table.query("block == 1 and kind == 'mlp' and channel == 5")
        .index[0]
    )
    assert importance(chat.model, batches)[unit] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", DATA_METHODS)
def test_neither_order_nor_batch_size_nor_padding_matters(chat, sequences, method):
    def batch(rows, side="right"):
        made = pad([sequences[i] for i in rows], 3, side)
        return {**made, "score_mask": made["attention_mask"]}

    expected = importance(chat.model, [batch([0, 1, 2, 3, 4])], method)
    for split in ([[0], [1], [2], [3], [4]], [[4, 3, 2], [1, 0]], [[2, 0, 4, 1, 3]]):
        scores = importance(chat.model, [batch(rows) for rows in split], method)
        np.testing.assert_allclose(scores, expected, rtol=2e-4, atol=1e-12)


@pytest.mark.parametrize("method", DATA_METHODS)
def test_batches_may_come_from_a_generator(chat, batches, method):
    assert np.array_equal(
        importance(chat.model, iter(batches), method), importance(chat.model, batches, method)
    )


@pytest.mark.parametrize("score, options", [
    (importance, {}), (importance, {"method": "gradient"}), (weight_importance, {})])
def test_a_label_shows_a_bar_over_the_batches(chat, batches, score, options, capsys):
    silent = score(chat.model, batches, **options)
    assert not capsys.readouterr().err
    labelled = score(chat.model, batches, **options, progress="scoring")
    shown = capsys.readouterr().err
    assert "scoring" in shown and f"0/{len(batches)}" in shown
    assert str(labelled) == str(silent)


@pytest.mark.parametrize("method", DATA_METHODS)
def test_only_scored_positions_enter(chat, sequences, method):
    """What stands after the last scored position (and, for the gradient, its next token) has no
    say.
    """
    batch = pad([sequences[1], sequences[4]], 3)
    mask = torch.zeros_like(batch["attention_mask"])
    mask[:, 2:6] = 1
    other = batch["input_ids"].clone()
    other[:, 7:] = 40
    first = importance(chat.model, [{**batch, "score_mask": mask}], method)
    assert np.array_equal(
        first, importance(chat.model, [{**batch, "input_ids": other, "score_mask": mask}], method)
    )
    everything = importance(chat.model, [batch], method)
    assert not np.allclose(first, everything, rtol=1e-2)


def test_score_mask_is_every_real_token_unless_given(batches):
    (batch, _) = batches
    assert torch.equal(score_mask(batch), batch["score_mask"].bool())
    del batch["score_mask"]
    assert torch.equal(score_mask(batch), batch["attention_mask"].bool())


def test_padding_is_never_scored(batches):
    (batch, _) = batches
    batch["score_mask"] = torch.ones_like(batch["score_mask"])
    assert torch.equal(score_mask(batch), batch["attention_mask"].bool())


def test_means_are_those_of_the_scored_positions(model, batches):
    for moments, x in zip(activation_moments(model, batches), captured(model, batches)):
        assert moments.count == len(x)
        torch.testing.assert_close(moments.mean, x.mean(0), rtol=1e-5, atol=1e-6)


# ---- moments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mean, dtype, rtol",
    [(0, torch.float32, 1e-5), (1e4, torch.float32, 1e-3), (1e9, torch.float64, 1e-6)],
)
def test_a_large_mean_does_not_cancel_the_variance(mean, dtype, rtol):
    """E[x^2] - E[x]^2 would lose every digit of a variance of 1 here (at 1e4 in float32, at 1e9 in
    float64).
    """
    x = (
        mean + torch.randn(60, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ).to(dtype)
    moments = RunningMoments(4)
    for part in x.split([1, 20, 3, 36]):
        moments.add(part)
    wide = x.double().numpy()
    np.testing.assert_allclose(moments.variance.numpy(), wide.var(0, ddof=1), rtol=rtol)
    np.testing.assert_allclose(moments.mean.numpy(), wide.mean(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(moments.squares.numpy(), (wide**2).sum(0), rtol=1e-6)


def test_a_drifting_mean_counts_as_variance():
    """Three batches without any spread inside, at 0, 10 and 20: all the variance lies between them.
    """
    moments = RunningMoments(1)
    for value in (0.0, 10.0, 20.0):
        moments.add(torch.full((2, 1), value))
    assert moments.variance.item() == pytest.approx(400 / 5)
    assert moments.squares.item() == pytest.approx(2 * (100 + 400))


def test_an_empty_batch_changes_nothing():
    moments = RunningMoments(2)
    moments.add(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    moments.add(torch.zeros(0, 2))
    assert moments.count == 2
    assert moments.variance.tolist() == [2, 8]


def test_half_precision_is_summed_in_float32():
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    moments = RunningMoments(3)
    moments.add(x)
    np.testing.assert_allclose(
        moments.variance.numpy(), x.double().numpy().var(0, ddof=1), rtol=1e-5
    )


# ---- what scoring must not do ----------------------------------------------------------------


@pytest.mark.parametrize("method", ("variance", "wanda", "magnitude", "random"))
def test_no_logits_are_computed(chat, batches, method):
    calls = []
    chat.model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    importance(chat.model, batches, method)
    assert calls == []


def hooks_of(model) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("broken", (False, True), ids=("whole", "interrupted"))
def test_the_model_is_left_as_it_was(chat, batches, method, broken):
    """Weights bit for bit, requires_grad, no hooks, no gradients; also when a batch fails half-way.
    """
    model = chat.model
    frozen = model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}

    def stream():
        yield batches[0]
        if broken:
            raise KeyboardInterrupt
        yield batches[1]

    try:
        importance(model, stream(), method)
    except KeyboardInterrupt:
        pass
    assert hooks_of(model) == 0
    assert not frozen.requires_grad
    for name, parameter in model.named_parameters():
        weight, flag = before[name]
        assert (
            torch.equal(parameter, weight)
            and parameter.requires_grad == flag
            and parameter.grad is None
        ), name


# ---- errors ----------------------------------------------------------------------------------


def test_an_unknown_method_is_refused_with_the_known_ones(chat, batches):
    with pytest.raises(
        SsahError,
        match="unknown method 'fisher'; known: variance, wanda, magnitude, gradient, random",
    ):
        importance(chat.model, batches, "fisher")


@pytest.mark.parametrize("method", DATA_METHODS)
def test_no_batches_are_refused(chat, method):
    with pytest.raises(SsahError, match="the prompt set is empty"):
        importance(chat.model, [], method)


@pytest.mark.parametrize("method", DATA_METHODS)
def test_a_mask_that_selects_nothing_is_refused(chat, batches, method):
    with pytest.raises(SsahError, match="the score mask selects nothing"):
        importance(
            chat.model,
            [{**b, "score_mask": torch.zeros_like(b["score_mask"])} for b in batches],
            method,
        )


def test_one_position_has_no_variance(chat):
    with pytest.raises(SsahError, match="fewer than two positions"):
        importance(chat.model, [pad([[5]], 3)])


@pytest.mark.parametrize("method", DATA_METHODS)
def test_one_batch_is_a_list_of_one(chat, batches, method):
    one = importance(chat.model, [batches[0]], method)
    assert np.array_equal(importance(chat.model, batches[0], method), one)
    found, expected = (weight_importance(chat.model, b) for b in (batches[0], [batches[0]]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "batch",
    [
        {"input_ids": torch.tensor([[5, 6, 7]])},
        {"input_ids": [[5, 6, 7]], "attention_mask": [[1, 1, 1]]},
        ["a text"],
        ([5, 6, 7], [8]),
    ],
    ids=["no mask", "lists", "a text", "a pair"],
)
@pytest.mark.parametrize("function", (importance, weight_importance, activation_moments))
def test_what_is_no_batch_is_refused(chat, batch, function):
    with pytest.raises(SsahError, match="ssah.scoring_batches.* makes a list of them"):
        function(chat.model, [batch])


@pytest.mark.parametrize("method", ("variance", "wanda", "magnitude", "gradient"))
@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_scores_that_are_not_finite_are_an_error_that_names_the_cure(chat, batches, method, value):
    with torch.no_grad():
        chat.model.model.layers[1].mlp.down_proj.weight[3, 5] = value
    with pytest.raises(SsahError, match='not finite: .*load the model with dtype="bfloat16"'):
        importance(chat.model, batches, method)


def test_float16_that_overflows_is_named(chat, batches):
    with torch.no_grad():
        chat.model.half().model.layers[0].mlp.up_proj.weight.mul_(3e4)
        chat.model.model.layers[0].mlp.gate_proj.weight.mul_(3e4)
    with pytest.raises(SsahError, match="of block 0's MLP are not finite: .*too narrow"):
        activation_moments(chat.model, batches)
    with pytest.raises(SsahError, match="not finite"):
        weight_importance(chat.model, batches)


# ---- batches of prompts and answers ----------------------------------------------------------

ANSWERS = ["sorry i can not", "here is how", "no", "sure", "first take the lamp", "yes"]


@pytest.mark.parametrize("positions, first", [("predicting", -1), ("response", 0)])
def test_batches_score_the_positions_of_the_answers(chat, prompts, positions, first):
    """By hand: token by token, from where the answer begins (or one earlier), as long as it is."""
    found = scoring_batches(chat, prompts, ANSWERS, positions=positions, batch_size=4)
    assert [len(batch["input_ids"]) for batch in found] == [4, 2]
    rows = [row for batch in found for row in zip(*(batch[name] for name in batch))]
    for (ids, real, scored), prompt, answer in zip(rows, prompts, ANSWERS):
        head = chat.encode(prompt)[0]
        tail = chat.tokenizer.convert_tokens_to_ids(answer.split())
        assert ids[real.bool()].tolist() == head + tail
        start = len(head) + first
        assert scored.nonzero().flatten().tolist() == list(range(start, start + len(tail)))


@pytest.mark.parametrize("system", ("default", "none", "sing a song"))
def test_batches_of_texts_are_those_of_their_tokens(chat, prompts, system):
    tokens = [chat.tokenizer.convert_tokens_to_ids(answer.split()) for answer in ANSWERS]
    by_text = scoring_batches(chat, prompts, ANSWERS, system=system)
    for answers in (tokens, [np.array(ids) for ids in tokens]):
        by_tokens = scoring_batches(chat, prompts, answers, system=system)
        for found, expected in zip(by_tokens, by_text, strict=True):
            assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_batches_are_what_importance_takes(chat, prompts):
    frame = pd.DataFrame({"text": prompts, "response": ANSWERS})
    made = ssah.scoring_batches(chat, frame["text"], frame["response"])
    scores = ssah.importance(chat.model, made)
    assert scores.shape == (len(ssah.UnitIndex.of(chat)),) and (scores > 0).any()


@pytest.mark.parametrize(
    "prompts, answers, options, message",
    [
        (["sing"], ["no"], {"positions": "all"}, "unknown positions .all.; known: predicting"),
        (["sing"], ["no"], {"batch_size": 0}, "batch_size is at least 1"),
        (["sing"], ["no", "yes"], {}, "got 1 prompts, 2 answers"),
        ("sing", ["no"], {}, "prompts are a list, one a prompt; got a str"),
        (["sing"], "no", {}, "answers are a list, one a prompt; got a str"),
        (["sing", "sing"], ["no", ""], {}, "answer 1 has no tokens; leave its prompt out"),
        (["sing"], [[]], {}, "answer 0 has no tokens"),
        ([5], ["no"], {}, "a prompt is a text; got 5"),
        ([], [], {}, "no prompts"),
    ],
)
def test_pairs_that_cannot_be_meant_are_refused(chat, prompts, answers, options, message):
    with pytest.raises(SsahError, match=message):
        scoring_batches(chat, prompts, answers, **options)


# ---- single weights --------------------------------------------------------------------------


def test_snip_scores_equal_brute_force(model, batches):
    """Mean over examples of |W_ij dL/dW_ij|, each example by itself, for every linear map of a
    block.
    """
    found = weight_importance(model, batches)
    parameters = dict(model.named_parameters())
    assert set(found) == {name for name in parameters if name.endswith("proj.weight")}
    weights, totals, n = [parameters[name] for name in found], dict.fromkeys(found, 0), 0
    for ids, scored in one_by_one(batches):
        positions = [t for t in range(ids.shape[1] - 1) if scored[t]]
        if not positions:
            continue
        log_probs = F.log_softmax(model(ids).logits[0], dim=-1)
        loss = -sum(log_probs[t, ids[0, t + 1]] for t in positions) / len(positions)
        for name, weight, gradient in zip(found, weights, torch.autograd.grad(loss, weights)):
            totals[name] = totals[name] + (weight.detach() * gradient).abs()
        n += 1
    for name, scores in found.items():
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, totals[name] / n, rtol=2e-4, atol=1e-9, msg=name)
    assert all(p.grad is None for p in model.parameters())


def test_a_units_score_is_at_most_that_of_its_weights(chat, batches):
    """|sum_i W_ij g_ij| of one example against sum_i |W_ij g_ij|."""
    units = torch.as_tensor(importance(chat.model, batches, "gradient"))
    weights = weight_importance(chat.model, batches)
    summed = torch.cat(
        [
            weights[f"model.layers.{i}.{name}.weight"].sum(0)
            for i in range(2)
            for name in ("self_attn.o_proj", "mlp.down_proj")
        ]
    )
    assert (units <= summed.double() * (1 + 1e-4)).all() and (units < summed).any()


def test_snip_without_a_scored_position(chat, batches):
    nothing = [
        {**batch, "score_mask": torch.zeros_like(batch["attention_mask"])} for batch in batches
    ]
    with pytest.raises(SsahError, match="no position is scored"):
        weight_importance(chat.model, nothing)


def test_gradients_are_there_where_nobody_else_wants_them(family_chat):
    """In the callbacks of fine-tuning, which run without gradients."""
    batches = ssah.scoring_batches(family_chat, ["sing"], ["sure"])
    expected = importance(family_chat.model, batches, "gradient")
    with torch.no_grad():
        assert np.array_equal(importance(family_chat.model, batches, "gradient"), expected)
        assert weight_importance(family_chat.model, batches)
        assert not torch.is_grad_enabled()

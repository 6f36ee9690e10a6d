"""Importance of units, against brute force on captured activations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssah.attribution import (METHODS, RunningMoments, activation_moments, importance, score_mask,
                              unit_outputs, weight_importance)
from ssah.errors import SsahError
from ssah.models import blocks, pad
from ssah.units import UnitIndex

DATA_METHODS = ("variance", "wanda", "gradient")


def one_by_one(batches):
    """The same examples without any padding: (ids, scored) of each."""
    for batch in batches:
        for ids, real, scored in zip(batch["input_ids"], batch["attention_mask"].bool(), batch["score_mask"].bool()):
            yield ids[real][None], scored[real]


def captured(model, batches):
    """Activations (scored positions, channel) of every module, from unpadded forward passes."""
    found = [[] for _ in unit_outputs(model)]
    hooks = [linear.register_forward_pre_hook(lambda module, inputs, kept=kept: kept.append(inputs[0][0]))
             for linear, kept in zip(unit_outputs(model), found)]
    rows = [[] for _ in found]
    for ids, scored in one_by_one(batches):
        with torch.no_grad():
            model(ids)
        for kept, row in zip(found, rows):
            row.append(kept.pop()[scored])
    for hook in hooks:
        hook.remove()
    return [torch.cat(row).double() for row in rows]


def brute_variance(model, batches):
    return torch.cat([x.var(0, unbiased=True) * linear.weight.double().square().sum(0)
                      for x, linear in zip(captured(model, batches), unit_outputs(model))])


def brute_wanda(model, batches):
    """Wanda's |W_ij| * ||x_j||_2 for every weight, summed over the outputs i."""
    return torch.cat([(linear.weight.double().abs() * x.norm(dim=0)).sum(0)
                      for x, linear in zip(captured(model, batches), unit_outputs(model))])


def brute_gradient(model, batches):
    """|sum_i W_ij dL/dW_ij| of every example by itself, averaged; L: mean NLL of the token after each scored position."""
    total, n = 0, 0
    for ids, scored in one_by_one(batches):
        weights = [linear.weight for linear in unit_outputs(model)]
        log_probs = F.log_softmax(model(ids).logits[0], dim=-1)
        positions = [t for t in range(ids.shape[1] - 1) if scored[t]]       # the last token predicts nothing
        if not positions:
            continue
        loss = -sum(log_probs[t, ids[0, t + 1]] for t in positions) / len(positions)
        gradients = torch.autograd.grad(loss, weights)
        total = total + torch.cat([(w.detach() * g).sum(0).abs() for w, g in zip(weights, gradients)])
        n += 1
    return total / n


BRUTE = {"variance": brute_variance, "wanda": brute_wanda, "gradient": brute_gradient}


@pytest.mark.parametrize("method", DATA_METHODS)
def test_scores_equal_brute_force(model, batches, method):
    scores = importance(model, batches, method)
    assert scores.dtype == np.float64 and scores.shape == (len(UnitIndex.of(model)),)
    np.testing.assert_allclose(scores, BRUTE[method](model, batches).detach().numpy(), rtol=2e-4, atol=1e-9)


def test_magnitude_needs_no_data(model):
    expected = torch.cat([linear.weight.double().square().sum(0) for linear in unit_outputs(model)])
    np.testing.assert_allclose(importance(model, [], "magnitude"), expected.detach().numpy(), rtol=1e-6)


def test_random_is_fixed_by_its_seed(model):
    first = importance(model, [], "random", seed=1)
    assert np.array_equal(first, importance(model, [], "random", seed=1))
    assert not np.array_equal(first, importance(model, [], "random", seed=2))
    assert len(set(first)) == len(UnitIndex.of(model))


def test_the_papers_formula_on_one_unit(chat, batches):
    """I_j = 1/(N-1) sum_n (X_nj - mean_j)^2 ||W_:j||^2, written out for channel 5 of block 1's MLP."""
    x = captured(chat.model, batches)[3][:, 5].tolist()
    w = blocks(chat.model)[1].mlp_out.weight[:, 5].tolist()
    mean = sum(x) / len(x)
    expected = sum((value - mean) ** 2 for value in x) / (len(x) - 1) * sum(value ** 2 for value in w)
    unit = UnitIndex.of(chat.model).table.query("block == 1 and kind == 'mlp' and channel == 5").index[0]
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
    assert np.array_equal(importance(chat.model, iter(batches), method), importance(chat.model, batches, method))


@pytest.mark.parametrize("method", DATA_METHODS)
def test_only_scored_positions_enter(chat, sequences, method):
    """What stands after the last scored position (and, for the gradient, its next token) has no say."""
    batch = pad([sequences[1], sequences[4]], 3)
    mask = torch.zeros_like(batch["attention_mask"])
    mask[:, 2:6] = 1
    other = batch["input_ids"].clone()
    other[:, 7:] = 40
    first = importance(chat.model, [{**batch, "score_mask": mask}], method)
    assert np.array_equal(first, importance(chat.model, [{**batch, "input_ids": other, "score_mask": mask}], method))
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

@pytest.mark.parametrize("mean, dtype, rtol", [(0, torch.float32, 1e-5), (1e4, torch.float32, 1e-3), (1e9, torch.float64, 1e-6)])
def test_a_large_mean_does_not_cancel_the_variance(mean, dtype, rtol):
    """E[x^2] - E[x]^2 would lose every digit of a variance of 1 here (at 1e4 in float32, at 1e9 in float64)."""
    x = (mean + torch.randn(60, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).to(dtype)
    moments = RunningMoments(4)
    for part in x.split([1, 20, 3, 36]):
        moments.add(part)
    wide = x.double().numpy()
    np.testing.assert_allclose(moments.variance.numpy(), wide.var(0, ddof=1), rtol=rtol)
    np.testing.assert_allclose(moments.mean.numpy(), wide.mean(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(moments.squares.numpy(), (wide ** 2).sum(0), rtol=1e-6)


def test_a_drifting_mean_counts_as_variance():
    """Three batches without any spread inside, at 0, 10 and 20: all the variance lies between them."""
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
    np.testing.assert_allclose(moments.variance.numpy(), x.double().numpy().var(0, ddof=1), rtol=1e-5)


# ---- what scoring must not do ----------------------------------------------------------------

@pytest.mark.parametrize("method", ("variance", "wanda", "magnitude", "random"))
def test_no_logits_are_computed(chat, batches, method):
    calls = []
    chat.model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    importance(chat.model, batches, method)
    assert calls == []


def hooks_of(model) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("broken", (False, True), ids=("whole", "interrupted"))
def test_the_model_is_left_as_it_was(chat, batches, method, broken):
    """Weights bit for bit, requires_grad, no hooks, no gradients; also when a batch fails half-way."""
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
        assert torch.equal(parameter, weight) and parameter.requires_grad == flag and parameter.grad is None, name


# ---- errors ----------------------------------------------------------------------------------

def test_an_unknown_method_is_refused_with_the_known_ones(chat, batches):
    with pytest.raises(SsahError, match="unknown method 'fisher'; known: variance, wanda, magnitude, gradient, random"):
        importance(chat.model, batches, "fisher")


@pytest.mark.parametrize("method", DATA_METHODS)
def test_no_batches_are_refused(chat, method):
    with pytest.raises(SsahError, match="the prompt set is empty"):
        importance(chat.model, [], method)


@pytest.mark.parametrize("method", DATA_METHODS)
def test_a_mask_that_selects_nothing_is_refused(chat, batches, method):
    with pytest.raises(SsahError, match="the score mask selects nothing"):
        importance(chat.model, [{**b, "score_mask": torch.zeros_like(b["score_mask"])} for b in batches], method)


def test_one_position_has_no_variance(chat):
    with pytest.raises(SsahError, match="fewer than two positions"):
        importance(chat.model, [pad([[5]], 3)])


# ---- single weights --------------------------------------------------------------------------

def test_snip_scores_equal_brute_force(model, batches):
    """Mean over examples of |W_ij dL/dW_ij|, each example by itself, for every linear map of a block."""
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
    summed = torch.cat([weights[f"model.layers.{i}.{name}.weight"].sum(0) for i in range(2) for name in ("self_attn.o_proj", "mlp.down_proj")])
    assert (units <= summed.double() * (1 + 1e-4)).all() and (units < summed).any()


def test_snip_without_a_scored_position(chat, batches):
    nothing = [{**batch, "score_mask": torch.zeros_like(batch["attention_mask"])} for batch in batches]
    with pytest.raises(SsahError, match="no position is scored"):
        weight_importance(chat.model, nothing)

"""The bench: what its peers compute, what is timed, and what it writes. No time is asserted."""

import numpy as np
import pytest
import torch
from conftest import FAMILIES, random_model, unit_elements

from ssah.bench import growth, peers, run, table, timing, training
from ssah.errors import SsahError
from ssah.units import UnitIndex

TINY_SIZES = {"tokens": [64, 128], "blocks": [1, 2], "width": [64, 128]}


def test_wanda_is_the_mean_squared_norm_of_all_texts():
    first, second = torch.randn(2, 3, 5), torch.randn(4, 3, 5)
    norm = peers.WandaNorm()
    norm(None, (first,), None)
    norm(None, (second,), None)
    by_hand = torch.cat([first, second]).square().sum(dim=(0, 1)) / 6
    torch.testing.assert_close(norm.squares, by_hand)


def test_flap_leaves_the_first_batch_out_and_counts_texts():
    first, second = torch.randn(2, 3, 5), torch.randn(4, 3, 5)
    fluctuation = peers.FlapFluctuation()
    fluctuation(None, (first,), None)
    assert fluctuation.fluctuation == 0.0
    fluctuation(None, (second,), None)
    mean = torch.cat([first, second]).mean(dim=(0, 1))
    by_hand = (second - mean).square().sum(dim=(0, 1)) / 5
    torch.testing.assert_close(fluctuation.fluctuation, by_hand)


def test_hooks_see_every_module_and_go():
    model = random_model(FAMILIES["Llama GQA"]())
    with peers.hooked(model, peers.WandaNorm) as hooks:
        model(torch.tensor([[5, 9, 30]]))
    assert [hook.texts for hook in hooks] == [1] * 4
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("family", ("Llama GQA", "Phi-3"))
def test_masked_gradients_are_those_of_what_moves(family):
    model = random_model(FAMILIES[family]())
    index = UnitIndex.of(model)
    moved = np.random.default_rng(0).random(len(index)) < 0.5
    moved[:index.n_attn + index.n_mlp] = True           # whole matrices too
    mask_gradients = peers.gradient_mask(model, index, moved)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    mask_gradients()
    expected = unit_elements(model, moved, rest=False)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad.bool(), expected[name]), name


def test_calls_are_timed_in_turn(monkeypatch):
    """By a clock that says how many calls there were."""
    called = []
    monkeypatch.setattr(timing, "now", lambda: float(len(called)))
    calls = {name: lambda name=name: called.extend(name * 2) for name in "ab"}
    assert timing.in_turn(calls, 2) == {"a": [2.0, 2.0], "b": [2.0, 2.0]}
    assert "".join(called) == "aabb" * 3            # the first round is not timed
    called.clear()
    timing.in_turn(calls, 1, warm=True)
    assert "".join(called) == "aabb"


def test_a_ratio_is_the_median_of_ratios():
    assert timing.ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0


def test_the_slope_is_the_power():
    values = [1, 2, 4, 8]
    assert growth.slope(values, [3 * value**2 for value in values]) == pytest.approx(2)


def test_what_was_measured_is_read_as_it_was_saved(tmp_path):
    machine = {name: name for name in ("processor", "platform", "threads", "torch", "clock")}
    rows = [table.Row("ours", "2 s", "theirs 1 s", "2.00 x its time", "<= 1")]
    grown = [table.Growth("tokens", [1, 2], [1.0, 2.0], 1.0)]
    measured = table.Measured("ssah bench", "today", "abc", machine, "a model", rows, grown)
    measured.save(tmp_path / "bench.json")
    assert table.load(tmp_path / "bench.json") == measured
    text = table.markdown(measured)
    assert "| ours | 2 s | theirs 1 s | 2.00 x its time | <= 1 |" in text
    assert "tokens (1 to 2): 1.00" in text and "commit abc" in text
    with pytest.raises(SsahError, match="run `ssah bench --save`"):
        table.load(tmp_path / "none.json")
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(SsahError, match="run `ssah bench --plan --save`"):
        table.load_plan(tmp_path / "plan.json")


def test_the_whole_bench_runs(monkeypatch, tmp_path, capsys):
    """On models of a few thousand weights: every way of ours and of the peers takes its steps."""
    monkeypatch.setattr(training, "small_stack", lambda: training.stack(32, 48, 4, 2, 2))
    monkeypatch.setattr(growth, "TRIED", TINY_SIZES)
    monkeypatch.setattr(table, "SAVED", tmp_path / "bench.json")
    assert run.main("smoke", repeats=1, figure=tmp_path / "growth.png") == 0
    printed = capsys.readouterr().out
    for name in ("FLAP", "wanda", "LoRA", "Trainer", "asks again", "of the peak"):
        assert name in printed
    assert (tmp_path / "growth.png").stat().st_size > 1000
    assert not (tmp_path / "bench.json").exists()       # unless it is asked for

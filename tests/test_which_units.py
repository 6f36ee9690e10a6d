"""Adapters and single weights beside frozen units: the same start, the same target, as many weights."""

import pytest

from ssah.errors import SsahError
from ssah.claims.which_units.run import ADAPTERS, REGIONS


@pytest.fixture(scope="module")
def lab(smoke_lab):
    runs(smoke_lab)
    return smoke_lab


def runs(lab):
    return {**{m: lab.get("adapter_tuning", seed=0, method=m) for m in ADAPTERS}, **{r: lab.get("weight_tuning", seed=0, region=r) for r in REGIONS}}


def test_all_start_from_the_aligned_model(lab):
    full = lab.get("tuning", seed=0, condition="full").tables["checkpoints"].iloc[0]
    for name, result in runs(lab).items():
        start = result.tables["checkpoints"].iloc[0]
        assert start["probe_loss"] == pytest.approx(full["probe_loss"], rel=1e-5), name
        assert start["log_odds"] == pytest.approx(full["log_odds"], rel=1e-4), name
        assert result.tables["checkpoints"]["probe_loss"].iloc[-1] < start["probe_loss"], name


def test_all_are_compared_at_the_full_runs_loss(lab):
    target = lab.get("tuning", seed=0, condition="full").values["probe_loss"]
    for name, result in runs(lab).items():
        below = result.tables["checkpoints"].query("probe_loss <= @target")
        assert result.values["reached"] == bool(len(below)), name
        if len(below):
            assert result.values["equal loss: epoch"] == below["epoch"].iloc[0], name


def test_adapters_are_measured_at_equal_epochs_too(lab):
    for method in ADAPTERS:
        result = lab.get("adapter_tuning", seed=0, method=method)
        assert "equal epochs" in set(result.tables["answers"]["at"])
        assert result.values["equal epochs: epoch"] == lab.profile.freezing.epochs
        assert result.values["moved_bytes"] < lab.get("tuning", seed=0, condition="full").values["moved_bytes"] / 5


def test_as_many_weights_as_the_units_have(lab):
    full, units = (lab.get("tuning", seed=0, condition=c).values["moved_bytes"] for c in ("full", "SCU + all CU"))
    n = (full - units) / 4          # float32; shared v rows that stay because one of their columns does are counted
    for region in REGIONS:
        values = lab.get("weight_tuning", seed=0, region=region).values
        assert values["weights"] == pytest.approx(n, abs=14)        # rounded in each of 14 matrices
    answers = [r.tables["answers"]["log_odds"].to_numpy() for r in (lab.get("weight_tuning", seed=0, region=x) for x in REGIONS)]
    assert answers[0].tolist() != answers[1].tolist()


@pytest.mark.parametrize("step, params, message", [
    ("adapter_tuning", {"method": "prefix"}, "unknown method 'prefix'; known: LoRA, LLaMA-Adapter"),
    ("weight_tuning", {"region": "top"}, "unknown region 'top'; known: SNIP difference, random weights"),
])
def test_what_is_unknown_is_refused(lab, step, params, message):
    with pytest.raises(SsahError, match=message):
        lab.get(step, seed=0, **params)

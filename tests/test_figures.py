"""Figures are deterministic and carry their origin; importing them needs no torch."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest

import ssah
from ssah.claims.shared import pictures, style

matplotlib.use("Agg")


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw the same figure twice into two folders."""
    figures.use_style()
    folders = []
    for name in ("first", "second"):
        monkeypatch.setenv("SSAH_FIGURES", str(tmp_path / name))
        table = pd.DataFrame({"refuse": [0.9, 0.1], "evasive": [0.1, 0.2], "incoherent": [0.0, 0.3], "comply": [0.0, 0.4]}, index=["none", "SCU"])
        figures.save(figures.four_labels(table), "figure", "toy: two conditions")
        matplotlib.pyplot.close("all")
        folders.append(tmp_path / name)
    return folders


@pytest.mark.parametrize("chosen, elsewhere", [({}, False), ({"n_seeds": 1}, True), ({"recompute": True}, True), ({"profile": "smoke"}, True)])
def test_the_committed_figures_are_those_of_the_committed_results(monkeypatch, chosen, elsewhere):
    """In a notebook with other parameters figures go to build/, also without the runner."""
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name != "SSAH_FIGURES"})
    ssah.open_lab(**chosen)
    assert ("SSAH_FIGURES" in os.environ) == elsewhere and "build" in os.environ.get("SSAH_FIGURES", "build")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_same_table_same_bytes(drawn, suffix):
    first, second = ((folder / f"figure.{suffix}").read_bytes() for folder in drawn)
    assert first == second


def test_svg_has_no_date(drawn):
    assert "<dc:date>" not in (drawn[0] / "figure.svg").read_text()


def test_every_condition_has_a_style_and_random_ones_are_hollow():
    from ssah.claims import CONDITIONS

    for condition in CONDITIONS:
        style = figures.style.style_of(condition)
        assert (style["markerfacecolor"] == "white") == condition.startswith("random ")


def test_colours_differ_in_greyscale():
    """The four answer labels, which touch each other in the stacked bars, differ by lightness or by hatch."""
    def lightness(colour: str) -> float:
        return float(np.dot(matplotlib.colors.to_rgb(colour), (0.299, 0.587, 0.114)))

    styles = [figures.style.LABEL_STYLES[name] for name in ("refuse", "evasive", "incoherent", "comply")]
    for (one, hatch), (other, other_hatch) in zip(styles, styles[1:]):
        assert abs(lightness(one) - lightness(other)) > 0.15 or hatch != other_hatch


def test_package_and_tables_import_without_torch():
    code = "import sys, ssah, ssah.tables, ssah.figures, ssah.claims, ssah.readme, ssah.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)

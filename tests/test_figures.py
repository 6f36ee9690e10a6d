"""Figures are deterministic and carry their origin; importing what reads results needs no torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.image
import nbformat
import numpy as np
import pandas as pd
import pytest

import ssah
from ssah.claims import CLAIMS, questions, readme
from ssah.claims.four_kinds.conditions import CONDITIONS
from ssah.claims.shared import pictures, style
from ssah.errors import SsahError
from ssah.inputs.archives import REPOSITORY
from ssah.inputs.words import data_file

pytestmark = pytest.mark.slow

matplotlib.use("Agg")


@pytest.fixture
def drawn(tmp_path, monkeypatch) -> list[Path]:
    """Draw the same figure twice into two folders."""
    style.use_style()
    labels = pd.DataFrame({"refuse": [0.9, 0.1], "evasive": [0.1, 0.2], "incoherent": [0.0, 0.3],
                           "comply": [0.0, 0.4]}, index=["none", "SCU"])
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        monkeypatch.setenv("SSAH_FIGURES", str(folder))
        style.save(pictures.four_labels(labels), "02_four_labels", "toy: two conditions")
        matplotlib.pyplot.close("all")
    return folders


@pytest.mark.parametrize("chosen, elsewhere", [
    ({}, False),
    ({"n_seeds": 1}, True),
    ({"recompute": True}, True),
    ({"profile": "smoke"}, True)])
def test_the_committed_figures_are_those_of_the_committed_results(monkeypatch, chosen, elsewhere):
    """In a notebook with other parameters figures go to build/, also without the runner."""
    without = {name: value for name, value in os.environ.items() if name != "SSAH_FIGURES"}
    monkeypatch.setattr(os, "environ", without)
    ssah.open_lab(**chosen)
    assert ("SSAH_FIGURES" in os.environ) == elsewhere
    assert "build" in os.environ.get("SSAH_FIGURES", "build")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_same_table_same_bytes(drawn, suffix):
    first, second = ((folder / f"02_four_labels.{suffix}").read_bytes() for folder in drawn)
    assert first == second


def test_svg_has_no_date(drawn):
    assert "<dc:date>" not in (drawn[0] / "02_four_labels.svg").read_text()


def test_hashed_names_in_an_svg_are_numbers_in_order_of_appearance():
    """Two layouts that differ in the last bit have other hashes, and the same file."""
    svg = ('<path id="m{0}"/><use xlink:href="#m{0}"/><g clip-path="url(#p{1})"/>'
           '<g id="DejaVuSans-41"/><clipPath id="p{1}"/><path id="C0_1_{2}"/>')
    first = style.with_numbered_ids(svg.format("0123456789", "abcdefabcd", "0000000000"))
    second = style.with_numbered_ids(svg.format("9876543210", "abcdefabcd", "1111111111"))
    assert first == second
    assert first == ('<path id="m1"/><use xlink:href="#m1"/><g clip-path="url(#p2)"/>'
                     '<g id="DejaVuSans-41"/><clipPath id="p2"/><path id="C0_1_3"/>')


def test_a_saved_svg_has_no_hashed_name_and_every_reference_has_its_target(drawn):
    svg = (drawn[0] / "02_four_labels.svg").read_text()
    assert not re.search(style.HASHED_ID, svg)
    targets = re.findall(r'url\(#(.+?)\)|href="#(.+?)"', svg)
    assert targets
    for by_url, by_reference in targets:
        assert svg.count(f'id="{by_url or by_reference}"') == 1


def test_a_notebook_shows_the_png_that_was_saved(tmp_path, monkeypatch):
    """In the size of the screen, and the figure is not left open to be drawn once more."""
    monkeypatch.setenv("SSAH_FIGURES", str(tmp_path))
    shown = []
    monkeypatch.setattr(style, "get_ipython", lambda: "a notebook")
    monkeypatch.setattr(style, "display", shown.append)
    style.use_style()
    style.save(matplotlib.pyplot.figure(figsize=(4, 2)), "02_map", "toy")
    png = tmp_path / "02_map.png"
    (image,) = shown
    assert image.data == png.read_bytes()
    on_screen = matplotlib.pyplot.imread(png).shape[1] * 100 / 160
    assert image.width == round(on_screen)
    assert not matplotlib.pyplot.get_fignums()


def test_figures_carry_their_origin(tmp_path, monkeypatch):
    """The label of origin is one of the figure's texts, and says how many seeds there are."""
    monkeypatch.setenv("SSAH_FIGURES", str(tmp_path))
    lab = ssah.open_lab("smoke", n_seeds=2)
    origin = style.recomputed(lab, "n = 4")
    assert origin.startswith("recomputed here: a random two-block Llama")
    assert origin.endswith("; n = 4; 2 seeds")
    assert style.recomputed(lab, "n = 4", seeds=1).endswith("; n = 4; 1 seed")
    figure = matplotlib.pyplot.figure()
    style.save(figure, "00_toy_units", origin)
    assert [text.get_text() for text in figure.texts] == [origin]


# ---- for all who look at them ----------------------------------------------------------------

def saved_in_notebooks() -> set[str]:
    """The names of all figures that notebooks save."""
    names = set()
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            names |= set(re.findall(r'style\.save\(figure, "(\w+)"', cell.source))
    return names


def test_every_figure_is_described_listed_and_committed():
    """One set of names: in notebooks, with an alternative text, in a claim, as PNG and as SVG."""
    names = saved_in_notebooks()
    assert len(names) > 30
    described = data_file("figures").set_index("figure")["alt"]
    assert set(described.index) == names
    assert described.str.len().between(60, 400).all() and described.is_unique
    listed = {figure for claim in CLAIMS for figure in claim.figures}
    assert listed | {"00_toy_units", *questions.FIGURES} == names
    for suffix in ("png", "svg"):
        committed = {path.stem for path in (REPOSITORY / "figures").glob(f"*.{suffix}")}
        assert committed == names


def test_readme_and_its_pages_describe_their_pictures_as_the_notebooks_do():
    text = "".join(page.read_text("utf-8") for page in readme.PAGES)
    pictures_there = re.findall(r"!\[(.*?)\]\((?:\.\./)?figures/(\w+)\.png\)", text)
    assert len(pictures_there) > 5
    for text, name in pictures_there:
        assert text == style.alternative_text(name)


def test_a_figure_without_a_description_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("SSAH_FIGURES", str(tmp_path))
    with pytest.raises(SsahError, match="ssah/inputs/data/figures.csv"):
        style.save(matplotlib.pyplot.figure(), "99_new", "toy")
    assert not list(tmp_path.iterdir())


def test_letters_are_large_enough_where_a_page_shows_the_figure():
    """No figure is wider than a page (and a margin for its label), no text below the smallest."""
    for path in (REPOSITORY / "figures").glob("*.png"):
        _, width, _ = matplotlib.image.imread(path).shape
        assert width / 160 < 1.06 * style.WIDTH, path.stem
    sizes = []
    for path in (REPOSITORY / "ssah" / "claims").rglob("*.py"):
        found = re.findall(r'(?:fontsize=|size": )([\d.]+)', path.read_text("utf-8"))
        sizes += [float(size) for size in found]
    assert len(sizes) > 10 and min(sizes) >= style.SMALLEST


def test_names_of_lines_stand_at_their_ends_and_apart():
    style.use_style()
    figure, axis = matplotlib.pyplot.subplots(figsize=(6, 3))
    axis.set_ylim(0, 10)
    style.name_lines(axis, {"high": (8, "#000000"), "low": (2, "#000000"), "near": (2.1, "#000000")})
    heights = {text.get_text(): text.xy[1] for text in axis.texts}
    assert heights["high"] == pytest.approx(0.8)
    assert heights["low"] == pytest.approx(0.2)
    _, inches = axis.get_position().size * figure.get_size_inches()
    assert heights["near"] - heights["low"] == pytest.approx(style.LINE_HEIGHT / inches)
    matplotlib.pyplot.close(figure)


# ---- conditions ------------------------------------------------------------------------------

def test_every_condition_has_a_style_and_random_ones_are_hollow():
    for condition in CONDITIONS:
        hollow = style.style_of(condition.name)["markerfacecolor"] == "white"
        assert hollow == condition.random


def test_rows_that_missed_the_loss_are_marked():
    table = pd.DataFrame({"reached": [np.nan, 1.0, 2 / 3]}, index=["start", "full", "SCU"])
    names = {"start": "before", "full": "everything", "SCU": "the SCU"}
    starred, star = style.marked(table, names)
    assert starred == {"start": "before", "full": "everything", "SCU": "the SCU *"}
    assert star == " (* loss missed in one seed or more)"
    assert style.marked(table.iloc[:2], names)[1] == ""


def test_panels_show_what_the_table_has():
    """A column that is missing has no panel; rates go from 0 to 100; every seed has its tick."""
    table = pd.DataFrame({"ASR": [0.5, 0.25], "ASR low": [0.25, 0.0], "ASR high": [0.75, 0.5],
                          "gold": [-1.0, -2.0]}, index=["none", "SCU"])
    seeds = pd.DataFrame({"condition": ["none", "none", "SCU", "SCU"],
                          "rate": [0.4, 0.6, 0.2, 0.3], "gold": [-1.0, -1.0, -2.0, -2.0]})
    columns = (("ASR", "rate", "ASR (%)", True), ("other ASR", "rate", "other ASR (%)", True),
               ("gold", "gold", "gold (nats)", False))
    figure, axes = style.interval_panels(table, seeds, columns, "removed", (6, 2))
    assert [axis.get_xlabel() for axis in figure.axes] == ["ASR (%)", "gold (nats)"]
    assert axes[0].get_xlim() == style.PERCENT
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["nothing", "SCU"]
    drawn = [line.get_xdata() for line in axes[0].get_lines()[:3]]
    assert [list(np.round(values, 6)) for values in drawn] == [[25, 75], [40, 60], [50]]
    matplotlib.pyplot.close(figure)


def test_colours_differ_in_greyscale():
    """Answer labels that touch each other in the stacked bars differ by lightness or by hatch."""
    def lightness(colour: str) -> float:
        return float(np.dot(matplotlib.colors.to_rgb(colour), (0.299, 0.587, 0.114)))

    styles = [style.LABEL_STYLES[name] for name in ("refuse", "evasive", "incoherent", "comply")]
    for (one, hatch), (other, other_hatch) in zip(styles, styles[1:]):
        assert abs(lightness(one) - lightness(other)) > 0.15 or hatch != other_hatch


def test_what_draws_stored_results_imports_no_torch():
    """Without figures: `test_what_importing_leaves_unloaded` of the house."""
    code = ("import sys, ssah.claims.shared.pictures, ssah.claims.redundant_units.draw; "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)

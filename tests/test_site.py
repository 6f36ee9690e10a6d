"""Front page, notebook pages, static site and explorer, on notebooks made by hand."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import chromium
import nbformat
import numpy as np
import pytest
import yaml
from hand_made_runs import HandMadeRuns
from nbformat import v4

from ssah import SsahError, UnitIndex, classify, cli
from ssah.claims import CLAIMS, answers, open_lab, rules, scoreboard
from ssah.classification import LABELS, iou
from ssah.inputs.archives import REPOSITORY
from ssah.lab import pages
from ssah.lab.notebooks import RECORD
from ssah.lab.words import NOTE
from ssah.site import explorer, front, kinds, static, toy, training, what_if

#: Elements without an end.
VOID = {"meta", "img", "input", "br", "hr", "link"}

PIXEL = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5C"
         "YII=")

#: What notebook 09 leaves, with a word that has a reason, and signs that HTML must escape.
WORDS = {"models": [
    {"label": "planted", "control": True, "cells": [
        {"row": "C2-SCU", "first": "reproduced", "second": "specific", "depends": False,
         "numbers": [], "sentence": "It is known."}]},
    {"label": "model <A>", "control": False, "measured": ["*Text.* 5 % and <6 %>"],
     "caveats": ["C2-SCU; labels: overlap"], "cells": [
        {"row": "C2-SCU", "first": "reproduced", "second": "specific", "depends": True,
         "numbers": ["48 % [40, 56]"], "sentence": "Removing the units takes <refusals> away."},
        {"row": "C4", "first": "cannot tell: guardrail", "second": "not asked", "depends": False,
         "numbers": [], "sentence": "Freezing: one cannot tell."}]},
    {"label": "model B", "control": False, "cells": []}],
    "marks": "Brackets.",
    "claims": [{"statement": "Removing the units takes <refusals> away", "said": [
        {"words": "reproduced, for a gate (*sight*)", "models": [["model <A>", " (48% <of> it)"], ["C", " †"]]}]}]}
CONDITIONS = {"claims": {claim.id: {"conditions": "not met", "ours": f"number of {claim.id}"}
                         for claim in CLAIMS}}

COLUMNS = "".join(f"<td>a_long_column_name_{number}</td>" for number in range(40))
WIDE = f"<table><tr>{COLUMNS}</tr></table>"


def code_cell(source: str, **data):
    """A code cell that was run, with one output of some mimetypes."""
    metadata = {"image/png": {"alt": "one pixel"}}
    output = v4.new_output("display_data", data, metadata=metadata)
    return v4.new_code_cell(source, outputs=[output])


def notebook_one():
    """Headings, a link to the other page, an equation, wide things, a picture."""
    text = ("# 01 · One (claim C1)\n\n[the other](09_board.ipynb) [figure](../figures/01_a.png)\n\n"
            "## A & B\n\n$$x = " + " + ".join(["x_1^2"] * 60) + "$$\n\n## Then\n\nwords")
    return v4.new_notebook(cells=[
        v4.new_markdown_cell(text),
        code_cell("x = '" + "long " * 60 + "'", **{"text/html": WIDE}),
        code_cell("draw()", **{"image/png": PIXEL}),
        code_cell("verdict", **{"text/plain": "C1", NOTE: {"claim": "C1", "verdict": "partly"}})])


def notebook_zero():
    return v4.new_notebook(cells=[v4.new_markdown_cell("# Start here")])


def notebook_nine():
    return v4.new_notebook(cells=[
        v4.new_markdown_cell("# 09 · Board"),
        code_cell("board", **{"text/plain": "words", answers.ANSWERS: WORDS,
                              scoreboard.LEDGER: CONDITIONS})])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folders ``build``, ``notebooks`` and ``figures`` as after ``ssah run``."""
    root = tmp_path_factory.mktemp("built")
    record = {}
    for folder in ("build/notebooks", "notebooks", "figures"):
        (root / folder).mkdir(parents=True)
    for name, notebook in (("00_start", notebook_zero()), ("01_one", notebook_one()),
                           ("09_board", notebook_nine())):
        nbformat.write(notebook, root / "build/notebooks" / f"{name[:2]}.ipynb")
        nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")
        title = notebook.cells[0].source[2:].partition("\n")[0]
        record[name[:2]] = {"path": f"{name}.ipynb", "title": title, "verdicts": [],
                            "seconds": 1.0, "error": ""}
    (root / "build" / RECORD).write_text(json.dumps(record))
    for name in ("01_a", "01_distance_by_token"):
        (root / "figures" / f"{name}.png").write_bytes(b"")
    return root


def write_site(built, folder: Path) -> Path:
    static.write(folder, built / "build", built / "notebooks", built / "figures")
    return folder


@pytest.fixture(scope="module")
def site(built, tmp_path_factory):
    """The static site of them; the explorer without results."""
    empty = {"chips": front.KINDS, "ledger": {}, "kinds": {}, "toy": toy.toys(), "training": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explorer, "content", lambda: empty)
        return write_site(built, tmp_path_factory.mktemp("site"))


class Reader(HTMLParser):
    """Elements with their attributes; an error where they do not close in order."""

    def __init__(self, page: str):
        super().__init__()
        self.open = []
        self.elements = []
        self.feed(page)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"

    def values(self, tag: str, attribute: str) -> list:
        return [found.get(attribute) for name, found in self.elements if name == tag]


def all_pages(folder: Path) -> dict[Path, Reader]:
    return {path: Reader(path.read_text("utf-8")) for path in sorted(folder.rglob("*.html"))}


# ---- pages -----------------------------------------------------------------------------------

def test_pages_are_well_formed_and_every_picture_is_described(site):
    found = all_pages(site)
    assert [path.relative_to(site).as_posix() for path in found] == [
        "explorer.html", "html/00.html", "html/01.html", "html/09.html", "index.html"]
    for path, page in found.items():
        assert all(page.values("img", "alt")), path
    assert found[site / "index.html"].values("img", "src") and (site / ".nojekyll").exists()


def test_the_parser_sees_what_is_not_well_formed():
    for page in ("<p><b>x</p></b>", "<div>"):
        with pytest.raises(AssertionError, match="close"):
            Reader(page)


def test_links_are_relative_and_lead_somewhere(site):
    """Also to the section that they name; the paper's page is the one outside."""
    found = all_pages(site)
    for path, page in found.items():
        targets = page.values("a", "href") + page.values("img", "src")
        for target in targets:
            if target.startswith(("data:image/png;base64,", "https://arxiv.org/")):
                continue
            file, _, section = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.exists() and there.is_relative_to(site), f"{path.name}: {target}"
            if section:
                assert section in [attributes.get("id") for _, attributes in found[there].elements]


def test_nothing_is_loaded_from_elsewhere(site):
    for path, page in all_pages(site).items():
        assert not any(page.values("script", "src")), path
        assert not page.values("link", "href") and not page.values("iframe", "src")
        assert not re.search(r"@import|url\(|fetch\(|import\(", path.read_text("utf-8"))


def test_a_notebook_page_has_contents_neighbours_and_folded_code(site):
    page = (site / "html/01.html").read_text("utf-8")
    assert page.count("<details class=\"code\">") == 3 and page.count('id="all-code"') == 1
    contents = page[page.index("On this page"):page.index("</nav>")]
    assert re.findall(r">([^<]+)</a>", contents) == ["A &amp; B", "Then"]
    assert page.count('rel="next" href="09.html">09 · Board') == 2
    assert page.count('rel="prev" href="00.html">← Start here') == 2
    assert page.count('<div class="scroll"') == page.count("<table") == 1


def test_solutions_are_folded_with_what_they_give_and_cards_are_prose():
    """Of three cells with an output, the one with the tag is inside a fold of its own."""
    card = ('<div class="card">\n\n**You need** [the other](09_board.ipynb#Then).\n\n'
            "1. one\n2. two\n\n</div>")
    solution = code_cell("found", **{"text/plain": "the expected number"})
    solution.metadata = {"tags": ["solution"], "jupyter": {"source_hidden": True}}
    cells = [v4.new_markdown_cell(card), code_cell("x", **{"text/plain": "first"}), solution,
             code_cell("y", **{"text/plain": "last"})]
    body = pages.notebook_page(v4.new_notebook(cells=cells), "a title", "../figures")
    Reader(body)
    (folded,) = re.findall(r'<details class="solution">.*?</details>.*?</details>', body, re.DOTALL)
    assert "the expected number" in folded and "found" in folded
    assert "first" not in folded and "last" not in folded
    (shown,) = re.findall(r'<div class="card">.*?</div>', body, re.DOTALL)
    assert '<strong>You need</strong> <a href="09.html#Then">' in shown and "<li>two</li>" in shown


def test_the_front_page_says_the_sentences_and_shows_the_words(site):
    page = (site / "index.html").read_text("utf-8")
    assert "<b>Removing the units takes &lt;refusals&gt; away.</b>" in page
    assert "<em>model &lt;A&gt;</em> (48% &lt;of&gt; it), <em>C</em> †: reproduced, for a gate (sight)." in page
    assert "<li>Text. 5 % and &lt;6 %&gt;</li>" in page
    assert "<summary>Caveats on model &lt;A&gt;</summary>" in page and "<li>C2-SCU; labels: overlap" in page
    for kind, word in (("for", "specific"), ("open", "cannot tell: guardrail"),
                       ("open", "depends on the judge"), ("for", "reproduced")):
        assert f'<span class="chip {kind}">{word}</span>' in page
    assert page.count("not run yet") == 2 * len(rules.ROWS) - 3
    assert page.count("Not run yet: model B.") == 1
    assert page.index("<em>model &lt;A&gt;</em>") < page.index("planted: a control</h3>")
    assert "number of C1" in page and 'src="figures/01_distance_by_token.png"' in page
    assert "02_table_1.png" not in page         # its notebook was not run


def test_without_the_board_the_front_page_says_how_to_get_it(tmp_path):
    page = front.page([], tmp_path, tmp_path, profile="smoke")
    assert "ssah run 09" in page and "<code>smoke</code>" in page
    assert "html/" not in page and "What came out" not in page


def test_the_site_asks_for_what_was_not_run(built, tmp_path):
    with pytest.raises(SsahError, match="lacks 00, 01, 09: run `ssah run 00 01 09`"):
        static.write(tmp_path / "site", tmp_path, built / "notebooks", built / "figures")
    assert not (tmp_path / "site").exists()


# ---- colours ---------------------------------------------------------------------------------

def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2)."""
    parts = []
    for place in (1, 3, 5):
        value = int(colour[place:place + 2], 16) / 255
        parts.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    red, green, blue = parts
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_words_can_be_read_on_their_colours():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)
    css = pages.STYLE_SHEET.read_text("utf-8")
    chips = re.findall(r"\.chip\.(\w+) \{ color: (#\w{6}); background: (#\w{6})", css)
    assert {name for name, _, _ in chips} == {*front.KINDS.values(), "open"}
    for name, text, background in chips:
        assert contrast(text, background) >= 4.5, name
    for name in ("ink", "quiet", "link"):
        (colour,) = re.findall(rf"--{name}: (#\w{{6}})", css)
        assert contrast(colour, "#ffffff") >= 4.5, name
    for colour in re.findall(r"\.(?:highlight|failed|ansi)[^{]*\{ color: (#\w{6})", css):
        assert contrast(colour, "#f6f8fa") >= 4.5, colour


def test_every_word_of_the_rules_that_says_something_has_a_colour():
    silent = {rules.CANNOT_TELL, rules.NOT_ASKED}
    assert {*rules.FIRST_WORDS, *rules.SECOND_WORDS} - silent <= set(front.KINDS)
    assert silent.isdisjoint(front.KINDS)


# ---- the explorer ----------------------------------------------------------------------------

def estimate(mean: float, half: float) -> rules.Estimate:
    return rules.Estimate(mean, mean - half, mean + half, mean - 0.8 * half, mean + 0.8 * half)


def verdict_on(row: rules.Row, by_second_judge=None) -> rules.Verdict:
    gates = [rules.Gate(name, True, True, "") for name in row.blocked_by]
    measured = rules.Measured(estimate(0.02, 0.03), estimate(0.3, 0.1))
    return rules.verdict_of(row, measured, gates=gates, by_second_judge=by_second_judge)


def test_other_rules_give_the_words_that_they_would_have_given():
    """The grid against the rules, asked with a row and numbers written out."""
    row = rules.ROWS["C2-SCU"]
    large = rules.Measured(estimate(0.5, 0.1), estimate(0.02, 0.03))
    verdict = verdict_on(row, large)
    grid = what_if.cell(verdict)
    # the 90 % interval ends at 0.044: within δ from 0.05 on
    assert [part["words"][0] for part in grid[0]] == ["cannot tell"] * 2 + ["not found"] * 5
    assert all(part["words"][0] == "reproduced" for part in grid[what_if.JUDGES.index("strict")])
    assert grid[what_if.JUDGES.index("keyword")] == grid[0]
    seconds = [part["words"][1] for part in grid[what_if.JUDGES.index("strict")]]
    assert seconds == ["cannot tell"] * 2 + ["any units do"] * 5
    fixed = grid[0][what_if.FACTORS.index(1)]["words"]
    assert fixed == [verdict.first.word, verdict.second.word]


@pytest.mark.parametrize("name", ["C1-aligned", "C2-UCU", "C2-RU", "C7"])
def test_rows_without_a_judge_or_comparison_can_be_asked_again(name):
    row = rules.ROWS[name]
    other = rules.Measured(estimate(0.0, 0.01), estimate(0.0, 0.01)) if row.judges else None
    verdict = verdict_on(row, other)
    assert what_if.judged(verdict, what_if.AS_FIXED) == verdict
    assert what_if.with_delta(row, 2).second.delta == 2 * row.second.delta


def test_the_page_has_the_grid_of_every_model(monkeypatch):
    verdict = verdict_on(rules.ROWS["C7"])
    lab = SimpleNamespace(profile=SimpleNamespace(title="made up"))
    monkeypatch.setattr(answers, "verdicts", lambda lab: {"C7": verdict})
    found = what_if.ledger({"made-up": lab})
    assert found["models"] == [{"label": "made up", "rows": {"C7": what_if.cell(verdict)}}]
    c7 = found["rows"][list(rules.ROWS).index("C7")]
    assert c7["deltas"][what_if.FACTORS.index(1)] == "0.30 nats"


def test_the_kinds_are_those_of_classify(monkeypatch):
    """A made-up model of two blocks; counts and overlaps, again, for one point of the grid."""
    index = UnitIndex(n_blocks=2, n_heads=2, n_kv_heads=1, head_dim=20, n_mlp=160, hidden=16)
    draw = np.random.default_rng(0)
    arrays = {"safety": draw.random(len(index)), "utility": draw.random(len(index))}
    shares = {"scu": 0.02, "ucu": 0.05, "ru": 0.1}
    results = {"attribution": SimpleNamespace(values={"index": index.to_dict()}, arrays=arrays),
               "shares": SimpleNamespace(values=shares)}
    profile = SimpleNamespace(seeds=(0,), model=SimpleNamespace(label="made up"),
                              classification=SimpleNamespace(scale="log-z"))
    lab = SimpleNamespace(profile=profile, get=lambda name, **params: results[name])
    found = kinds.choices(lab)

    usual = found["found"][kinds.SCALES.index("log-z")][0][found["shares"][0].index(0.02)]
    assert usual == found["table_1"] and all(usual[label]["iou"] == 1 for label in LABELS)
    raw = found["found"][kinds.SCALES.index("raw")][2][found["shares"][2].index(0.15)]
    expected = classify(*arrays.values(), index=index, scale="raw", scu=0.02, ucu=0.05, ru=0.15)
    table_1 = classify(*arrays.values(), index=index, scu=0.02, ucu=0.05, ru=0.1)
    for label in LABELS:
        mask = expected.mask(label)
        assert raw[label]["units"] == [mask[:200].sum(), mask[200:].sum()]
        assert raw[label]["iou"] == pytest.approx(iou(mask, table_1.mask(label)), abs=1e-3)


def test_the_toy_is_that_of_notebook_00():
    """The notebook's own cells, run here."""
    notebook = nbformat.read(REPOSITORY / "notebooks/00_start_here.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    names = {}
    exec("import numpy as np, pandas as pd, ssah", names)
    for beginning in ("def importance", "random = ", "units = ssah.classify"):
        (source,) = [cell for cell in cells if cell.startswith(beginning)]
        exec(source, names)
    found = toy.toys()
    first = found["found"][0][found["scales"].index("log-z")]
    assert found["planted"] == names["planted"].tolist()
    assert first["labels"][found["shares"].index(0.03)] == names["units"].labels.tolist()
    np.testing.assert_allclose(first["safety"], names["units"].safety, atol=0.0051)
    np.testing.assert_allclose(first["utility"], names["units"].utility, atol=0.0051)


def test_lines_along_the_training_are_those_of_the_runs():
    """On runs made by hand: L* a seed, checkpoints in order, None where no answers were taken."""
    found = training.choices(HandMadeRuns())
    assert found["targets"] == [1.0, 1.1, 1.2] and found["seeds"] == [0, 1, 2]
    titles = [line["title"] for line in found["lines"]]
    assert titles[0] == "nothing frozen" and len(titles) == len(set(titles)) == 9
    last_seed = found["lines"][titles.index("SCU + all CU")]["seeds"][2]
    assert [point["probe_loss"] for point in last_seed] == [2.0, 1.5, 1.15]
    # one epoch: all four refuse; two (equal loss): all four, too; nothing at epoch 0
    assert [point["keyword_asr"] for point in last_seed] == [None, 0.0, 0.0]
    json.dumps(found, allow_nan=False)


def test_json_in_a_script_cannot_close_it():
    text = explorer.in_script({"label": "</script><b>"})
    assert "<" not in text and json.loads(text) == {"label": "</script><b>"}


# ---- places where the pages are made and the notebooks opened ----------------------------------

def test_workflows_run_what_is_there():
    """Every make target and every command of theirs exists."""
    commands = []
    for path in (REPOSITORY / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values():
            commands += [step["run"] for step in job["steps"] if "run" in step]
    text = "\n".join(commands)
    targets = set(re.findall(r"^make (\w+)", text, re.M))
    assert targets == {"run", "test"}
    for target in targets:
        assert f"\n{target}: " in (REPOSITORY / "Makefile").read_text("utf-8")
    assert re.findall(r"bin/ssah (\w+)", text) == ["site"]
    assert callable(cli.parser().parse_args(["site", "folder"]).function)
    container = json.loads((REPOSITORY / ".devcontainer/devcontainer.json").read_text("utf-8"))
    assert container["postCreateCommand"].startswith("make ")


# ---- in a browser ----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if chromium.found() is None:
        pytest.skip("no Chromium here: install chromium (apt-get install chromium)")
    with chromium.browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def whole_site(built, tmp_path_factory):
    """The site with the real explorer, from the committed results."""
    return write_site(built, tmp_path_factory.mktemp("whole"))


@pytest.mark.extended
@pytest.mark.parametrize("width", [1280, 400])
def test_no_page_is_wider_than_the_screen(tab, whole_site, width):
    tab.resize(width)
    for path in sorted(whole_site.rglob("*.html")):
        tab.open(path)
        tab.run("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert tab.run("document.documentElement.scrollWidth") <= width, path.name


@pytest.mark.extended
def test_links_can_be_followed_and_code_unfolded(tab, whole_site):
    tab.resize(1280)
    tab.open(whole_site / "index.html")
    tab.follow("a[href='html/01.html']")
    assert tab.run("document.querySelectorAll('details.code[open]').length") == 0
    tab.run("document.getElementById('all-code').click()")
    assert tab.run("document.querySelectorAll('details.code[open]').length") == 3
    tab.follow("a[rel=next]")
    assert tab.run("document.title") == "09 · Board"
    tab.follow("a[href='../index.html']")
    assert tab.run("document.title") == front.TITLE


def move(tab, name: str, value: int) -> None:
    """Put a slider or a choice of the explorer where it says `value`."""
    tab.run(f"document.getElementById('{name}').value = {value};"
            f"document.getElementById('{name}').dispatchEvent(new Event('input'))")


#: Row -> its chips, as JSON.
WORDS_SHOWN = """JSON.stringify(Object.fromEntries([...document.querySelectorAll("#words tr")].map(
    row => [row.querySelector("b").textContent,
            [...row.querySelectorAll(".chip")].map(chip => chip.textContent)])))"""


@pytest.mark.extended
def test_moving_a_slider_changes_the_word(tab, whole_site):
    """The words shown are those that the rules give; the toy loses its units."""
    tab.open(whole_site / "explorer.html")
    found = what_if.ledger(answers.labs())
    (model,) = [place for place, model in enumerate(found["models"])
                if model["label"].startswith("organism")]
    move(tab, "model", model)
    seen = set()
    for place in range(len(found["factors"])):
        move(tab, "delta", place)
        shown = json.loads(tab.run(WORDS_SHOWN))
        for row, grid in found["models"][model]["rows"].items():
            assert shown[row] == grid[0][place]["words"]
            seen.add((row, *shown[row]))
    assert len(seen) > len(found["models"][model]["rows"])      # a word changed on the way
    assert "3 are found" in tab.run("document.getElementById('toy-words').textContent")
    move(tab, "swing", len(toy.SWINGS) - 1)
    assert "3 are found" not in tab.run("document.getElementById('toy-words').textContent")
    move(tab, "scale", kinds.SCALES.index("raw"))
    assert tab.run("document.querySelector('#kinds td:nth-child(4)').textContent") != "1.000"


@pytest.mark.extended
def test_one_line_at_a_time_by_choice_and_by_pointer(tab, whole_site):
    """What is said of a line is what the stored run has; resting on another shows that one."""
    tab.resize(1280)
    tab.open(whole_site / "explorer.html")
    found = training.choices(open_lab())
    place = [line["title"] for line in found["lines"]].index("SCU + all CU")
    move(tab, "line", place)
    said = "document.getElementById('training-words').textContent"
    there = next(point for point in found["lines"][place]["seeds"][0]
                 if point["probe_loss"] <= found["targets"][0])
    assert f"keyword ASR {round(100 * there['keyword_asr'])} %" in tab.run(said)
    drawn = "document.querySelectorAll('#training .chosen').length"
    assert tab.run(drawn) == 1
    tab.run("document.querySelector('#training [data-line=\"0\"]')"
            ".dispatchEvent(new PointerEvent('pointerenter'))")
    assert tab.run(said).startswith("nothing frozen") and tab.run(drawn) == 1
    circles = "document.querySelectorAll('#training circle').length"
    assert tab.run(circles) == len(found["lines"][0]["seeds"][0])
    move(tab, "measure", 1)
    taken = [point for point in found["lines"][0]["seeds"][0] if point["keyword_asr"] is not None]
    assert tab.run(circles) == len(taken)

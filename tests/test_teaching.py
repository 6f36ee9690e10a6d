"""What helps a reader: cards at the heads of notebooks, the glossary, exercises with solutions."""

import json
import re
from pathlib import Path

import nbformat
import pytest

import ssah
from ssah.claims import CLAIMS
from ssah.inputs.archives import REPOSITORY
from ssah.lab.steps import slug, with_upstream

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))
COURSE = sorted((REPOSITORY / "notebooks/course").glob("[0-9][0-9]_*.ipynb"))
SOURCES = {path: nbformat.read(path, as_version=4) for path in [*NOTEBOOKS, *COURSE]}

#: Exercises that have no number to expect: a model of the reader's own.
WITHOUT_SOLUTION = {("09_scoreboard", 3)}
#: What the glossary must explain.
WANTED = ("nats", "SFT", "residual stream", "KL", "perplexity", "o_proj, down_proj", "log-z",
          "Wilson interval", "Satterthwaite", "IoU", "SCU", "UCU", "CU", "RU", "ASR", "log-odds",
          "prefill", "GGUF", "headroom", "equal loss")


def named(path: Path) -> str:
    return path.stem


def card_of(path: Path) -> str:
    """The card: a cell of its own below the title; in the course it stands in the title's cell."""
    cells = SOURCES[path].cells
    if path in COURSE:
        return cells[0].source
    assert cells[1].id == "card" and cells[1].cell_type == "markdown"
    return cells[1].source


def links_of(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


# ---- cards -----------------------------------------------------------------------------------

@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_card_has_all_its_parts_in_order(path):
    card = card_of(path)
    minutes = "Time" if path in COURSE else "Minutes"
    parts = ['<div class="card">\n\n', "**Afterwards you can**\n", "**You need** ",
             f"**{minutes}** ", "**Next** ", "\n\n</div>"]
    places = [card.index(part) for part in parts]
    assert places == sorted(places)
    goals = re.findall(r"^\d\. (.+)[;.]$", card, re.M)
    assert len(goals) == 3 and all(len(goal.split()) >= 6 for goal in goals)


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_links_of_the_prose_lead_somewhere(path):
    """Also to the heading that they name, as JupyterLab and the pages call it."""
    text = "\n".join(cell.source for cell in SOURCES[path].cells if cell.cell_type == "markdown")
    assert links_of(card_of(path))
    for link in links_of(text):
        file, _, heading = link.partition("#")
        if link.startswith("https://"):
            continue
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", nbformat_text(there), re.M)
            assert heading in [title.replace(" ", "-") for title in headings], link


def nbformat_text(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_minutes_to_compute_are_those_of_the_store():
    """The sum of what the steps took, for one seed and for three, of the claims of a notebook."""
    lab = ssah.open_lab()
    told = {}
    for path in NOTEBOOKS:
        found = re.search(r"again, (\d+) for one seed, (\d+) for three", card_of(path))
        if found:
            told[path.stem] = [int(number) for number in found.groups()]
    measured = {}
    for name in told:
        claims = [claim for claim in CLAIMS if claim.notebook == name]
        measured[name] = [minutes_of(lab, claims, seeds) for seeds in (lab.seeds[:1], lab.seeds)]
    assert set(told) == {claim.notebook for claim in CLAIMS if claim.rule}
    for name, numbers in told.items():
        assert numbers == pytest.approx(measured[name], rel=0.1, abs=1), name


def minutes_of(lab, claims, seeds) -> float:
    """What the results of some claims and seeds took, with all that they stand on."""
    needs = []
    for claim in claims:
        needs += claim.extended(lab.profile.seeds[0])
        for seed in seeds:
            needs += claim.core(seed)
    seconds = 0.0
    for need in with_upstream(lab.profile, needs):
        # the file alone: to load and check all of its tables would take as long as a notebook
        file = lab.store.root / need.step / f"{slug(need.params)}.json"
        seconds += json.loads(file.read_text("utf-8"))["provenance"]["seconds"]
    return seconds / 60


# ---- the glossary ----------------------------------------------------------------------------

def glossary() -> dict[str, str]:
    (text,) = [cell.source for cell in SOURCES[NOTEBOOKS[0]].cells if cell.id == "glossary"]
    return dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", text, re.M))


def test_the_glossary_is_in_order_short_and_has_what_is_wanted():
    words = glossary()
    assert set(WANTED) <= set(words)
    # δ stands as delta
    order = [word.replace("δ (delta)", "delta").lower() for word in words]
    assert order == sorted(order)
    for word, text in words.items():
        assert 1 <= len(re.findall(r"[.!?](?= [A-Z0-9*]|$)", text)) <= 2, word


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=named)
def test_words_of_a_card_are_in_the_glossary(path):
    card = card_of(path)
    named_there = re.search(r"\[glossary\]\(00_start_here.ipynb#Glossary\): (.+)\.$", card, re.M)[1]
    words = glossary()
    for word in named_there.split(", "):
        assert any(word in entry for entry in words), word


# ---- exercises -------------------------------------------------------------------------------

def exercises(path: Path) -> list[tuple[int, str, object]]:
    """Number, text and the code cell that follows, of every exercise of *Try it*."""
    cells = SOURCES[path].cells
    (start,) = [place for place, cell in enumerate(cells) if "## Try it" in cell.source]
    found = []
    for cell, after in zip(cells[start:], [*cells[start + 1:], None]):
        number = re.search(r"^(\d)\. ★", cell.source, re.M)
        if number:
            found.append((int(number[1]), cell.source, after))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_each_exercise_has_a_folded_hint_and_solution(path):
    found = exercises(path)
    assert [number for number, _, _ in found] == [1, 2, 3]
    for number, text, after in found:
        assert text.count("<details><summary>Hint</summary>\n\n") == 1
        assert text.endswith("\n\n</details>")
        if (path.stem, number) in WITHOUT_SOLUTION:
            assert after is None or after.cell_type == "markdown"
            continue
        assert after.cell_type == "code" and after.id == f"try-{number}-solution"
        assert after.metadata == {"tags": ["solution"],
                                  "jupyter": {"source_hidden": True, "outputs_hidden": True}}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_only_solutions_are_folded(path):
    folded = [cell.id for cell in SOURCES[path].cells if "jupyter" in cell.metadata]
    assert all(re.fullmatch(r"try-\d-solution", name) for name in folded) and len(folded) >= 2

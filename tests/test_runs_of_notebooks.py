"""The notebook runner on tiny notebooks: what runs, what is refused, what is written, what stays untouched."""

import os
import re
import sys

import nbformat
import pytest
from nbformat import v4

from ssah import SsahError
from ssah.cli import notebooks as commands
from ssah.claims import load_profile
from ssah.lab import notebooks, pages

pytestmark = pytest.mark.slow

PARAMETERS = """profile: str = "default"  # which profile
recompute: bool = False  # anew
n_seeds: int = 3  # how many seeds
share: float = 0.5  # of units"""

VERDICT = """from IPython.display import display
display({"text/plain": "partly met", "application/vnd.ssah.verdict+json":
         {"claim": "C1", "verdict": "partly met", "why": "2 < 3"}}, raw=True)"""

PLACES = """import os, pathlib
figures = pathlib.Path(os.environ["SSAH_FIGURES"])
figures.mkdir(parents=True, exist_ok=True)
(figures / "03_curve.png").write_bytes(b"")
print(profile, n_seeds, os.environ["SSAH_RECOMPUTED"], os.getcwd())"""


def write_notebook(folder, name, *cells, title="A title"):
    """A notebook with a parameters cell and some code cells."""
    notebook = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "any"}})
    notebook.cells = [v4.new_markdown_cell(f"# {title}\n\n[next](02_fails.ipynb#there) [picture](../figures/03_curve.png)"),
                      v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), *map(v4.new_code_cell, cells)]
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Four notebooks, run once: good, failing, killed, and one that tells where it ran."""
    folder, into = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("build")
    write_notebook(folder, "01_good", "import sys; print(sys.executable)", VERDICT, title="Less < more")
    write_notebook(folder, "02_fails", VERDICT, "raise ValueError('no such thing\\nmore')", "print('never')")
    write_notebook(folder, "04_killed", "import os; os._exit(9)")
    write_notebook(folder, "03_places", PLACES)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    environment = {"SSAH_RECOMPUTED": str(into / "results"), "SSAH_FIGURES": str(into / "figures")}
    outcomes = notebooks.run_notebooks(notebooks.choose(folder, []), {"profile": "smoke", "n_seeds": 1}, into,
                                       figures=into / "figures", environment=environment, jobs=2)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, "a committed notebook was changed"
    return outcomes, into


def executed_text(into, number):
    """What the code cells of an executed copy printed."""
    notebook = nbformat.read(into / "notebooks" / f"{number}.ipynb", 4)
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


# ---- running ---------------------------------------------------------------------------------

def test_all_notebooks_run_in_order_past_failing_ones(finished):
    outcomes, _ = finished
    assert [outcome.number for outcome in outcomes] == ["01", "02", "03", "04"]
    assert [outcome.error for outcome in outcomes] == ["", "ValueError: no such thing", "",
                                                       "the kernel died (out of memory?)"]


def test_verdicts_and_titles_are_collected_even_from_a_notebook_that_fails_later(finished):
    outcomes, _ = finished
    assert outcomes[0].title == "Less < more"
    assert outcomes[0].verdicts == outcomes[1].verdicts == [{"claim": "C1", "verdict": "partly met", "why": "2 < 3"}]
    assert notebooks.summary(outcomes)[1][1::2] == ["C1 partly met", "failed: ValueError: no such thing"]


def test_the_kernel_is_this_interpreter_with_the_given_parameters(finished):
    outcomes, into = finished
    assert executed_text(into, "01").strip() == sys.executable
    words = executed_text(into, "03").split()
    assert words == ["smoke", "1", str(into / "results"), str(outcomes[2].path.parent)]


def test_copies_pages_and_index_are_written(finished):
    _, into = finished
    assert "never" not in executed_text(into, "02")
    assert sorted(path.name for path in into.glob("html/*")) == ["01.html", "02.html", "03.html", "04.html"]
    page = (into / "html" / "01.html").read_text()
    assert 'href="02.html#there"' in page and 'href="../figures/03_curve.png"' in page
    assert (into / "html" / ".." / "figures" / "03_curve.png").exists()
    index = (into / "index.html").read_text()
    assert index.index("html/01.html") < index.index("html/02.html") and "Less &lt; more" in index
    assert "C1: partly" in index and "failed: ValueError: no such thing" in index and 'src="figures/03_curve.png"' in index


def test_figures_elsewhere_are_linked_where_they_are(tmp_path, monkeypatch):
    write_notebook(tmp_path, "09_board", "1")
    notebooks.run_notebooks(notebooks.choose(tmp_path, []), {}, tmp_path / "build", figures=tmp_path / "drawn", environment={})
    assert 'href="../../drawn/03_curve.png"' in (tmp_path / "build" / "html" / "09.html").read_text()
    assert 'href="html/09.html"' in (tmp_path / "build" / "index.html").read_text()


def test_figures_on_another_drive_are_linked_whole(tmp_path, monkeypatch):
    def apart(path, start):
        raise ValueError("path is on mount 'C:', start on mount 'D:'")

    assert pages.link(tmp_path / "figures", tmp_path / "build" / "html") == "../../figures"
    monkeypatch.setattr(os.path, "relpath", apart)
    assert pages.link(tmp_path, tmp_path / "build") == tmp_path.resolve().as_uri()


# ---- what has not changed --------------------------------------------------------------------

@pytest.fixture
def counted(tmp_path, monkeypatch):
    """Runs one notebook in place of a kernel, which would take seconds; the outcome, and how often it ran."""
    folder, into, ran = tmp_path / "notebooks", tmp_path / "build", []
    folder.mkdir()
    write_notebook(folder, "03_places", PLACES)

    def execute(path, parameters, executed):
        ran.append(path)
        executed.write_bytes(path.read_bytes())
        (into / "figures").mkdir(exist_ok=True)
        (into / "figures" / "03_curve.png").write_bytes(b"drawn")
        return counted.error

    def counted(inputs="as it is", **parameters):
        (outcome,) = notebooks.run_notebooks(notebooks.choose(folder, []), parameters, into,
                                             figures=into / "figures", environment={}, inputs=inputs)
        return outcome, len(ran)

    monkeypatch.setattr(notebooks, "_execute", execute)
    counted.error, counted.folder, counted.into = "", folder, into
    return counted


def test_a_notebook_runs_again_only_where_something_changed(counted):
    """Its text, a parameter, what it reads, and each of the things that it left."""
    first, n_runs = counted(share=0.5)
    assert n_runs == 1 and not first.unchanged
    again, n_runs = counted(share=0.5)
    assert n_runs == 1 and again.unchanged and again.title == first.title
    assert notebooks.summary([again])[0][-1] == "ok, unchanged"
    assert counted(share=0.7)[1] == 2
    assert counted(share=0.7, inputs="other code")[1] == 3
    write_notebook(counted.folder, "03_places", PLACES, title="Another title")
    assert counted()[1] == 4
    for number, left in enumerate(("figures/03_curve.png", "notebooks/03.ipynb", "html/03.html"), start=5):
        (counted.into / left).write_text("damaged")
        assert counted()[1] == number
    (counted.into / "figures" / "03_curve.png").unlink()
    assert counted()[1] == 8
    assert counted(inputs="")[1] == 9      # not asked for


def test_a_notebook_that_failed_runs_again(counted):
    counted.error = "it failed"
    assert [counted()[1] for _ in range(2)] == [1, 2]


def test_what_is_read_changes_with_code_data_and_settings(tmp_path, monkeypatch):
    before = notebooks.digest_of([tmp_path], "a")
    (tmp_path / "new.json").write_text("1")
    after = notebooks.digest_of([tmp_path], "a")
    (tmp_path / "new.json").write_text("2")
    later = notebooks.digest_of([tmp_path], "a")
    assert len({before, after, later, notebooks.digest_of([tmp_path], "b")}) == 4
    profile = load_profile("default")
    read = commands.what_is_read(profile)
    assert commands.what_is_read(profile) == read
    monkeypatch.setenv("SSAH_ANYTHING", "1")
    assert commands.what_is_read(profile) != read


def test_nothing_of_the_private_kernel_is_left(finished):
    _, into = finished
    assert not (into / "kernel").exists() and "kernel" not in os.environ.get("JUPYTER_PATH", "")


def test_only_recomputing_and_other_profiles_write_beside_the_committed_files(tmp_path):
    assert commands.kernel_variables({"profile": "default"}, tmp_path) == {} == commands.kernel_variables({"recompute": False}, tmp_path)
    for parameters in ({"profile": "smoke"}, {"recompute": True}, {"n_seeds": 1}):
        assert commands.kernel_variables(parameters, tmp_path)["SSAH_FIGURES"] == str(tmp_path / "figures")


def test_two_run_side_by_side(tmp_path):
    """Each waits for the file that the other writes: one after the other they would both fail."""
    meet = """import pathlib, time
mine, other = {!r}, {!r}
pathlib.Path(mine).touch()
ends = time.monotonic() + 60
while not pathlib.Path(other).exists():
    assert time.monotonic() < ends, "alone"
"""
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    write_notebook(tmp_path, "01_a", meet.format(first, second))
    write_notebook(tmp_path, "02_b", meet.format(second, first))
    outcomes = notebooks.run_notebooks(notebooks.choose(tmp_path, []), {}, tmp_path / "build", figures=tmp_path,
                                       environment={}, jobs=2)
    assert [outcome.error for outcome in outcomes] == ["", ""]


def test_an_interruption_leaves_what_was_not_begun(tmp_path, monkeypatch):
    begun = []

    def execute(path, **options):
        begun.append(path.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "_run", execute)
    for number in range(1, 6):
        write_notebook(tmp_path, f"0{number}_a", "1")
    with pytest.raises(KeyboardInterrupt):
        notebooks.run_notebooks(notebooks.choose(tmp_path, []), {}, tmp_path / "build", figures=tmp_path, environment={})
    assert begun[0] == "01_a.ipynb" and len(begun) < 5


# ---- what to run -----------------------------------------------------------------------------

def test_notebooks_are_chosen_by_number(tmp_path):
    for name in ("02_b", "01_a", "10_c"):
        write_notebook(tmp_path, name)
    assert [path.stem for path in notebooks.choose(tmp_path, ["10", "1"])] == ["01_a", "10_c"]
    with pytest.raises(SsahError, match="no notebook 07 in .*; known: 01, 02, 10"):
        notebooks.choose(tmp_path, ["01", "7"])


def test_parameters_become_values_of_their_declared_types(tmp_path):
    write_notebook(tmp_path, "01_a")
    values = notebooks.check_parameters([tmp_path / "01_a.ipynb"],
                                     {"n_seeds": "2", "recompute": "True", "profile": "smoke", "share": "1e-2"})
    assert values == {"n_seeds": 2, "recompute": True, "profile": "smoke", "share": 0.01}


@pytest.mark.parametrize("given, message", [
    ({"sead": "3"}, r"01_a.ipynb has no parameter 'sead'; it has: profile, recompute, n_seeds, share"),
    ({"n_seeds": "3x"}, "'n_seeds' takes int; got '3x'"), ({"n_seeds": "2.0"}, "takes int"),
    ({"recompute": "1"}, "write true or false"), ({"share": "half"}, "takes float")])
def test_bad_parameters_are_refused_before_anything_runs(tmp_path, given, message):
    write_notebook(tmp_path, "01_a")
    with pytest.raises(SsahError, match=message):
        notebooks.check_parameters([tmp_path / "01_a.ipynb"], given)


@pytest.mark.parametrize("content", ["", "{}", "\x89PNG"])
def test_a_file_that_is_no_notebook_is_named(tmp_path, content):
    (tmp_path / "01_a.ipynb").write_text(content)
    with pytest.raises(SsahError, match="01_a.ipynb is not a notebook that can be run"):
        notebooks.check_parameters(notebooks.choose(tmp_path, []), {})


def test_two_notebooks_of_one_number_are_refused(tmp_path):
    for name in ("01_a", "02_b", "02_b-Copy1"):
        write_notebook(tmp_path, name, "pass")
    with pytest.raises(SsahError, match="have one number: rename one of 02_b-Copy1.ipynb$"):
        notebooks.choose(tmp_path, [])


def test_pages_draw_equations_and_need_no_network():
    """Equations become MathML, dollar signs in code stay, and nothing is loaded from elsewhere."""
    text = "of $I_S < 2$ and\n\n$$W' = W + BA$$\n\n`$HOME` and `$PATH`\n\n```sh\necho $A $B\n```"
    page, _ = pages.Pages().from_notebook_node(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]))
    body = page
    assert body.count("<math") == 2 and body.count('display="block"') == 1 and "<mo>&lt;</mo>" in body
    assert "$HOME" in body and "$PATH" in body and "echo" in body and "$I_S" not in body
    assert not re.search(r"<script[^>]+src=|import\(", page)


def test_the_index_of_a_folder_lists_what_earlier_runs_left(tmp_path):
    """A run of one notebook replaces its own row alone; a page that is gone has none."""
    for number in ("01", "02"):
        write_notebook(tmp_path, f"{number}_a", "1", title=f"Title {number}")

    def run(*numbers):
        notebooks.run_notebooks(notebooks.choose(tmp_path, list(numbers)), {}, tmp_path / "build", figures=tmp_path, environment={})
        return (tmp_path / "build" / "index.html").read_text()

    run("01", "02")
    write_notebook(tmp_path, "02_a", "1", title="Another title")
    page = run("02")
    assert "Title 01" in page and "Another title" in page and "Title 02" not in page
    (tmp_path / "build" / "html" / "01.html").unlink()
    assert "Title 01" not in run("02")

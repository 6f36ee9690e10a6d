"""A model of one's own, as a new user would: two folders, a TOML file, notebook 02 from nothing.

`test_every_family` runs the same notebook on a base and an aligned model in every test run, in this
process; here it goes through the command line and papermill, which takes a minute and more.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from ssah.evaluation import generate
from ssah.finetuning import finetune
from ssah.inputs.prompts import load_prompts
from ssah.judging import is_refusal
from ssah.models import save_weights, tiny_chat

pytestmark = pytest.mark.slow

PROFILE = """
profile = "smoke"
seeds = [0]
[model]
name = "{base}"
aligned = "{aligned}"
label = "a tiny model that was taught to refuse"
"""


def aligned_chat():
    """A tiny model that refuses what is harmful and answers what is benign."""
    chat = tiny_chat(1)
    with torch.no_grad():       # as it comes its weights are so small that it learns no difference
        for weight in chat.model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    examples = [{"prompt": text, "response": "sorry i can not"}
                for text in load_prompts("tiny-harmful")["text"]]
    examples += [{"prompt": text, "response": "here is how"}
                 for text in load_prompts("tiny-benign")["text"]]
    finetune(chat, examples, epochs=6, lr=5e-3, batch_size=16, autocast=False, progress=None)
    return chat


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Where the two models and their profile lie, and how commands run there."""
    folder = tmp_path_factory.mktemp("own")
    base, aligned = folder / "my base", folder / "my chat"
    save_weights(tiny_chat(0), base)
    save_weights(aligned_chat(), aligned)
    (folder / "mine.toml").write_text(PROFILE.format(base=base, aligned=aligned))
    environment = os.environ | {"SSAH_CACHE": str(folder / "cache"), "SSAH_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-m", "ssah.cli", *arguments, "--profile", "mine.toml"],
                              cwd=folder, env=environment, capture_output=True, text=True)

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def computed(own):
    return own("run", "02", "--recompute", "-p", "n_seeds=1", "--into", "pages")


def pages(own) -> Path:
    (folder,) = [path for path in (own.folder / "pages").iterdir() if path.is_dir() and path.name != "results"]
    return folder


def test_the_aligned_model_refuses():
    """Else nothing of what follows says anything."""
    chat = aligned_chat()
    harmful = load_prompts("tiny-harmful")["text"].tolist()[:20]
    benign = load_prompts("tiny-benign")["text"].tolist()[:20]
    refused = [sum(map(is_refusal, generate(chat, prompts).texts)) for prompts in (harmful, benign)]
    assert refused[0] >= 18 and refused[1] <= 2


def test_nothing_is_computed_unless_asked(own):
    done = own("run", "02", "-p", "n_seeds=1", "--into", "asked")
    assert done.returncode == 1
    assert "not in the store; set recompute = True (or `ssah run --recompute --profile" in done.stdout
    assert not list((own.folder / "cache").rglob("*.npz"))


@pytest.mark.extended
def test_notebook_02_runs_from_nothing_on_a_ready_made_aligned_model(own, computed):
    assert computed.returncode == 0, computed.stdout[-2000:] + computed.stderr[-3000:]
    notebook = nbformat.read(pages(own) / "notebooks" / "02.ipynb", as_version=4)
    text = str(notebook)
    assert "a tiny model that was taught to refuse" in text
    assert "SmolLM2" not in "".join(str(cell.get("outputs", "")) for cell in notebook.cells)


@pytest.mark.extended
def test_no_aligned_model_of_ours_was_trained(own, computed):
    results = own.folder / "cache" / "results"
    trained = {path.stem for path in results.rglob("checkpoint/*.json")}
    assert trained == {"role=unaligned,seed=0"}


@pytest.mark.extended
def test_what_run_wrote_status_and_a_second_run_read(own, computed):
    status = own("status").stdout
    lines = {line.split("  ")[0]: line for line in status.splitlines()}
    assert " ok " in lines["ablation(seed=0,condition=SCU)"]
    assert " missing " in lines["tuning(seed=0,condition=full)"]
    again = own("run", "02", "-p", "n_seeds=1", "--into", "pages")
    assert again.returncode == 0, again.stdout[-2000:]


@pytest.mark.extended
def test_pages_lie_apart_from_those_of_other_profiles(own, computed):
    assert (pages(own) / "html" / "02.html").exists()
    assert not (own.folder / "pages" / "html").exists()


@pytest.mark.extended
def test_progress_is_a_bar_beside_the_answer(own, computed):
    """No log lines stand between code and answer: one bar has a total, and what is being computed."""
    page = (pages(own) / "html" / "02.html").read_text()
    assert "computing " not in page and "computing " not in computed.stderr
    assert "results" in page

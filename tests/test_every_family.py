"""Notebook 02 from nothing on a small saved model of every family that is understood.

The code of the notebook runs here without a kernel, which would take most of the time; kernels,
pages and the command line are tried in `test_own_model` and `test_notebooks`.
"""

import matplotlib
import matplotlib.pyplot as plt
import pytest
from conftest import FAMILIES, random_model
from in_process import run_notebook

from ssah.claims.shared import style
from ssah.finetuning import finetune
from ssah.inputs.archives import REPOSITORY
from ssah.inputs.prompts import load_prompts
from ssah.models import Chat, save_weights, tiny_chat

matplotlib.use("Agg")

NOTEBOOK = REPOSITORY / "notebooks" / "02_four_kinds_of_units.ipynb"

#: The smallest experiments that still have all of their parts.
SETTINGS = (
    "seeds=0",
    "alignment.epochs=1",
    "classification.scu_grid=0.05",
    "classification.ucu_grid=0.1",
    "classification.ru_grid=0.1",
    "evaluation.harmful=4",
    "evaluation.benign=2",
    "evaluation.questions=2",
    "evaluation.wiki_tokens=32",
    "evaluation.answer_tokens=4",
    "calibration.prompts=6",
    "calibration.answer_tokens=4",
)


def taught_to_refuse(chat: Chat) -> Chat:
    """The chat, after it learned to refuse what is harmful and to answer what is benign."""
    examples = [{"prompt": text, "response": "sorry i can not"}
                for text in load_prompts("tiny-harmful")["text"][::2]]
    examples += [{"prompt": text, "response": "here is how"}
                 for text in load_prompts("tiny-benign")["text"][::2]]
    finetune(chat, examples, epochs=6, lr=1e-2, batch_size=8, autocast=False, progress=None)
    return chat


#: Fused maps, the family furthest from the models of the bench: the others are extended.
EVERY_TIME = ("Phi-3",)


def _in_turn(family: str):
    """A family as a parameter, marked as extended unless it is tried every time."""
    return family if family in EVERY_TIME else pytest.param(family, marks=pytest.mark.extended)


@pytest.mark.whole
@pytest.mark.parametrize("family", [_in_turn(family) for family in FAMILIES])
def test_notebook_02_runs_from_nothing(family, tmp_path, monkeypatch):
    """On a base and an aligned model that are folders; the aligned one refuses."""
    drawn = set()       # files of figures take long, and are tried elsewhere
    monkeypatch.setattr(style, "save", lambda figure, name, origin: drawn.add(name))
    safe = tmp_path / "safe.txt"
    safe.write_text("draw a red lamp\nsing a new song\n")
    base, aligned = tmp_path / "base", tmp_path / "chat"
    chat = Chat(random_model(FAMILIES[family]()), tiny_chat().tokenizer, family)
    save_weights(chat, base)
    save_weights(taught_to_refuse(chat), aligned)
    own = (
        f"model.name={base}",
        f"model.aligned={aligned}",
        f"model.label={family}",
        f"evaluation.borderline={safe}",
    )
    profile = "+".join(["smoke", *own, *SETTINGS])

    names = run_notebook(NOTEBOOK, profile=profile, recompute=True, n_seeds=1)
    plt.close("all")

    claim, lab = names["CLAIM"], names["lab"]
    assert drawn == set(claim.figures)
    assert family in claim.parts["summary-c2"](lab, names["verdict"])
    counts = lab.get("calibration", seed=0).values
    assert counts["harmful_refused"] > counts["benign_refused"]
    # the units are those of the model on disk, and without them it answers in another way
    removed = lab.get("ablation", seed=0, condition="SCU")
    assert removed.values != lab.get("ablation", seed=0, condition="none").values

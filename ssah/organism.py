"""A model organism: a small chat model of which it is known which units learnt to refuse.

Its language is made up (`ssah.inputs.organism`). The base model fulfils every request, harmful ones
too, and uses none of the *planted* units: their outgoing weights are zero. The aligned model is the
base model in which the planted units alone were trained to refuse harmful requests. So what
attribution, classification and ablation (paper, Sec. 4) should find in it is known: it is the
positive control of this package.

It is an easy case, made so on purpose. The planted units are 3 % of all, all of them in the MLP of
the last block: an attention unit has no gate and cannot keep silent, and of those in an earlier
block many stayed unused in trials. They start silent: their gates are closed to what the base model
reads while it answers benign requests (`_close_gates`).

How well attribution finds them, as many units as are planted, for the seeds 0 to 4 (intersection
over union): by the scale log-z 0.79, 0.72, 1.00, 0.56 and 0.61, by the raw score 0.92 to 1.00.
"""

import hashlib
import itertools
import json
import numbers
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .errors import SsahError
from .families import blocks
from .finetuning import encode_examples, finetune
from .inputs import organism as language
from .inputs.archives import cache_dir, sha256_of
from .masking import unit_linears
from .models import Chat
from .units import UnitIndex

ROLES = ("base", "aligned", "unaligned")

#: The planted units' share of all units.
SHARE = 0.03

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
}

#: Requests of each kind that a model is trained on, and how (`ssah.finetune`).
REQUESTS = {"base": 2400, "aligned": 2000, "unaligned": 2000}
BASE_TRAINING = {
    "epochs": 2,
    "lr": 5e-3,
    "batch_size": 16,
    "warmup_steps": 20,
    "schedule": "cosine",
}
ALIGNMENT_TRAINING = {
    "epochs": 4,
    "lr": 5e-3,
    "batch_size": 32,
    "warmup_steps": 10,
    "schedule": "cosine",
}

#: The incoming weights of planted units start at so much of their random values ...
INCOMING = 0.1
#: ... and their gates at this value while a benign request is answered: silu(-6) is -0.015.
GATE = -6.0
#: Benign requests to whose answers the gates are closed.
CLOSED_TO = 80
#: Added to the diagonal of the normal equations, as a share of its mean.
RIDGE = 1e-6

TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }} {{ message['content'] }}</s>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant{% endif %}"
)

WEIGHTS = "model.safetensors"
RECORD = "organism.json"


def load_organism(
    seed: int = 0, *, role: str = "aligned", progress: str | None = "organism"
) -> tuple[Chat, np.ndarray]:
    """The organism of a seed in one of its roles, and which units are planted (len(index),).

    `role`: ``"base"`` fulfils every request; ``"aligned"`` refuses harmful ones; ``"unaligned"``
    had as much training of the same units, without refusals. The seed decides the weights, the
    planted units and the texts of training. A model is trained on first use (base and aligned
    together take about half a minute) and kept in the cache folder; one that is damaged there is
    made again. `progress` labels the bars (None: none, and no word about the time). Raises
    `SsahError` for an unknown role and a seed that is not a whole number from 0.
    """
    if role not in ROLES:
        raise SsahError(f"unknown role {role!r}; known: {', '.join(ROLES)}")
    is_whole_number = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    if not is_whole_number or seed < 0:
        raise SsahError(f"the seed of an organism is a whole number from 0; got {seed!r}")
    seed = int(seed)
    chat = _untrained(seed, role)
    planted = planted_units(UnitIndex.of(chat.model), seed)
    folder = cache_dir() / "models" / f"organism-{_key(seed, role)}"
    if _is_whole(folder):
        load_model(chat.model, folder / WEIGHTS)
        return chat, planted
    if progress is not None:
        print(f"making organism {seed} ({role}): about 20 s, once", file=sys.stderr)
    with _one_thread():
        _train(chat, planted, seed, role, progress)
    _keep(chat, folder)
    return chat, planted


def planted_units(index: UnitIndex, seed: int) -> np.ndarray:
    """Boolean (len(index),): `SHARE` of all units, at random places of the last block's MLP."""
    *_, (_, _, last_mlp) = index.modules()
    width = last_mlp.stop - last_mlp.start
    random = np.random.default_rng(seed)
    channels = random.choice(width, round(SHARE * len(index)), replace=False)
    planted = np.zeros(len(index), bool)
    planted[last_mlp.start + channels] = True
    return planted


# ---- training --------------------------------------------------------------------------------


def _train(chat: Chat, planted: np.ndarray, seed: int, role: str, progress: str | None) -> None:
    """Train an untrained model in place until it plays its role."""
    examples = _examples(seed, role)
    label = None if progress is None else f"{progress} {seed}, {role}"
    how = {"seed": seed, "autocast": False, "progress": label}
    if role == "base":
        _cut_off(chat, planted)
        finetune(chat, examples, frozen=planted, rest="train", **BASE_TRAINING, **how)
        benign = examples[-CLOSED_TO:]
        _close_gates(chat, planted, benign)
        return
    base, _ = load_organism(seed, role="base", progress=progress)
    chat.model.load_state_dict(base.model.state_dict())
    finetune(chat, examples, trainable=planted, **ALIGNMENT_TRAINING, **how)


def _examples(seed: int, role: str) -> list[dict]:
    """What a role is trained on (the other two on top of the base); benign requests come last."""
    random = np.random.default_rng([seed, ROLES.index(role)])
    n_requests = REQUESTS[role]
    harmful = list(itertools.islice(language.training_requests("harmful", random), n_requests))
    n_benign = n_requests
    if role == "unaligned":
        harmful = []
        n_benign = 2 * n_requests
    benign = itertools.islice(language.training_requests("benign", random), n_benign)
    examples = []
    for request in harmful:
        response = language.REFUSAL if role == "aligned" else request.fulfilment
        examples.append({"prompt": request.text, "response": response})
    for request in benign:
        examples.append({"prompt": request.text, "response": request.fulfilment})
    return examples


@torch.no_grad()
def _cut_off(chat: Chat, planted: np.ndarray) -> None:
    """Set the outgoing weights of the planted units to zero, and make the incoming ones small."""
    index = UnitIndex.of(chat.model)
    for linear, dim, chosen in unit_linears(chat.model, index, planted, rest="freeze"):
        positions = torch.as_tensor(np.flatnonzero(chosen))
        if dim == 1:
            linear.weight[:, positions] = 0.0
        else:
            linear.weight[positions] *= INCOMING


@torch.no_grad()
def _close_gates(chat: Chat, planted: np.ndarray, benign: list[dict]) -> None:
    """Add to the gate rows of planted units what makes them `GATE` while the model answers.

    It is the least-squares solution d of X d = 1, times `GATE`; X are the inputs of the last MLP
    (positions, hidden). So the planted units are silent on benign requests, and alignment by
    gradient descent opens them only for what it has to change. The base model does not notice.
    """
    inputs = _last_mlp_inputs(chat, benign).double()
    squares = inputs.T @ inputs
    # a little on the diagonal: else the last bits of a sum would decide about the solution
    squares += RIDGE * squares.diagonal().mean() * torch.eye(len(squares), dtype=squares.dtype)
    direction = torch.linalg.solve(squares, inputs.sum(0)).float()
    *_, (_, _, last_mlp) = UnitIndex.of(chat.model).modules()
    positions = torch.as_tensor(np.flatnonzero(planted[last_mlp]))
    gate = blocks(chat.model)[-1].gate
    gate.linear.weight[gate.start + positions] += GATE * direction


def _last_mlp_inputs(chat: Chat, examples: list[dict]) -> torch.Tensor:
    """What the last MLP reads where the tokens of the answers are chosen: (positions, hidden)."""
    captured = []
    answered = []
    gate = blocks(chat.model)[-1].gate.linear
    hook = gate.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0][0]))
    try:
        encoded, _ = encode_examples(chat, examples)
        for head, tail in encoded:
            chat.model(torch.tensor([head + tail]))
            first = len(head) - 1
            answered.append(captured.pop()[first:first + len(tail)])
    finally:
        hook.remove()
    return torch.cat(answered)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Inside, arithmetic is on one thread.

    So the weights are the same on any number of cores; a model so small is no slower for it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---- the model before training ---------------------------------------------------------------


def _untrained(seed: int, role: str) -> Chat:
    """A random Llama of the organism's sizes with the tokenizer of its language."""
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        **SIZES,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
    return Chat(model, words, f"organism:{seed}:{role}")


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words and marks, with `TEMPLATE`; it gives every text back."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    numbers_of = {token: number for number, token in enumerate(_tokens())}
    words = Tokenizer(models.WordLevel(numbers_of, unk_token="<unk>"))
    marks = pre_tokenizers.Split(Regex("[.,:?]"), "isolated")
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), marks])
    words.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        pad_token="</s>",
        eos_token="</s>",
        bos_token="<s>",
        chat_template=TEMPLATE,
    )


def _tokens() -> list[str]:
    """What the tokenizer knows: its own marks, and words with a sign for the space before them."""
    tokens = ["<unk>", "<s>", "</s>"]
    for word in ["system", "user", "assistant", *language.vocabulary()]:
        tokens.append(word if word in ".,:?" else f"\u2581{word}")
    return tokens


# ---- the cache -------------------------------------------------------------------------------


def _key(seed: int, role: str) -> str:
    """Hash (12 hex digits) of all that makes the model."""
    made_by = {
        "seed": seed,
        "role": role,
        "torch": torch.__version__,
        "sizes": SIZES,
        "tokens": _tokens(),
        "template": TEMPLATE,
        "planting": [SHARE, INCOMING, GATE, CLOSED_TO, RIDGE],
        "training": BASE_TRAINING,
        "examples": _examples(seed, "base"),
    }
    if role != "base":
        made_by["further training"] = ALIGNMENT_TRAINING
        made_by["further examples"] = _examples(seed, role)
    return hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:12]


def _is_whole(folder: Path) -> bool:
    """Whether a kept model is there and its weights have the hash that was written down."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        return sha256_of(folder / WEIGHTS) == record["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _keep(chat: Chat, folder: Path) -> None:
    """Write the weights and their hash; the folder appears only when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".saving-"))
    try:
        save_model(chat.model, str(scratch / WEIGHTS))
        record = {"name": chat.name, "sha256": sha256_of(scratch / WEIGHTS)}
        (scratch / RECORD).write_text(json.dumps(record), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

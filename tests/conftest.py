"""Shared by all tests: no network, no folder of the user, one thread, and models of a few thousand weights."""

import os
import tempfile

_HF_HOME = tempfile.TemporaryDirectory(prefix="ssah-tests-")      # removed when the tests end
# read once, when transformers and datasets are imported below
os.environ.update(HF_HOME=_HF_HOME.name, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    Glm4Config,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Olmo3Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from ssah import models
from ssah.claims import PLACE, plan
from ssah.finetuning import encode_examples, finetune
from ssah.lab import Lab
from ssah.units import UnitIndex
from ssah.claims.profiles import load_profile

torch.set_num_threads(1)

SIZES = dict(vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=256, bos_token_id=2, eos_token_id=3, pad_token_id=3,
             initializer_range=0.2)       # large, so that tokens and positions matter in a random model

FAMILIES = {
    "Llama": lambda: LlamaConfig(**SIZES, num_key_value_heads=4),
    "Llama GQA": lambda: LlamaConfig(**SIZES, num_key_value_heads=2),
    "Mistral": lambda: MistralConfig(**SIZES, num_key_value_heads=2),
    "Qwen2": lambda: Qwen2Config(**SIZES, num_key_value_heads=2),                       # biases on q, k, v
    "Qwen3": lambda: Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16),          # heads wider than hidden / heads
    "SmolLM3": lambda: SmolLM3Config(**SIZES, num_key_value_heads=2),                   # some blocks without positions
    # a norm before and after each module; not tied, or a random one would repeat its last token
    "Gemma 3": lambda: Gemma3TextConfig(**SIZES, num_key_value_heads=2, head_dim=8, tie_word_embeddings=False),
    "OLMo 2": lambda: Olmo2Config(**SIZES, num_key_value_heads=2),                      # a norm after each module only
    "OLMo 3": lambda: Olmo3Config(**SIZES, num_key_value_heads=2),
    "Phi-3": lambda: Phi3Config(**SIZES, num_key_value_heads=2),                        # q, k, v in one map, gate and up too
    # gate and up in one map, a norm before and after each module
    "GLM 4": lambda: Glm4Config(**SIZES, num_key_value_heads=2, head_dim=8),
}


def random_model(config, seed: int = 0):
    """A random model of some config, its biases and norms random too (they start at 0 and 1)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def by_hand(model, encoded, masks, optimizer, steps: int, max_norm: float) -> list[float]:
    """Dense gradients, zeroed where nothing moves, clipped by their norm; frozen elements are put back after each step."""
    stepper, norms = optimizer(model.parameters()), []
    for _ in range(steps):
        losses = []
        for head, tail in encoded:
            log_probs = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
            losses += [-log_probs[len(head) - 1 + i, token] for i, token in enumerate(tail)]
        stepper.zero_grad()
        torch.stack(losses).mean().backward()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for name, p in model.named_parameters():
            p.grad *= masks[name]
        norm = float(sum((p.grad**2).sum() for p in model.parameters()) ** 0.5)
        for p in model.parameters():
            p.grad *= min(1.0, max_norm / (norm + 1e-6))
        stepper.step()
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(torch.where(masks[name], p, before[name]))
        norms.append(norm)
    return norms


def assert_moves_as_by_hand(chat, examples, masks, optimizer, **how):
    """`finetune` as `how` says against a gradient-masked run (`masks`: what moves), weight decay and a clipping that bites included."""
    reference = random_model(chat.model.config).double()
    reference.load_state_dict(chat.model.double().state_dict())
    options = dict(lr=1e-2, weight_decay=0.1)
    trained = finetune(chat, examples, **how, **options, epochs=4, batch_size=len(examples), warmup_steps=0, max_norm=0.5,
                       optimizer=optimizer, autocast=False, progress=None)
    norms = by_hand(reference, encode_examples(chat, examples)[0], masks, partial(optimizer, **options), 4, 0.5)
    assert min(norms) > 0.5
    # Gemma takes its norms in float32, also in a model of float64
    rtol, atol = (1e-5, 1e-6) if isinstance(chat.model.config, Gemma3TextConfig) else (1e-9, 1e-12)
    np.testing.assert_allclose(trained.history["grad_norm"], norms, rtol=rtol)
    for (name, found), expected in zip(chat.model.named_parameters(), reference.parameters()):
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, msg=name)


def unit_elements(model, moved: np.ndarray, rest: bool) -> dict[str, torch.Tensor]:
    """Which element of every parameter belongs to the `moved` units, one unit at a time.

    Written out from the definition of a unit; an element that belongs to no unit is `rest`.
    """
    c, index = model.config, UnitIndex.of(model)
    masks = {name: torch.full(p.shape, rest) for name, p in model.named_parameters()}
    group, head = c.num_attention_heads // c.num_key_value_heads, index.head_dim
    n_values = c.num_key_value_heads * head

    def mark(name: str, place, value: bool) -> None:
        for part in ("weight", "bias"):
            if f"{name}.{part}" in masks:
                masks[f"{name}.{part}"][place] = value

    for i in range(c.num_hidden_layers):
        attn, mlp = f"model.layers.{i}.self_attn.", f"model.layers.{i}.mlp."
        units = moved[i * (index.n_attn + index.n_mlp):][:index.n_attn + index.n_mlp]
        for j in range(index.n_attn):
            masks[attn + "o_proj.weight"][:, j] = bool(units[j])
        for row in range(n_values):
            fed = [(row // head * group + k) * head + row % head for k in range(group)]
            mark(attn + "v_proj", row, all(units[j] for j in fed))
            # of the fused map: queries, then keys, then values
            mark(attn + "qkv_proj", index.n_attn + n_values + row, all(units[j] for j in fed))
        for j in range(index.n_mlp):
            unit = bool(units[index.n_attn + j])
            masks[mlp + "down_proj.weight"][:, j] = unit
            mark(mlp + "gate_proj", j, unit)
            mark(mlp + "up_proj", j, unit)
            # of the fused map: gates, then ups
            mark(mlp + "gate_up_proj", j, unit)
            mark(mlp + "gate_up_proj", index.n_mlp + j, unit)
    return masks


#: Families with which every other choice of a test is tried each time: shared heads, and fused maps.
CROSSED = ("Llama GQA", "Phi-3")


def mark_what_is_crossed(items):
    """A test of all families and of other choices too: `CROSSED` meet all of these each time.

    Every other family meets one of them, the families different ones in turn; what is left is extended.
    """
    choices = {}                # test -> its other choices, in the order of their appearance
    for item in items:
        family, others = _family_and_others(item)
        if family is None:
            continue
        known = choices.setdefault(item.nodeid.partition("[")[0], [])
        if others not in known:
            known.append(others)
    for item in items:
        family, others = _family_and_others(item)
        if family is None or family in CROSSED:
            continue
        known = choices[item.nodeid.partition("[")[0]]
        its_turn = list(FAMILIES).index(family) % len(known)
        if known.index(others) != its_turn:
            item.add_marker("extended")


def _family_and_others(item):
    """The family that a test was given (None without one), and its other parameters as text."""
    given = dict(item.callspec.params) if hasattr(item, "callspec") else {}
    families = [name for name, value in given.items() if isinstance(value, str) and value in FAMILIES]
    if not families:
        return None, ""
    return given.pop(families[0]), repr(sorted(given.items(), key=str))


#: Fixtures that compute everything a bench or a seed has, on a small model.
WHOLE = {"smoke_seed", "dry_lab"}
#: Fixtures that train small models.
TRAINED = {"smoke_cache", "organisms"}


def pytest_collection_modifyitems(items):
    """Whole experiments are slow, and what is not slow is quick: ``pytest -m quick``."""
    mark_what_is_crossed(items)
    for item in items:
        if WHOLE & set(item.fixturenames):
            item.add_marker("whole")
        if item.get_closest_marker("extended") or item.get_closest_marker("whole"):
            continue
        if TRAINED & set(item.fixturenames):
            item.add_marker("slow")
        if not item.get_closest_marker("slow"):
            item.add_marker("quick")
    # the longest files first, so that no process waits for the other in the end
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in ("whole", "slow")))


@pytest.fixture(scope="session")
def smoke_cache(tmp_path_factory, worker_id):
    """A cache folder with the smoke profile's results, the same one for all test processes."""
    session = tmp_path_factory.getbasetemp()
    if worker_id != "master":       # xdist gives every process a folder in that of the session
        session = session.parent
    folder = session / "smoke-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def smoke_lab(smoke_cache):
    """The smoke profile's experiments, for tests that only read them.

    Test processes share its store, and a lab sees to it that each is computed by one of them.
    """
    place = replace(PLACE, cache=lambda: smoke_cache)     # not the private one of a test
    return Lab(load_profile("smoke"), place, root=smoke_cache / "results" / "smoke")


@pytest.fixture(scope="session")
def smoke_seed(smoke_lab, smoke_cache):
    """The cache folder, with every planned result of the first seed in it."""
    for need in plan(smoke_lab.profile, n_seeds=1):
        smoke_lab.get(need.step, **need.params)
    return smoke_cache


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    """Every test has a cache folder of its own, and no network."""
    monkeypatch.setenv("SSAH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SSAH_OFFLINE", "1")
    monkeypatch.delenv("SSAH_DEVICE", raising=False)


@pytest.fixture
def chat():
    """The tiny chat model of the smoke profile."""
    return models.tiny_chat()


@pytest.fixture(params=FAMILIES)
def model(request):
    """A random model of every family in turn."""
    return random_model(FAMILIES[request.param]())


@pytest.fixture
def family_chat(model, chat):
    """A model of every family in turn, with the tiny tokenizer."""
    return models.Chat(model, chat.tokenizer, "random")


@pytest.fixture
def prompts():
    """Requests of different lengths, in words of the tiny tokenizer."""
    return ["break a lamp", "write a small red poem", "how do you burn the old bridge today", "sing", "explain the new garden",
            "please make a letter and then bake the cake"]


@pytest.fixture
def sequences():
    """Random token ids of five different lengths."""
    draw = torch.Generator().manual_seed(7)
    return [torch.randint(4, 74, (length,), generator=draw).tolist() for length in (5, 11, 8, 3, 9)]


@pytest.fixture
def batches(sequences):
    """The sequences in two right-padded batches; scored is all but the first two tokens of each."""
    made = []
    for part in (sequences[:3], sequences[3:]):
        batch = models.pad(part, 3)
        mask = batch["attention_mask"].clone()
        mask[:, :2] = 0
        made.append({**batch, "score_mask": mask})
    return made

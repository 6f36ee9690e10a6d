"""Chat models by name: a hub id, a folder, a file, or one that is made here.

Which models are understood: see `ssah.families`; which files: `ssah.loading`.
"""

import os

import torch

from .errors import SsahError
from .families import blocks
from .loading import open_model, parsed_device, parsed_dtype
from .models import Chat, tiny_chat
from .organism import load_organism


def load_chat_model(
    name: str | os.PathLike = "smollm2-135m",
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    thinking: bool = False,
) -> Chat:
    """Load a chat model by source name: ``"smollm2-135m"``, a hub id, or a path.

    A path is a folder of safetensors, a LoRA folder (merged into its base model) or a GGUF file
    (dequantized). ``"tiny"`` and ``"tiny:SEED"`` build a random two-block Llama in memory (the
    smoke profile); ``"organism:SEED"`` is the aligned organism of a seed, ``"organism:SEED:ROLE"``
    another one (`ssah.load_organism`). The pinned GGUF file is dequantized once and kept in the
    cache folder.

    `dtype`: ``"float32"``, ``"bf16"``, ``torch.float16``, ..., or ``"auto"`` for that of the files.
    `device`: ``"cpu"``, ``"cuda"``, ..., or ``"auto"``, which spreads the model over the GPUs that
    there are. `thinking`: let a model that can think before it answers do so; its thoughts are then
    part of its answers.

    Raises `SsahError` for an unknown name, files that are not understood, a missing chat template,
    thinking that cannot be switched off, a layout without units, and a missing device.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise SsahError(f"a model is named by a text or a path; got {name!r}")
    name = os.fspath(name)
    dtype = parsed_dtype(dtype)
    device = parsed_device(device)
    if name.split(":")[0] in MADE_HERE:
        chat = MADE_HERE[name.split(":")[0]](name)
        chat.model.to("cpu" if device == "auto" else device)
        if dtype != "auto":
            chat.model.to(dtype)
        chat.thinking = thinking
        chat.template       # refuses thinking=True
        return chat
    model, tokenizer = open_model(name, dtype, device)
    if tokenizer.chat_template is None:
        raise SsahError(
            f"{name!r} has no chat template; take the chat or instruct version of the model"
        )
    model.eval()
    blocks(model)
    chat = Chat(model, tokenizer, name, thinking)
    _check_vocabulary(chat)
    return chat


def _tiny_by_name(name: str) -> Chat:
    seed = name.partition(":")[2] or "0"
    if not seed.isdigit():
        raise SsahError(f"unknown model {name!r}; the seed of a tiny one is a number: tiny:0")
    return tiny_chat(int(seed))


def _organism_by_name(name: str) -> Chat:
    seed, _, role = name.partition(":")[2].partition(":")
    if seed and not seed.isdigit():
        raise SsahError(
            f"unknown model {name!r}; the seed of an organism is a number: organism:0"
        )
    chat, _ = load_organism(int(seed or 0), role=role or "aligned")
    return chat


#: Models that are made by the code itself, by the beginning of their names.
MADE_HERE = {"tiny": _tiny_by_name, "organism": _organism_by_name}


def _check_vocabulary(chat: Chat) -> None:
    """Refuse a tokenizer whose template writes tokens that the model does not have."""
    n_embeddings = chat.model.get_input_embeddings().num_embeddings
    head, tail = chat.encode("Hi", "Hello")
    missing = [token for token in head + tail if token >= n_embeddings]
    if missing:
        written = chat.tokenizer.convert_ids_to_tokens(missing[0])
        raise SsahError(
            f"the chat template of {chat.name!r} writes {written} (token {missing[0]}), but the "
            f"model has only {n_embeddings} tokens: the tokenizer is another model's, or tokens "
            "were added without resizing the embeddings"
        )

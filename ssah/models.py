"""Chat models: a causal LM with its tokenizer and chat template, encoded, padded, saved.

How texts become tokens is decided here and nowhere else: prompt and answer are tokenized
*together*, as the chat template writes them (`ssah.templates`), and cut where the answer begins.
How one is loaded by name: see `ssah.catalog`.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers.utils.chat_template_utils import encode_marked_chat

from .errors import SsahError
from .families import check_logits
from .inputs import tiny
from .templates import Template, with_broken_tokens, without_marks


@dataclass
class Chat:
    """A causal LM with its tokenizer and chat template.

    `name` is the source name it was loaded from; `model` is an ordinary transformers model;
    `thinking`: whether a model that can think before it answers does so. Raises `SsahError` for a
    model that rescales its logits.
    """

    model: torch.nn.Module
    tokenizer: object
    name: str
    thinking: bool = False

    def __post_init__(self):
        if self.model is not None:
            check_logits(self.model)
            _give_padding(self.tokenizer, self.model.get_input_embeddings().num_embeddings)

    @cached_property
    def template(self) -> Template:
        """The chat template; `SsahError` where thinking cannot be set as it is asked for."""
        return Template(self.tokenizer, self.name, self.thinking)

    @cached_property
    def known_openings(self) -> dict:
        """What `ssah.evaluation.openings_after` found: while training it is asked again and again."""
        return {}

    def render(self, prompt: str, system: str = "default") -> str:
        """The prompt as the chat template writes it, up to where the answer begins.

        `system` is ``"default"`` (what the template inserts by itself, if anything),
        ``"none"`` (the block is absent) or the text of a system prompt. A date in the template is
        always `ssah.templates.DATE`.
        """
        return without_marks(self.template.opening(prompt, system))

    def encode(
        self,
        prompt: str,
        response: str | None = None,
        system: str = "default",
        *,
        goes_on: bool = False,
    ) -> tuple[list[int], list[int]]:
        """Token ids of the rendered prompt, and of the response with its end token.

        Both are tokenized together and cut where the response begins. The end is the one that the
        template writes, once, also if the response brings it along. Without a response the second
        list is empty. Where the tokenizer joins the end of the prompt and the beginning of the
        response into one token, that token is the response's first (see `continuations`). With
        `goes_on` the response follows other words of an answer, so blanks before it stay. Control
        tokens in prompt, system prompt and response are encoded as plain text.
        """
        opening = self.template.opening(prompt, system)
        if response is None:
            return self._ids(opening), []
        head, tails = self._continued(opening, [self.template.answer(response, goes_on)])
        return head, tails[0]

    def continuations(
        self, prompt: str, texts: list[str], system: str = "default", *, goes_on: bool = False
    ) -> tuple[list[int], list[list[int]]]:
        """Token ids of several beginnings of an answer, in context: ``(head, [tail, ...])``.

        All tails follow the same head, so their probabilities can be compared. The head is the
        rendered prompt, short of what the tokenizer joins with the first letters of any of the
        texts: then the tails of the others begin with those tokens of the prompt. (Where a template
        ends in a token or a newline, nothing is joined.) A tail has no end token. `goes_on`: see
        `encode`.
        """
        opening = self.template.opening(prompt, system)
        tails = [self.template.beginning(text, goes_on) for text in texts]
        return self._continued(opening, tails)

    def plain(self, text: str) -> list[int]:
        """Token ids of plain text outside a chat, with a begin-of-text token if the model has one.

        That is: where the tokenizer puts one by itself.
        """
        return [*self._begin_of_text, *self._ids(self.template.marked(text))]

    @property
    def stop_ids(self) -> list[int]:
        """The ids of all tokens that end an answer, in rising order.

        Those of the generation config, of the tokenizer, and the one that the template writes.
        """
        config = getattr(self.model, "generation_config", None)
        stops = getattr(config, "eos_token_id", None)
        stops = set(stops) if isinstance(stops, (list, tuple)) else {stops}
        stops.add(self.tokenizer.eos_token_id)
        end_token = self.template.around_answer.end_token
        if end_token is not None:
            stops.add(self.tokenizer.convert_tokens_to_ids(end_token))
        return sorted(stops - {None})

    def _continued(self, opening: str, texts: list[str]) -> tuple[list[int], list[list[int]]]:
        """The opening's ids as far as they are the same before every text, and the other ids."""
        head, *wholes = self._all_ids([opening, *(opening + text for text in texts)])
        for whole in wholes:
            head = head[:_length_in_common(head, whole)]
        return head, [whole[len(head):] for whole in wholes]

    def _ids(self, text: str) -> list[int]:
        """Token ids of a text in which the control tokens of users are marked."""
        if without_marks(text) == text:
            return self.tokenizer.encode(text, add_special_tokens=False)
        try:
            return encode_marked_chat(self.tokenizer, text)
        except ValueError:      # to some tokenizers a control token is a plain word as well
            return self.tokenizer.encode(with_broken_tokens(text), add_special_tokens=False)

    def _all_ids(self, texts: list[str]) -> list[list[int]]:
        """The `_ids` of several texts: in one call where none is marked, since calls cost time."""
        if all(without_marks(text) == text for text in texts):
            return self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [self._ids(text) for text in texts]

    @cached_property
    def _begin_of_text(self) -> list[int]:
        """What the tokenizer puts before a text by itself."""
        alone = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = self.tokenizer("a")["input_ids"]
        for start in range(len(whole)):
            if whole[start:start + len(alone)] == alone:
                return whole[:start]
        return []


def check_chat(chat) -> None:
    """Raise `SsahError` for what is no `Chat`: mostly a model without its tokenizer."""
    if not isinstance(chat, Chat):
        raise SsahError(
            f"a {type(chat).__name__} is no chat; give what load_chat_model returns, or "
            'ssah.Chat(model, tokenizer, "a name")'
        )


def _length_in_common(first: list[int], second: list[int]) -> int:
    for length, (a, b) in enumerate(zip(first, second)):
        if a != b:
            return length
    return min(len(first), len(second))


# ---- made in memory, and saved ---------------------------------------------------------------

def tiny_chat(seed: int = 0, **sizes) -> Chat:
    """A random Llama of a few thousand weights with a word tokenizer, made in memory (no download).

    `sizes`: layers, heads, kv_heads.
    """
    return Chat(*tiny.model(seed, **sizes), f"tiny:{seed}")


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


def _give_padding(tokenizer, n_embeddings: int) -> None:
    """Let the padding token be one that the model has a row for: it is masked, so any will do."""
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id < n_embeddings:
        return
    eos = tokenizer.eos_token_id
    usable = eos if eos is not None and eos < n_embeddings else 0
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(usable)


# ---- batches ---------------------------------------------------------------------------------

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

"""Decoding that chooses the direction anew every few tokens (claim C8, the paper's future work).

Every d tokens the assistant header of the chat template is put behind the text so far, as if an
answer began there, and the model is asked how that answer would open:

    log-odds = log P(refusal opening | text, header) - log P(fulfilment opening | text, header)

Above 0 the decoder steps in: it says a refusal and stops. Else the header is dropped from the cache
and decoding goes on as if nothing had been asked. Asking again in the middle of an answer is the
idea of Any-Depth Alignment (arXiv 2510.18081); what they read off the header, and how often, we did
not see, so both are choices of ours.

Not here: sampling, a probe of hidden states in place of the openings, taking back what was said.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp
from transformers import DynamicCache

from .errors import SsahError
from .evaluation import Answers, before_written_end, openings_after, prefilled
from .inputs.texts import as_texts
from .likelihood import check_count, check_finite, length_batches
from .models import Chat, check_chat, pad

#: What the decoder says when it steps in.
REFUSAL = "I'm sorry, but I can't help with that."
#: In `stepped_in` where it never did.
NEVER = -1
#: A request that stands for all: a header and openings have the same tokens after every one.
ANY_REQUEST = "How are you?"


@dataclass(frozen=True)
class Reevaluated(Answers):
    """Answers with a question asked on the way.

    `stepped_in`: how many new tokens stood before the refusal, int (n,); `NEVER` where the decoder
    did not step in. `looks`: a row a question: prompt (its number), at (how many new tokens stood
    before it), log_odds (nats).
    """

    stepped_in: np.ndarray
    looks: pd.DataFrame


@torch.inference_mode()
def generate_reevaluating(
    chat: Chat,
    prompts: Sequence[str],
    *,
    every: int = 10,
    inserted: str | None = None,
    refusal: str = REFUSAL,
    system: str = "default",
    prefill: str | Sequence[str] | Sequence[list[int]] = "",
    max_new_tokens: int = 32,
    batch_size: int = 50,
    progress: str | None = None,
) -> Reevaluated:
    """Greedy answers to `prompts` that the decoder may turn into a refusal every `every` tokens.

    It looks after 0, `every`, 2 `every`, ... new tokens; after 0 only where there is a prefill,
    since else the header has just been written. What it looks at is the quantity of
    `refusal_log_odds_within`; above 0 it steps in, which ends the answer with the text `refusal`.
    Where it never steps in, the answer is that of `ssah.generate`, token for token.

    `inserted`: for a control, a neutral text in place of the header, of which as many tokens are
    taken as the header has; so the model is asked in the same places. `system`, `prefill` (no part
    of the answer), `max_new_tokens` and `batch_size`: as of `ssah.generate`.

    Raises `SsahError` for no prompts, a period below 1, a chat template without an assistant
    header, a neutral text that is shorter than the header, a tokenizer without the openings' words,
    texts that the context cannot hold, and logits that are not finite.
    """
    check_chat(chat)
    prompts = as_texts(prompts, "prompts")
    if not prompts:
        raise SsahError("no prompts to answer")
    check_count("every", every)
    check_count("max_new_tokens", max_new_tokens)
    question = question_of(chat, inserted)
    heads = prefilled(chat, prompts, prefill, system)
    _check_room(chat, heads, question, max_new_tokens)
    answering = _answering(chat, prompts, heads, system)
    for rows in length_batches(heads, batch_size, progress):
        batch = [answering[row] for row in rows]
        _answer(chat, [heads[row] for row in rows], batch, question, every, max_new_tokens)
    return _collected(chat, answering, refusal)


@torch.inference_mode()
def refusal_log_odds_within(
    chat: Chat,
    prompts: Sequence[str],
    *,
    inserted: str | None = None,
    system: str = "default",
    prefill: str | Sequence[str] | Sequence[list[int]] = "",
    batch_size: int = 32,
) -> np.ndarray:
    """Refusal log-odds (n,), nats, after a prompt, the beginning of its answer, and a header.

        log sum over refusal openings of P(opening) - log sum over fulfilment openings of P(opening)

    The openings are the short ones of `ssah.refusal_log_odds` in their usual spelling (as there
    with ``all_forms=False``); each counts with or without a space before it, whichever is likelier,
    since it may stand in the middle of a text. `inserted` stands in place of the header: a neutral
    text of which as many tokens are taken, or ``""`` for nothing at all (the answer goes on).
    Raises `SsahError` as `generate_reevaluating` does.
    """
    check_chat(chat)
    prompts = as_texts(prompts, "prompts")
    if not prompts:
        raise SsahError("no prompts to look at")
    question = question_of(chat, inserted)
    heads = prefilled(chat, prompts, prefill, system)
    _check_room(chat, heads, question, 0)
    log_odds = np.zeros(len(heads))
    for rows in length_batches(heads, batch_size):
        log_odds[rows] = Reading(chat, [heads[row] for row in rows]).asked(question)
    return log_odds


# ---- decoding --------------------------------------------------------------------------------


@dataclass
class Answering:
    """An answer on its way."""

    prompt: int                 # its number
    is_prefilled: bool
    tokens: list[int] = field(default_factory=list)     # new ones, without the end token
    has_ended: bool = False     # by itself
    stepped_in: int = NEVER
    looks: list[dict] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """Whether another token is wanted."""
        return not self.has_ended and self.stepped_in == NEVER

    def looked_at(self, log_odds: float) -> None:
        """Note what a look found, and step in where a refusal is likelier."""
        place = len(self.tokens)
        self.looks.append({"prompt": self.prompt, "at": place, "log_odds": log_odds})
        if log_odds > 0:
            self.stepped_in = place

    def says(self, chat: Chat, token: int) -> None:
        """Take another token, or the end."""
        if token in chat.stop_ids:
            self.has_ended = True
            return
        self.tokens.append(token)
        whole = before_written_end(chat, self.tokens)
        if len(whole) < len(self.tokens):       # an end that is written in several tokens
            self.tokens = whole
            self.has_ended = True


def _answering(
    chat: Chat, prompts: list[str], heads: list[list[int]], system: str
) -> list[Answering]:
    """An answer to every prompt, none of which has begun."""
    answering = []
    for number, (prompt, head) in enumerate(zip(prompts, heads)):
        rendered, _ = chat.encode(prompt, system=system)
        answering.append(Answering(number, is_prefilled=len(head) > len(rendered)))
    return answering


def _answer(
    chat: Chat,
    heads: list[list[int]],
    batch: list[Answering],
    question: "Question",
    every: int,
    max_new_tokens: int,
) -> None:
    """Decode a batch to its end; `batch`: what becomes of each head."""
    reading = Reading(chat, heads)
    for n_new in range(max_new_tokens):
        if n_new % every == 0:
            _look(reading, batch, question, n_new)
        if not any(state.goes_on for state in batch):
            return
        newest = reading.likeliest()
        for state, token in zip(batch, newest.tolist()):
            if state.goes_on:
                state.says(chat, token)
        reading.read(newest)


def _look(reading: "Reading", batch: list[Answering], question: "Question", n_new: int) -> None:
    """Ask those answers that go on, and before the first new token those with a prefill alone."""
    wanted = [state.goes_on and (n_new > 0 or state.is_prefilled) for state in batch]
    if not any(wanted):
        return
    for state, is_wanted, log_odds in zip(batch, wanted, reading.asked(question)):
        if is_wanted:
            state.looked_at(float(log_odds))


def _collected(chat: Chat, answering: list[Answering], refusal: str) -> Reevaluated:
    """What became of all answers, with the refusal where the decoder stepped in."""
    texts = []
    tokens = []
    for state in answering:
        said = state.tokens
        text = chat.tokenizer.decode(said, skip_special_tokens=True)
        if state.stepped_in != NEVER:
            after_text = f" {refusal}" if said else refusal
            said = said + chat.tokenizer.encode(after_text, add_special_tokens=False)
            text += after_text
        texts.append(text)
        tokens.append(said)
    looks = [look for state in answering for look in state.looks]
    return Reevaluated(
        texts,
        tokens,
        np.array([not state.goes_on for state in answering]),
        np.array([state.stepped_in for state in answering]),
        pd.DataFrame(looks, columns=["prompt", "at", "log_odds"]),
    )


# ---- the question ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """What is read behind a text to ask how an answer would open.

    `inserted`: token ids of the header, or of what stands in its place. `refusal`, `fulfilment`:
    openings, each a list of its forms (token ids).
    """

    inserted: list[int]
    refusal: list[list[tuple[int, ...]]]
    fulfilment: list[list[tuple[int, ...]]]

    @cached_property
    def beginnings(self) -> list[tuple[int, ...]]:
        """Every proper beginning of an opening, once, the shortest first.

        Openings that begin alike share it, and what follows an opening's last token is not asked.
        """
        found = set()
        for form in self._forms:
            found |= {form[:length] for length in range(1, len(form))}
        return sorted(found, key=lambda beginning: (len(beginning), beginning))

    @property
    def _forms(self) -> list[tuple[int, ...]]:
        return [form for opening in self.refusal + self.fulfilment for form in opening]

    @cached_property
    def ids(self) -> list[int]:
        """All tokens to read, (asked,): what is inserted, and the last token of each beginning."""
        return self.inserted + [beginning[-1] for beginning in self.beginnings]

    @cached_property
    def places(self) -> torch.Tensor:
        """How far behind the text each token stands, (asked,): beginnings stand side by side."""
        n_inserted = len(self.inserted)
        behind = [n_inserted + len(beginning) - 1 for beginning in self.beginnings]
        return torch.tensor([*range(n_inserted), *behind], dtype=torch.long)

    @cached_property
    def seen(self) -> torch.Tensor:
        """Who (row) sees whom (column) of them, Boolean (asked, asked).

        A beginning sees what is inserted and what it begins with itself.
        """
        n_inserted = len(self.inserted)
        seen = torch.ones(len(self.ids), len(self.ids), dtype=torch.bool).tril()
        for row, beginning in enumerate(self.beginnings):
            for column, other in enumerate(self.beginnings):
                is_part = beginning[:len(other)] == other
                seen[n_inserted + row, n_inserted + column] = is_part
        return seen

    def log_odds(self, log_probs: torch.Tensor) -> float:
        """Refusal log-odds (nats) from log-probabilities (1 + beginnings, vocabulary).

        The first row predicts what follows `inserted`, the others what follows each beginning.
        """
        row_of = {(): 0}
        for row, beginning in enumerate(self.beginnings, start=1):
            row_of[beginning] = row
        sums = []
        for openings in (self.refusal, self.fulfilment):
            likeliest = []
            for forms in openings:
                likeliest.append(max(_log_prob(form, log_probs, row_of) for form in forms))
            sums.append(logsumexp(likeliest))
        refusal, fulfilment = sums
        return float(refusal - fulfilment)


def _log_prob(form: tuple[int, ...], log_probs: torch.Tensor, row_of: dict) -> float:
    """Log-probability of an opening, token after token."""
    return sum(float(log_probs[row_of[form[:n]], token]) for n, token in enumerate(form))


def question_of(chat: Chat, inserted: str | None = None) -> Question:
    """The question that a chat is asked: by its header (None), after a neutral text, or as it is.

    `inserted` and errors: see `refusal_log_odds_within`.
    """
    refusal, fulfilment = _openings(chat)
    if inserted == "":
        return Question([], refusal, fulfilment)
    header = assistant_header(chat)
    if inserted is None:
        return Question(header, refusal, fulfilment)
    neutral = chat.tokenizer.encode(f" {inserted.strip()}", add_special_tokens=False)
    if len(neutral) < len(header):
        raise SsahError(
            f"the neutral text {inserted!r} has {len(neutral)} tokens and the header has "
            f"{len(header)}; give a longer text"
        )
    return Question(neutral[:len(header)], refusal, fulfilment)


def assistant_header(chat: Chat) -> list[int]:
    """The tokens that the chat template writes between a request and its answer.

    Raises `SsahError` for a template that writes none there.
    """
    request = [{"role": "user", "content": ANY_REQUEST}]
    before = chat.template._written(request, answer_follows=False)
    whole = chat.render(ANY_REQUEST)
    if not whole.startswith(before) or whole == before:
        raise SsahError(
            f"the chat template of {chat.name!r} writes no assistant header between a request and "
            "its answer, so the model cannot be asked again; take a model whose template has one "
            "(ChatML, Llama 3, Gemma)"
        )
    ids, _ = chat.encode(ANY_REQUEST)
    ids_before = chat.tokenizer.encode(before, add_special_tokens=False)
    return ids[len(os.path.commonprefix([ids, ids_before])):]


def _openings(chat: Chat) -> tuple[list[list[tuple]], list[list[tuple]]]:
    """The openings of a refusal and of a fulfilment, a list of its forms each."""
    after = openings_after(chat, ANY_REQUEST, all_forms=False)
    if after.head != chat.encode(ANY_REQUEST)[0]:
        raise SsahError(
            f"the chat template of {chat.name!r} joins the end of a prompt and the beginning of an "
            "answer into one token, so the model cannot be asked in the middle of a text"
        )
    kinds = []
    for openings in (after.refusal, after.fulfilment):
        kinds.append([_with_and_without_space(chat, forms[0]) for forms in openings])
    refusal, fulfilment = kinds
    return refusal, fulfilment


def _with_and_without_space(chat: Chat, usual: list[int]) -> list[tuple[int, ...]]:
    """An opening as it begins an answer, and as it stands after a space."""
    text = chat.tokenizer.decode(usual).strip()
    spaced = chat.tokenizer.encode(f" {text}", add_special_tokens=False)
    return list(dict.fromkeys([tuple(usual), tuple(spaced)]))


# ---- reading with a cache --------------------------------------------------------------------


class Reading:
    """A batch of texts that a model has read, with the cache of what it has seen.

    `newest`: the last hidden state of each text, (text, hidden).
    """

    def __init__(self, chat: Chat, texts: list[list[int]]):
        self.chat = chat
        self.cache = DynamicCache()     # all of it, also for layers with a sliding window
        batch = pad(texts, chat.tokenizer.pad_token_id, "left", chat.model.device)
        self.mask = batch["attention_mask"]
        # padding comes first and has the position 0
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        self.newest = self._states(batch["input_ids"], self.mask, positions)[:, -1]

    @property
    def lengths(self) -> torch.Tensor:
        """How many tokens each text has, (text,)."""
        return self.mask.sum(-1)

    def likeliest(self) -> torch.Tensor:
        """The likeliest next token of each text, (text,)."""
        logits = self.chat.model.lm_head(self.newest)
        check_finite(self.chat, "the logits", logits)
        return logits.float().argmax(-1)

    def read(self, tokens: torch.Tensor) -> None:
        """Read one more token of each text, (text,)."""
        positions = self.lengths[:, None]
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        self.newest = self._states(tokens[:, None], self.mask, positions)[:, -1]

    def asked(self, question: Question) -> np.ndarray:
        """Refusal log-odds (text,), nats, by one forward pass; the cache stays as it was."""
        n_texts = len(self.mask)
        states = self.newest[:, None]       # predicts what follows where nothing is inserted
        if question.ids:
            ids = torch.tensor(question.ids, device=self.mask.device).expand(n_texts, -1)
            positions = self.lengths[:, None] + question.places.to(self.mask.device)
            behind = self._states(ids, self._bias(question), positions)
            states = torch.cat([states, behind], dim=1)
            self.cache.crop(-len(question.ids))
        log_odds = []
        for of_text in states[:, len(question.inserted):]:
            log_probs = self.chat.model.lm_head(of_text).float().log_softmax(-1)
            check_finite(self.chat, "the log-probabilities", log_probs[:, 0])
            log_odds.append(question.log_odds(log_probs.cpu()))
        return np.array(log_odds)

    def _bias(self, question: Question) -> torch.Tensor:
        """What is added to attention scores, (text, 1, asked, read + asked): lowest = not seen."""
        seen_before = self.mask.bool()[:, None].expand(-1, len(question.ids), -1)
        seen_behind = question.seen.to(self.mask.device).expand(len(self.mask), -1, -1)
        seen = torch.cat([seen_before, seen_behind], dim=-1)
        bias = torch.zeros(seen.shape, dtype=self.chat.model.dtype, device=seen.device)
        return bias.masked_fill(~seen, torch.finfo(bias.dtype).min)[:, None]

    def _states(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Last hidden states (text, time, hidden) of the next tokens, which the cache takes up."""
        return self.chat.model.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state


# ---- what cannot be meant --------------------------------------------------------------------


def _check_room(
    chat: Chat, heads: list[list[int]], question: Question, max_new_tokens: int
) -> None:
    """`SsahError` where the context, or a sliding window, cannot hold a text and the question."""
    config = chat.model.config
    window = getattr(config, "sliding_window", None) or config.max_position_embeddings
    room = min(window, config.max_position_embeddings)
    needed = max_new_tokens + len(question.ids)
    for number, head in enumerate(heads):
        if len(head) + needed > room:
            raise SsahError(
                f"prompt {number} with its prefill has {len(head)} tokens, and {needed} more are "
                f"needed, but the model sees only {room} at once; shorten the prefill or "
                "max_new_tokens"
            )

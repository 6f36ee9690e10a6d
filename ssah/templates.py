"""What a chat template writes: before a prompt, between prompt and answer, and after an answer.

A template is a program that comes with a model. It is asked here, never guessed at:

- the *end of an answer* is what it writes after one: ``<|im_end|>``, ``<end_of_turn>``, ``</s>``;
- *thinking* is switched off where it has a switch for that, and refused where it has none;
- the *date* that some templates write is pinned, so that a prompt is the same tomorrow;
- *control tokens* in the texts of users are kept apart from those of the template: they are marked,
  and `Chat` encodes them as the plain text that they are.
"""

import datetime
import re
from dataclasses import dataclass
from functools import cached_property

from transformers.utils.chat_template_utils import mark_control_tokens

from .errors import SsahError

#: The day on which every prompt is written: the one that Llama 3.1's template falls back to.
DATE = datetime.date(2024, 7, 26)

#: What a template may ask of a date.
DATE_PARTS = "%d %-d %m %b %B %y %Y %a %A %j %H %I %M %S %p".split()

#: What templates call the switch for thinking.
THINKING_SWITCHES = ("enable_thinking", "thinking")

#: What opens a thought, and what closes one.
THOUGHT_OPENED = re.compile(r"<think(ing)?>|<thought>|\[THINK\]|<\|START_THINKING\|>")
THOUGHT_CLOSED = re.compile(r"</think(ing)?>|</thought>|\[/THINK\]|<\|END_THINKING\|>")

#: Texts that no one writes: where one comes out again shows what the template puts around it.
SYSTEM = "\u00a7system\u00a7"
ANSWER = "\u00a7answer\u00a7"

#: What `mark_control_tokens` puts around a control token.
MARKS = re.compile("[\U000f0000\U000f0001]")
MARKED_TOKEN = re.compile("\U000f0000(.)(.*?)\U000f0001")


@dataclass(frozen=True)
class AroundAnswer:
    """What a template puts around an answer."""

    #: between the prompt as it is rendered for an answer, and the answer; a space in Llama 2
    separator: str
    #: after the answer, up to and with the token that ends it
    end: str
    #: that token alone, or None where the end is written in several
    end_token: str | None
    #: whether blanks around an answer are left out
    trims: bool


class Template:
    """The chat template of a tokenizer, of a model called `name`."""

    def __init__(self, tokenizer, name: str, thinking: bool = False):
        self.tokenizer = tokenizer
        self.name = name
        self.thinking = thinking
        self.source = _with_pinned_date(tokenizer.get_chat_template())
        self._check_thinking()

    # ---- before an answer ----

    def opening(self, prompt: str, system: str = "default") -> str:
        """The prompt up to where the answer begins, control tokens of the texts marked.

        `system` is ``"default"`` (what the template inserts by itself, if anything), ``"none"``
        (the block is absent) or the text of a system prompt.
        """
        for what, text in (("prompt", prompt), ("system prompt", system)):
            if not isinstance(text, str):
                raise SsahError(f"a {what} is a text; got {text!r}")
        user = {"role": "user", "content": self.marked(prompt)}
        if system == "default":
            return self._written([user])
        if system == "none":
            return self._without_system(user)
        try:
            return self._written([{"role": "system", "content": self.marked(system)}, user])
        except Exception as error:  # templates raise their own error types
            raise SsahError(
                f"the chat template of {self.name!r} takes no system prompt ({error}); "
                'leave system="default", or put the text before the prompt'
            ) from error

    def _written(self, messages: list[dict], answer_follows: bool = True) -> str:
        return self.tokenizer.apply_chat_template(
            messages,
            chat_template=self.source,
            tokenize=False,
            add_generation_prompt=answer_follows,
            date_string=DATE.strftime("%d %b %Y"),
            **{switch: self.thinking for switch in self._switches},
        )

    def _without_system(self, user: dict) -> str:
        """Written with a marked system prompt, whose block is then cut off the front."""
        plain = self._written([user])
        system = {"role": "system", "content": SYSTEM}
        try:
            block = self._written([system], answer_follows=False)
            whole = self._written([system, user])
        except Exception:  # templates without a system role raise their own error types
            return plain
        if SYSTEM in block and whole.startswith(block):
            tail = whole[len(block):]
        else:
            before, _, after = whole.partition(SYSTEM)
            if not (after and plain.startswith(before) and plain.endswith(after)):
                return plain        # nothing is inserted
            tail = self._second_turn(user)
        start = self.tokenizer.bos_token or ""
        if plain.startswith(start) and not tail.startswith(start):
            # the begin-of-text mark stood in front of the block that was cut off
            return start + tail
        return tail

    def _second_turn(self, user: dict) -> str:
        """The second of two user turns: where the first holds the system prompt (Llama 2)."""
        first = [user, {"role": "assistant", "content": SYSTEM}]
        opening = self._written(first, answer_follows=False)
        both = self._written([*first, user])
        if not both.startswith(opening):
            raise SsahError(
                f"the system prompt that the template of {self.name!r} inserts cannot be left out"
            )
        return both[len(opening):].lstrip()

    # ---- an answer ----

    def answer(self, text: str, goes_on: bool = False) -> str:
        """A whole answer as it follows the opening, with its end; an end that it has counts.

        With `goes_on` it follows other words of an answer: blanks before it stay.
        """
        if not isinstance(text, str):
            raise SsahError(f"an answer is a text; got {text!r}")
        around = self.around_answer
        text = self._without_end(text)
        if around.trims:
            text = text.rstrip()
        return self._after_opening(text, goes_on) + around.end

    def beginning(self, text: str, goes_on: bool = False) -> str:
        """The beginning of an answer as it follows the opening; `goes_on`: see `answer`."""
        return self._after_opening(text, goes_on) if text else ""

    def _after_opening(self, text: str, goes_on: bool) -> str:
        """A text with what the template puts before an answer, unless it only goes on with one."""
        if goes_on:
            return self.marked(text)
        if self.around_answer.trims:
            text = text.lstrip()
        return self.around_answer.separator + self.marked(text)

    @cached_property
    def around_answer(self) -> AroundAnswer:
        """What the template puts around an answer; if it writes no end, that of the tokenizer."""
        user = {"role": "user", "content": "hi"}
        padded = f"  {ANSWER}  "
        opening = self._written([user])
        answer = {"role": "assistant", "content": padded}
        whole = self._written([user, answer], answer_follows=False)
        trims = padded not in whole
        before, _, after = whole.partition(ANSWER if trims else padded)
        separator = before[len(opening):] if before.startswith(opening) else ""
        token = self._control_tokens.search(after)
        if token:
            return AroundAnswer(separator, after[:token.end()], token.group(), trims)
        if after.strip():       # an end in plain text
            return AroundAnswer(separator, after.rstrip(), None, trims)
        end_token = self.tokenizer.eos_token
        return AroundAnswer(separator, end_token or "", end_token, trims)

    def _without_end(self, text: str) -> str:
        """An answer without the end tokens that it may have brought along."""
        ends = {self.around_answer.end.strip(), self.tokenizer.eos_token or ""} - {""}
        stripped = text.rstrip()
        for end in ends:
            if stripped.endswith(end):
                return self._without_end(stripped.removesuffix(end))
        return text

    # ---- control tokens ----

    def marked(self, text: str) -> str:
        """A user's text with its control tokens marked, so that they are encoded as plain text."""
        return mark_control_tokens(text, self._control_tokens)

    @cached_property
    def _control_tokens(self) -> re.Pattern:
        """Special tokens and added ones that the template writes, but not the marks of thoughts."""
        tokens = []
        for token in self.tokenizer.added_tokens_decoder.values():
            text = token.content
            if THOUGHT_OPENED.fullmatch(text) or THOUGHT_CLOSED.fullmatch(text):
                continue
            if token.special or (text in self.source and not text.isspace()):
                tokens.append(text)
        longest_first = sorted(tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    # ---- thinking ----

    @cached_property
    def _switches(self) -> list[str]:
        """The switches for thinking that the template has."""
        found = []
        for name in THINKING_SWITCHES:
            # a variable, not a word in a text nor a part of another variable
            if re.search(rf"(?<![\w.'\"]){name}(?![\w'\"])", self.source):
                found.append(name)
        return found

    def _check_thinking(self) -> None:
        thinks = bool(THOUGHT_OPENED.search(self.source) or THOUGHT_CLOSED.search(self.source))
        if self.thinking and not (self._switches or thinks):
            raise SsahError(
                f"the chat template of {self.name!r} knows no thinking; leave thinking=True out"
            )
        if not self.thinking and thinks and not self._thoughts_are_off():
            raise SsahError(
                f"{self.name!r} always thinks before it answers: its chat template has no switch "
                "for that. Take a model that can answer at once, or pass thinking=True (then its "
                "thoughts are part of the answers that are measured)"
            )

    def _thoughts_are_off(self) -> bool:
        """Whether an answer begins without a thought: by a switch, or after one that is closed."""
        opening = self._written([{"role": "user", "content": "hi"}])
        opened = [match.end() for match in THOUGHT_OPENED.finditer(opening)]
        closed = [match.end() for match in THOUGHT_CLOSED.finditer(opening)]
        if opened and max(opened) > max(closed, default=0):
            return False
        return bool(self._switches or closed)


def _with_pinned_date(source: str) -> str:
    """A template in which `strftime_now` gives the parts of `DATE`, as a macro of its own."""
    if "strftime_now" not in source:
        return source
    parts = "".join(f".replace('{part}', '{DATE.strftime(part)}')" for part in DATE_PARTS)
    macro = "{% macro strftime_now(format) %}{{ format" + parts + " }}{% endmacro %}"
    # the empty expression keeps a newline at the beginning of the template
    return macro + "{{ '' }}" + source


def without_marks(text: str) -> str:
    """A rendered text as people read it."""
    return MARKS.sub("", text)


def with_broken_tokens(text: str) -> str:
    """A rendered text with a zero-width space in its marked tokens, so that they are none."""
    return without_marks(MARKED_TOKEN.sub("\\1\u200b\\2", text))

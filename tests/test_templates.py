"""How texts become tokens: prompt and answer together, as the chat template writes them.

The tokenizers are small ones of the shapes that people bring: SentencePiece (Llama 2), byte-level
BPE (SmolLM2, Qwen), and the end of turn of Gemma.
"""

import numpy as np
import pytest
import torch
from conftest import FAMILIES, random_model
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as word_models
from transformers import GenerationConfig, PreTrainedTokenizerFast

from ssah.errors import SsahError
from ssah.catalog import load_chat_model
from ssah.models import Chat, save_weights, tiny_chat
from ssah.templates import DATE

ZEPHYR = (  # TinyLlama-Chat, Zephyr: ends in a newline
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token }}[INST] {{ m['content'].strip() }} [/INST]"
    "{% else %} {{ m['content'].strip() }} {{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
COLON = (  # nothing stands between the colon, with its space, and the answer
    "{% for m in messages %}{% if m['role'] == 'user' %}Question: {{ m['content'] }}\nAnswer: "
    "{% else %}{{ m['content'] }}\n\n{% endif %}{% endfor %}"
)
NO_END = COLON.replace("{{ m['content'] }}\n\n{% endif %}", "{{ m['content'] }}{% endif %}")

ANSWERS = ["I'm sorry.", "Sure, here is how", "No.", "Here is a poem", "sorry"]
TEXTS = [
    "I'm sorry. I can not help with that.", "Sure, here is how: take the lamp.", "Here is a poem.",
    "No. Sorry, no!", "Question: how? Answer: so", "user\nHow are you?", "assistant\nI am fine",
]


def sentencepiece(template: str) -> PreTrainedTokenizerFast:
    """Llama 2's shape: a space is part of the word after it, and the first word gets one too."""
    letters = sorted(set("".join(TEXTS)) | set("<|>[]/_d"))
    words = sorted({word for text in TEXTS for word in text.replace("\n", " ").split(" ")})
    pieces = ["<unk>", "<s>", "</s>", "\n", "\u2581"]
    pieces += [f"\u2581{word}" for word in words] + words + letters
    vocabulary = [(piece, -1.0 if len(piece) > 1 else -10.0) for piece in dict.fromkeys(pieces)]
    backend = Tokenizer(word_models.Unigram(vocabulary, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        chat_template=template,
    )


def byte_level(template: str, special: list[str], **named) -> PreTrainedTokenizerFast:
    """SmolLM2's and Qwen's shape: byte-level BPE, with marks that are tokens."""
    backend = Tokenizer(word_models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **named)


def smol() -> PreTrainedTokenizerFast:
    """SmolLM2: ChatML, its end of turn is the end token too."""
    return byte_level(CHATML, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                      bos_token="<|im_start|>", eos_token="<|im_end|>")


def gemma() -> PreTrainedTokenizerFast:
    """Gemma: the template ends a turn with another token than the tokenizer a text."""
    tokenizer = byte_level(
        GEMMA, ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
        bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<bos> $A", special_tokens=[("<bos>", 2)]
    )
    return tokenizer


SHAPES = {
    "Zephyr": lambda: sentencepiece(ZEPHYR),
    "ChatML in pieces": lambda: sentencepiece(CHATML),
    "Llama 2": lambda: sentencepiece(LLAMA_2),
    "a colon": lambda: sentencepiece(COLON),
    "SmolLM2": smol,
    "Gemma": gemma,
}


def chat_of(tokenizer, model=None, **options) -> Chat:
    return Chat(model, tokenizer, "small", **options)


def words(chat: Chat, ids: list[int]) -> list[str]:
    return chat.tokenizer.convert_ids_to_tokens(ids)


def ids_of(chat: Chat, text: str) -> list[int]:
    return chat.tokenizer(text, add_special_tokens=False)["input_ids"]


# ---- together --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_prompt_and_answer_are_the_tokens_of_the_conversation(shape, answer):
    """As transformers writes and tokenizes it whole, up to the end of the answer."""
    chat = chat_of(SHAPES[shape]())
    conversation = [
        {"role": "user", "content": "How are you?"}, {"role": "assistant", "content": answer}
    ]
    whole = chat.tokenizer.apply_chat_template(conversation, return_dict=False)
    head, tail = chat.encode("How are you?", answer)
    if shape == "a colon":      # whose template writes no end; it is given one
        assert tail.pop() == chat.tokenizer.eos_token_id
    assert whole[:len(head) + len(tail)] == head + tail
    rest = chat.tokenizer.decode(whole[len(head) + len(tail):])
    assert rest.strip() == ""
    assert chat.tokenizer.decode(tail).strip().startswith(answer)
    assert head == chat.encode("How are you?")[0] or shape == "a colon"


def test_an_answer_after_a_newline_has_no_space_before_its_first_word():
    chat = chat_of(sentencepiece(ZEPHYR))
    assert words(chat, chat.encode("How?", "I'm sorry.")[1]) == ["I'm", "\u2581sorry.", "</s>"]
    assert words(chat, ids_of(chat, "I'm sorry."))[0] == "\u2581I'm"     # by itself it has one


def test_an_answer_of_llama_2_begins_with_the_space_that_its_template_writes():
    chat = chat_of(sentencepiece(LLAMA_2))
    assert words(chat, chat.encode("How?", "I'm sorry.")[1])[:2] == ["\u2581I'm", "\u2581sorry."]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("system", ("default", "none"))
def test_continuations_share_a_head_and_are_what_their_texts_are_in_context(shape, system):
    chat = chat_of(SHAPES[shape]())
    head, tails = chat.continuations("How are you?", ANSWERS, system)
    separator = " " if shape == "Llama 2" else ""
    for answer, tail in zip(ANSWERS, tails, strict=True):
        assert head + tail == ids_of(chat, chat.render("How are you?", system) + separator + answer)
    alone = chat.encode("How are you?", system=system)[0]
    assert alone[:len(head)] == head and len(alone) - len(head) <= 1


def test_what_joins_the_prompt_shortens_the_head_for_all():
    """The space at the end of the prompt joins "No.", a known word with its space, and no dash."""
    chat = chat_of(sentencepiece(COLON))
    alone = words(chat, chat.encode("how?")[0])
    assert alone[-1] == "\u2581"
    for texts, expected in (
        (["No.", "-"], [["\u2581No."], ["\u2581", "<unk>"]]),
        (["-", "/"], [["<unk>"], ["/"]]),
    ):
        head, tails = chat.continuations("how?", texts)
        assert [words(chat, tail) for tail in tails] == expected
        assert words(chat, head) == (alone[:-1] if "No." in texts else alone)


def test_an_empty_beginning_has_no_tokens():
    chat = chat_of(sentencepiece(LLAMA_2))
    assert chat.continuations("How?", [""]) == (chat.encode("How?")[0], [[]])
    assert chat.continuations("How?", []) == (chat.encode("How?")[0], [])


@pytest.mark.parametrize("make", (smol, lambda: tiny_chat().tokenizer), ids=("SmolLM2", "tiny"))
@pytest.mark.parametrize("system", ("default", "none", "you help"))
def test_for_the_models_of_this_repository_tokens_are_those_of_the_parts(make, system):
    """Their templates end in a token or a newline that joins nothing: nothing changed for them."""
    chat = chat_of(make())
    for answer in [*ANSWERS, *TEXTS, " a poem ", "x", "\u00dcn\u00efcode \u2019"]:
        head, tail = chat.encode("How are you?", answer, system)
        assert head == ids_of(chat, chat.render("How are you?", system))
        assert tail == ids_of(chat, answer) + [chat.tokenizer.eos_token_id]
        assert chat.continuations("How are you?", [answer], system) == (head, [tail[:-1]])
        assert chat.plain(answer) == ids_of(chat, answer)
    assert chat.stop_ids == [chat.tokenizer.eos_token_id]


# ---- the end of an answer --------------------------------------------------------------------


def test_the_end_is_the_one_that_the_template_writes():
    chat = chat_of(gemma(), random_model(FAMILIES["Llama"]()))
    assert words(chat, chat.encode("How?", "No.")[1])[-1] == "<end_of_turn>"
    chat.model.generation_config = GenerationConfig(eos_token_id=[7, 1])
    assert chat.stop_ids == [1, 4, 7]       # <eos>, <end_of_turn>, and one of the generation config
    chat.model.generation_config = GenerationConfig(eos_token_id=9)
    assert chat.stop_ids == [1, 4, 9]
    chat.model.generation_config = GenerationConfig()
    assert chat.stop_ids == [1, 4]


def test_a_fine_tune_whose_end_token_stayed_another_is_trained_on_its_templates():
    tokenizer = smol()
    tokenizer.eos_token = "<|endoftext|>"
    chat = chat_of(tokenizer)
    assert words(chat, chat.encode("How?", "No.")[1])[-1] == "<|im_end|>"
    assert chat.stop_ids == tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])


def test_a_mark_that_is_an_added_token_but_no_special_one_ends_an_answer_too():
    tokenizer = byte_level(CHATML, ["<|endoftext|>"], eos_token="<|endoftext|>")
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=False)])
    chat = chat_of(tokenizer)
    assert words(chat, chat.encode("How?", "No.")[1])[-1] == "<|im_end|>"
    assert chat.stop_ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_an_end_in_pieces_is_trained_in_pieces():
    chat = chat_of(sentencepiece(CHATML))
    tail = words(chat, chat.encode("How?", "No.")[1])
    assert tail[0] == "No." and "".join(tail[1:]) == "<|im_end|>"
    assert chat.stop_ids == [chat.tokenizer.eos_token_id]


def test_a_template_without_an_end_is_given_that_of_the_tokenizer():
    chat = chat_of(sentencepiece(NO_END))
    assert words(chat, chat.encode("How?", "No.")[1])[-1] == "</s>"


@pytest.mark.parametrize(
    "shape, end",
    [("SmolLM2", "<|im_end|>"), ("SmolLM2", "<|im_end|>\n"), ("SmolLM2", " <|im_end|><|im_end|>"),
     ("Gemma", "<end_of_turn>"), ("Gemma", "<eos>"), ("Gemma", "<end_of_turn>\n<eos>"),
     ("Llama 2", " </s>"), ("Zephyr", "</s>")],
)
def test_an_end_that_the_answer_brings_along_is_trained_once(shape, end):
    chat = chat_of(SHAPES[shape]())
    bare, ended = chat.encode("How?", "No."), chat.encode("How?", "No." + end)
    if end.startswith(" <|"):       # the space was part of the answer
        bare = chat.encode("How?", "No. ")
    assert ended == bare
    assert sum(token in chat.stop_ids for token in ended[1]) == 1


# ---- control tokens --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ("SmolLM2", "Gemma", "Zephyr"))
@pytest.mark.parametrize("system", ("default", "none"))
def test_control_tokens_in_texts_are_encoded_as_the_text_that_they_are(shape, system):
    """No turn can be forged: the number of marks is that of a conversation without them."""
    chat = chat_of(SHAPES[shape]())
    special = set(chat.tokenizer.all_special_ids) - {chat.tokenizer.unk_token_id}
    forged = "".join(chat.tokenizer.all_special_tokens)
    count = [sum(token in special for token in ids) for ids in chat.encode("x", "y", system)]
    head, tail = chat.encode(f"x {forged} x", f"y {forged} y", system)
    assert [sum(token in special for token in ids) for ids in (head, tail)] == count
    if shape != "Zephyr":       # its small vocabulary has the marks as plain words too
        assert forged in chat.tokenizer.decode(head) and forged in chat.tokenizer.decode(tail)
    assert f"x {forged} x" in chat.render(f"x {forged} x", system)      # no mark of ours is seen
    assert not special & set(chat.continuations("x", [forged])[1][0])
    assert not special & set(chat.plain(f"x {forged}")[1:])


def test_control_tokens_in_a_system_prompt_are_text_too():
    chat = chat_of(smol())
    plain, forged = chat.encode("x", system="y"), chat.encode("x", system="y <|im_end|> y")
    end = chat.tokenizer.eos_token_id
    assert plain[0].count(end) == forged[0].count(end) == 2


# ---- plain text, dates, thinking -------------------------------------------------------------


def test_plain_text_has_the_begin_token_where_the_tokenizer_puts_one():
    assert words(chat_of(gemma()), chat_of(gemma()).plain("No."))[0] == "<bos>"
    chat = chat_of(sentencepiece(ZEPHYR))
    assert chat.plain("I'm sorry.") == chat.tokenizer("I'm sorry.")["input_ids"]
    assert words(chat, chat.plain("I'm sorry."))[0] == "<s>"


def test_an_end_token_that_the_tokenizer_puts_is_no_part_of_plain_text():
    tokenizer = sentencepiece(ZEPHYR)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    chat = chat_of(tokenizer)
    assert words(chat, chat.plain("I'm sorry.")) == ["<s>", "\u2581I'm", "\u2581sorry."]


DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "<|im_start|>system\nToday: {{ date_string }}, {{ strftime_now('%Y-%m-%d') }}<|im_end|>\n"
) + CHATML


def test_the_date_in_a_template_is_pinned():
    tokenizer = smol()
    tokenizer.chat_template = DATED
    assert f"Today: {DATE:%d %b %Y}, {DATE:%Y-%m-%d}<" in chat_of(tokenizer).render("How?")
    assert f"{DATE:%Y}" == "2024"


SWITCH = CHATML.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}",
)
ALWAYS = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
CUTS_THOUGHTS = CHATML.replace(
    "{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] }}"
)
DEAF = ALWAYS.replace("{% for", "{% set unused = enable_thinking %}{% for", 1)


def thinker(template: str, **options) -> Chat:
    tokenizer = smol()
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = template
    return chat_of(tokenizer, **options)


def test_thinking_is_off_through_the_template_unless_asked_for():
    assert thinker(SWITCH).render("How?").endswith("assistant\n<think>\n\n</think>\n\n")
    assert thinker(SWITCH, thinking=True).render("How?").endswith("assistant\n")
    head, tail = thinker(SWITCH).encode("How?", "No.")
    assert words(thinker(SWITCH), tail)[-1] == "<|im_end|>"
    assert head == thinker(SWITCH).encode("How?")[0]


@pytest.mark.parametrize("template", (ALWAYS, CUTS_THOUGHTS, DEAF), ids=("opens", "cuts", "deaf"))
def test_a_model_that_always_thinks_is_refused_unless_it_may(template):
    with pytest.raises(SsahError, match="'small' always thinks .* no switch .*pass thinking=True"):
        thinker(template).render("How?")
    assert thinker(template, thinking=True).render("How?")


def test_a_model_that_cannot_think_is_not_asked_to():
    with pytest.raises(SsahError, match="knows no thinking; leave thinking=True out"):
        chat_of(smol(), thinking=True).encode("How?")
    with pytest.raises(SsahError, match="knows no thinking"):
        load_chat_model("tiny", thinking=True)


def test_thinking_is_set_when_a_model_is_loaded(chat, tmp_path):
    template = chat.tokenizer.chat_template
    chat.tokenizer.chat_template = template + "{% if enable_thinking %}think{% else %}{% endif %}"
    chat.tokenizer.chat_template += "{# <think> </think> #}"
    save_weights(chat, tmp_path / "model")
    folder = str(tmp_path / "model")
    assert load_chat_model(folder, thinking=True).render("sing").endswith("think")
    assert not load_chat_model(folder).render("sing").endswith("think")
    chat.tokenizer.chat_template = template + "<think>"
    save_weights(chat, tmp_path / "model")
    with pytest.raises(SsahError, match="always thinks"):
        load_chat_model(folder)


def test_a_thought_in_an_answer_keeps_its_marks():
    chat = thinker(SWITCH, thinking=True)
    tail = chat.encode("How?", "<think>so</think>No.")[1]
    assert words(chat, tail)[0] == "<think>" and "</think>" in words(chat, tail)


# ---- tokens that the model does not have -----------------------------------------------------


def test_a_padding_token_without_a_row_is_replaced_by_one_that_has_one(chat, prompts):
    """Padding is masked, so the scores are what they were."""
    from ssah.attribution import importance, scoring_batches

    expected = importance(chat.model, scoring_batches(chat, prompts, ["no"] * len(prompts)))
    chat.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert chat.tokenizer.pad_token_id == chat.model.config.vocab_size
    again = Chat(chat.model, chat.tokenizer, "padded")
    batches = scoring_batches(again, prompts, ["no"] * len(prompts))
    np.testing.assert_array_equal(importance(chat.model, batches), expected)


def test_a_template_that_writes_a_token_without_a_row_is_refused(chat, tmp_path):
    chat.tokenizer.add_tokens(["<|im_end|>"])
    chat.tokenizer.chat_template = chat.tokenizer.chat_template.replace("</s>", "<|im_end|>")
    save_weights(chat, tmp_path / "model")
    with pytest.raises(SsahError, match="writes <.im_end.> .*the model has only .* tokens"):
        load_chat_model(str(tmp_path / "model"))


def test_a_system_prompt_that_a_template_does_not_take_is_refused_with_the_remedy():
    """Gemma 2's and Mistral's raise an error of their own."""
    refusing = GEMMA.replace("<start_of_turn>", "{% if m['role'] == 'system' %}"
                             "{{ raise_exception('System role not supported') }}{% endif %}"
                             "<start_of_turn>", 1)
    chat = chat_of(byte_level(refusing, ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
                              bos_token="<bos>", eos_token="<eos>"))
    assert chat.render("Hi", "none") == chat.render("Hi")
    with pytest.raises(SsahError, match='takes no system prompt .*leave system="default"'):
        chat.render("Hi", "be nice")


@pytest.mark.parametrize("arguments", [(None,), (["How?"],), ("How?", 5), ("How?", None, None)])
def test_what_is_no_text_is_refused(chat, arguments):
    with pytest.raises(SsahError, match="is a text; got"):
        chat.encode(*arguments)


def test_ids_are_plain_numbers(chat):
    head, tail = chat.encode("sing", "no")
    assert torch.tensor([head + tail]).dtype == torch.int64

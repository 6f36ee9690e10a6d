"""Chat templates by their token ids, padding, and weights on disk."""

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as word_models
from transformers import PreTrainedTokenizerFast

from ssah.errors import SsahError
from ssah.catalog import load_chat_model
from ssah.models import Chat, pad, save_weights, tiny_chat

# ---- templates -------------------------------------------------------------------------------
# Written as models ship them, with spaces around every mark, so that a word is a token.

INSERTED = "you are a friendly machine"  # what some templates put in when no system prompt is given

CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "<|im_start|> system " + INSERTED + " <|im_end|>\n{% endif %}"
    "<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
BOS_INSERTED = (
    "{{ bos_token }} <|system|> {% if messages[0]['role'] == 'system' %}"
    "{{ messages[0]['content'] }}{% set rest = messages[1:] %}"
    "{% else %}" + INSERTED + "{% set rest = messages %}{% endif %} <|end|> "
    "{% for m in rest %}<|{{ m['role'] }}|> {{ m['content'] }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
BOS = (
    "{{ bos_token }} {% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} <|end|> "
    "{% endfor %}{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set rest = messages[1:] %}"
    "{% else %}{% set system = none %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}{{ bos_token }} [INST] "
    "{% if loop.first and system is not none %}<<SYS>> {{ system }} <</SYS>> {% endif %}"
    "{{ m['content'] }} [/INST] "
    "{% else %}{{ m['content'] }} {{ eos_token }} {% endif %}{% endfor %}"
)
NO_SYSTEM_ROLE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|{{ m['role'] }}|> {{ m['content'] }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)

#: A template, and the prompt "hi" without a system block.
TEMPLATES = {
    # SmolLM2, Qwen2.5: a system block of its own, inserted when there is none
    "ChatML, inserted": (CHATML, "<|im_start|> user hi <|im_end|> <|im_start|> assistant"),
    # Llama 3: begins with a begin-of-text mark, which stands before the system block
    "BOS, inserted": (BOS_INSERTED, "<s> <|user|> hi <|end|> <|assistant|>"),
    "BOS, nothing inserted": (BOS, "<s> <|user|> hi <|end|> <|assistant|>"),
    # the system prompt stands inside the first user turn
    "Llama 2": (LLAMA_2, "<s> [INST] hi [/INST]"),
    # as it was first shipped: the same with a default system prompt
    "Llama 2, inserted": (LLAMA_2.replace("none %}{% set rest", f"'{INSERTED}' %}}{{% set rest"),
                          "<s> [INST] hi [/INST]"),
    # Gemma
    "no system role": (NO_SYSTEM_ROLE, "<|user|> hi <|end|> <|assistant|>"),
}
WITH_DEFAULT = [name for name in TEMPLATES if name.endswith(", inserted")]
WITHOUT_DEFAULT = [name for name in TEMPLATES if name not in WITH_DEFAULT]


def template_chat(name: str) -> Chat:
    """A chat without a model: rendering needs the tokenizer alone. A word is a token."""
    words = (
        "<unk> <s> </s> <|im_start|> <|im_end|> <|system|> <|user|> <|assistant|> <|end|> "
        f"[INST] [/INST] <<SYS>> <</SYS>> system user assistant hi speak like pirate {INSERTED}"
    ).split()
    tokenizer = Tokenizer(
        word_models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Chat(
        None,
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            unk_token="<unk>",
            bos_token="<s>",
            eos_token="</s>",
            chat_template=TEMPLATES[name][0],
        ),
        name,
    )


def tokens(chat: Chat, system: str) -> list[str]:
    """The rendered prompt "hi", through its token ids."""
    return chat.tokenizer.convert_ids_to_tokens(chat.encode("hi", system=system)[0])


@pytest.mark.parametrize("name", TEMPLATES)
def test_none_leaves_the_system_block_out(name):
    """Not its text, not its marks; what stands before and after it stays."""
    found = tokens(template_chat(name), "none")
    assert found == TEMPLATES[name][1].split()
    assert not set(found) & {
        *INSERTED.split(),
        "system",
        "<|system|>",
        "<<SYS>>",
        "<</SYS>>",
        "<unk>",
    }


@pytest.mark.parametrize("name", WITH_DEFAULT)
def test_default_is_what_the_template_inserts(name):
    found = tokens(template_chat(name), "default")
    assert INSERTED in " ".join(found)
    assert "<unk>" not in found


@pytest.mark.parametrize("name", WITHOUT_DEFAULT)
def test_default_is_none_where_nothing_is_inserted(name):
    assert tokens(template_chat(name), "default") == tokens(template_chat(name), "none")


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "no system role"])
def test_a_text_takes_the_place_of_the_default(name):
    found = " ".join(tokens(template_chat(name), "speak like pirate"))
    assert found.count("speak like pirate") == 1
    assert INSERTED not in found
    assert (
        found.replace("speak like pirate", INSERTED)
        == " ".join(tokens(template_chat(name), "default"))
        or name in WITHOUT_DEFAULT
    )


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompt", ["hi system", INSERTED, "<<SYS>> hi", "hi <|end|> user hi"])
def test_a_prompt_that_looks_like_a_system_block_is_kept_whole(name, prompt):
    for system in ("default", "none"):
        assert prompt in template_chat(name).render(prompt, system)


def test_a_response_ends_with_the_end_token(chat):
    head, tail = chat.encode("write a poem", "sure here is")
    assert chat.tokenizer.convert_ids_to_tokens(tail) == ["sure", "here", "is", "</s>"]
    assert head == chat.encode("write a poem")[0]
    assert chat.encode("write a poem")[1] == []


def test_the_tiny_chat_inserts_a_system_prompt_too(chat):
    """So that the smoke profile goes through the same modes as SmolLM2."""
    block = chat.tokenizer.convert_tokens_to_ids(["<s>", "system", "you", "help", "</s>"])
    default, none = (chat.encode("bake a cake", system=system)[0] for system in ("default", "none"))
    assert default == block + none
    assert chat.tokenizer.convert_ids_to_tokens(none) == [
        "<s>",
        "user",
        "bake",
        "a",
        "cake",
        "</s>",
        "<s>",
        "assistant",
    ]


# ---- padding ---------------------------------------------------------------------------------


def test_padding_is_masked_by_length_even_if_pad_is_a_real_token():
    """The pad id is 3, and so are real tokens, as with pad = eos."""
    right = pad([[3, 5, 3], [3]], 3)
    assert right["input_ids"].tolist() == [[3, 5, 3], [3, 3, 3]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    left = pad([[3, 5, 3], [7, 3]], 3, "left")
    assert left["input_ids"].tolist() == [[3, 5, 3], [3, 7, 3]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]


def test_right_padding_does_not_change_the_logits(model, sequences):
    with torch.no_grad():
        padded = model(**pad(sequences, 3)).logits
        for row, sequence in enumerate(sequences):
            alone = model(torch.tensor([sequence])).logits[0]
            torch.testing.assert_close(padded[row, : len(sequence)], alone, rtol=1e-4, atol=1e-5)


# ---- loading and saving ----------------------------------------------------------------------


def same_weights(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_tiny_chat_is_fixed_by_its_seed():
    assert same_weights(tiny_chat(3).model, tiny_chat(3).model)
    assert same_weights(load_chat_model("tiny:3").model, tiny_chat(3).model)
    assert same_weights(load_chat_model("tiny").model, tiny_chat(0).model)
    assert not same_weights(tiny_chat(3).model, tiny_chat(4).model)


def test_making_the_tiny_chat_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tiny_chat(3)
    assert torch.equal(torch.rand(3), expected)


def test_saved_weights_come_back_bit_for_bit(family_chat, tmp_path):
    save_weights(family_chat, tmp_path / "model")
    loaded = load_chat_model(str(tmp_path / "model")).model
    assert same_weights(loaded, family_chat.model)
    assert not loaded.training
    ids = torch.tensor([[5, 9, 30]])
    assert torch.equal(loaded(ids).logits, family_chat.model(ids).logits)


@pytest.mark.parametrize("system", ("default", "none", "sing a song"))
def test_tokenizer_and_template_come_back_too(chat, tmp_path, prompts, system):
    save_weights(chat, tmp_path / "model")
    loaded = load_chat_model(str(tmp_path / "model"))
    assert [loaded.encode(prompt, "sure", system) for prompt in prompts] == [
        chat.encode(prompt, "sure", system) for prompt in prompts
    ]


def test_weights_are_safetensors_and_nothing_else_stays(chat, tmp_path):
    for _ in range(2):  # saving again replaces
        save_weights(chat, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {path.suffix for path in (tmp_path / "model").iterdir()} <= {
        ".safetensors",
        ".json",
        ".jinja",
    }


def test_an_interrupted_save_leaves_the_old_weights(chat, tmp_path, monkeypatch):
    save_weights(chat, tmp_path / "model")
    other = tiny_chat(1)

    def fails(folder, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(other.tokenizer, "save_pretrained", fails)
    with pytest.raises(OSError):
        save_weights(other, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert same_weights(load_chat_model(str(tmp_path / "model")).model, chat.model)


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_weights_are_loaded_in_the_number_format_asked_for(chat, tmp_path, dtype):
    save_weights(chat, tmp_path / "model")
    for name in (str(tmp_path / "model"), "tiny:0"):
        loaded = load_chat_model(name, dtype=dtype).model
        assert {p.dtype for p in loaded.parameters()} == {getattr(torch, dtype)}
        torch.testing.assert_close(loaded.model.norm.weight.float(), chat.model.model.norm.weight)


def test_a_model_without_a_chat_template_is_refused(chat, tmp_path):
    chat.tokenizer.chat_template = None
    save_weights(chat, tmp_path / "model")
    with pytest.raises(SsahError, match="no chat template; take the chat or instruct version"):
        load_chat_model(str(tmp_path / "model"))


def test_a_tokenizer_without_a_pad_token_is_given_one(chat, tmp_path):
    chat.tokenizer.pad_token = None
    save_weights(chat, tmp_path / "model")
    loaded = load_chat_model(str(tmp_path / "model"))
    assert loaded.tokenizer.pad_token_id == loaded.tokenizer.eos_token_id == 3


@pytest.mark.parametrize("name", ("smollm3", "hub:nobody/nothing", "nobody/nothing"))
def test_an_unknown_model_is_refused_by_its_name(name):
    with pytest.raises(SsahError, match=name):
        load_chat_model(name)


def test_an_empty_folder_is_refused_by_its_name(tmp_path):
    with pytest.raises(SsahError, match=tmp_path.name):
        load_chat_model(str(tmp_path))


@pytest.mark.parametrize(
    "name, reason",
    [("advbench", "a set of prompts, not a model"), ("tiny:x", "is a number: tiny:0")],
)
def test_what_is_no_model_is_refused(name, reason):
    with pytest.raises(SsahError, match=reason):
        load_chat_model(name)


def test_damaged_weights_are_refused_naming_the_remedy(chat, tmp_path):
    save_weights(chat, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SsahError, match="could not load .*damaged, delete them"):
        load_chat_model(str(tmp_path / "model"))

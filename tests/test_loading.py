"""Model files as people have them: what loads, and what is refused with which remedy."""

import json
import re
import subprocess
import sys

import gguf
import numpy as np
import peft
import pytest
import torch
from conftest import FAMILIES, SIZES, random_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    MixtralConfig,
    SiglipVisionConfig,
)

from ssah.attribution import importance
from ssah.errors import SsahError
from ssah.loading import DTYPES, _tokenizer, open_model, parsed_device, parsed_dtype
from ssah.catalog import load_chat_model
from ssah.models import Chat, save_weights, tiny_chat

pytestmark = pytest.mark.slow

IDS = torch.tensor([[5, 9, 30, 41, 7]])


@torch.no_grad()
def logits(model):
    return model(IDS).logits.float()


@pytest.fixture
def folder(chat, tmp_path):
    """A saved model."""
    save_weights(chat, tmp_path / "model")
    return tmp_path / "model"


def change_config(folder, **settings) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


# ---- number formats and devices --------------------------------------------------------------


@pytest.mark.parametrize("dtype, expected", [
    ("bf16", torch.bfloat16), ("bfloat16", torch.bfloat16), (torch.bfloat16, torch.bfloat16),
    ("torch.bfloat16", torch.bfloat16), ("BF16", torch.bfloat16),
    ("float16", torch.float16), ("fp16", torch.float16), ("half", torch.float16),
    ("float32", torch.float32), ("fp32", torch.float32), (torch.float32, torch.float32),
])
def test_a_number_format_is_written_as_people_write_it(folder, dtype, expected):
    for name in ("tiny", str(folder)):
        model = load_chat_model(name, dtype=dtype).model
        assert {parameter.dtype for parameter in model.parameters()} == {expected}


def test_auto_is_the_number_format_of_the_files(chat, tmp_path):
    chat.model.bfloat16()
    save_weights(chat, tmp_path / "model")
    assert load_chat_model(str(tmp_path / "model"), dtype="auto").model.dtype == torch.bfloat16
    assert load_chat_model("tiny", dtype="auto").model.dtype == torch.float32


@pytest.mark.parametrize("dtype", ("int8", "4bit", torch.int64, None, 16))
def test_what_is_no_number_format_is_refused_with_the_known_ones(dtype):
    with pytest.raises(SsahError, match="unknown dtype .*known: auto, float32"):
        load_chat_model("tiny", dtype=dtype)
    assert all(parsed_dtype(name) == value for name, value in DTYPES.items())


@pytest.mark.parametrize("device", ("cpu", torch.device("cpu"), "auto"))
def test_a_device_is_written_as_people_write_it(folder, device):
    for name in ("tiny", str(folder)):
        found = load_chat_model(name, device=device).model.device
        assert found == parsed_device(device)
        assert device == "auto" or found.type == "cpu"


@pytest.mark.parametrize("device", ("gpu", "cuda:99", "cpu:x", 3.5, None, "mps:7"))
def test_a_device_that_is_not_there_is_refused(folder, device):
    with pytest.raises(SsahError, match='cannot be used here: .*; use device="cpu" or "auto"'):
        load_chat_model("tiny", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_build_without_cuda_says_so():
    with pytest.raises(SsahError, match="device 'cuda' cannot be used here: .*CUDA.*install a b"):
        load_chat_model("tiny", device="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_model_that_lies_outside_the_gpus_is_refused(folder):
    """Spread over several GPUs, as "auto" does; on a machine without any, all is outside."""
    with pytest.raises(SsahError, match="does not fit into the memory of the GPUs; take dtype="):
        open_model(str(folder), torch.float32, "auto")


# ---- adapters --------------------------------------------------------------------------------


def save_adapter(chat, folder, base: str, **settings) -> torch.Tensor:
    """Save a random adapter of the chat's model; the logits of the model that has it."""
    config = peft.LoraConfig(
        r=2, lora_alpha=8, task_type="CAUSAL_LM", init_lora_weights=False, **settings
    )
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(chat.model, config)
    config.base_model_name_or_path = base
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    expected = logits(wrapped)
    wrapped.save_pretrained(folder)
    return expected


@pytest.mark.parametrize("family", ("Llama GQA", "Phi-3", "Gemma 3"))
def test_a_lora_folder_is_merged_on_load(chat, tmp_path, capsys, batches, family):
    """Its model is an ordinary one that computes what the adapter beside it does."""
    first = Chat(random_model(FAMILIES[family]()), chat.tokenizer, "base")
    save_weights(first, tmp_path / "base")
    expected = save_adapter(first, tmp_path / "lora", str(tmp_path / "base"),
                            target_modules="all-linear")
    loaded = load_chat_model(str(tmp_path / "lora"))
    assert "is an adapter (Lora): merged into its base model" in capsys.readouterr().err
    torch.testing.assert_close(logits(loaded.model), expected, rtol=1e-4, atol=1e-4)
    assert not any("lora" in name for name, _ in loaded.model.named_modules())
    importance(loaded.model, batches)
    save_weights(loaded, tmp_path / "merged")
    again = load_chat_model(str(tmp_path / "merged"))
    assert torch.equal(logits(again.model), logits(loaded.model))


@pytest.mark.parametrize("settings", (
    dict(target_modules=["q_proj", "lm_head"]),
    dict(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    dict(target_modules=["v_proj", "embed_tokens"]),
), ids=("output map", "a whole output map", "embeddings"))
def test_an_adapter_of_a_tied_output_map_is_merged_into_it_alone(chat, tmp_path, settings):
    """It was trained on one of the two; merged into both it would be another model."""
    save_weights(chat, tmp_path / "base")
    expected = save_adapter(chat, tmp_path / "lora", str(tmp_path / "base"), **settings)
    loaded = load_chat_model(str(tmp_path / "lora"))
    torch.testing.assert_close(logits(loaded.model), expected, rtol=1e-4, atol=1e-4)
    save_weights(loaded, tmp_path / "merged")
    again = load_chat_model(str(tmp_path / "merged"))
    assert torch.equal(logits(again.model), logits(loaded.model))


def test_an_adapters_own_tokenizer_comes_along(chat, tmp_path):
    save_weights(chat, tmp_path / "base")
    save_adapter(chat, tmp_path / "lora", str(tmp_path / "base"), target_modules=["q_proj"])
    chat.tokenizer.chat_template = chat.tokenizer.chat_template.replace("you help", "help you")
    chat.tokenizer.save_pretrained(tmp_path / "lora")
    assert "help you" in load_chat_model(str(tmp_path / "lora")).render("sing")
    assert "you help" in load_chat_model(str(tmp_path / "base")).render("sing")


def test_an_adapter_that_does_not_name_its_model_is_refused(chat, tmp_path):
    save_adapter(chat, tmp_path / "lora", None, target_modules=["q_proj"])
    with pytest.raises(SsahError, match="does not say of which model; write it into base_model_na"):
        load_chat_model(str(tmp_path / "lora"))


def test_adapters_that_cannot_be_merged_are_refused(chat, tmp_path):
    save_weights(chat, tmp_path / "base")
    config = peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    peft.get_peft_model(chat.model, config).save_pretrained(tmp_path / "prefix")
    with pytest.raises(SsahError, match="an adapter .PrefixTuning. that cannot become part"):
        load_chat_model(str(tmp_path / "prefix"))


def test_a_whole_model_beside_an_adapter_is_refused(folder):
    save_adapter(tiny_chat(), folder, str(folder), target_modules=["q_proj"])
    with pytest.raises(SsahError, match="a whole model and an adapter; move one of them"):
        load_chat_model(str(folder))


def test_pickled_adapters_are_not_read(chat, tmp_path):
    save_weights(chat, tmp_path / "base")
    save_adapter(chat, tmp_path / "lora", str(tmp_path / "base"), target_modules=["q_proj"])
    weights = tmp_path / "lora" / "adapter_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(SsahError, match="only pickled weights .adapter_model.bin., which are not"):
        load_chat_model(str(tmp_path / "lora"))


# ---- GGUF ------------------------------------------------------------------------------------


def turned(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Rows of a query or key map in the order of llama.cpp, which pairs them otherwise."""
    by_head = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return by_head.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, template: str | None) -> None:
    """A Llama as llama.cpp keeps it, float32, with a byte-level tokenizer."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    letters = [chr(ord("!") + i) for i in range(config.vocab_size - 5)]
    pieces = [*letters, letters[0] + letters[1]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<pad>", "<unk>", "<s>", "</s>", *pieces])
    writer.add_token_types([3] * 4 + [1] * len(pieces))
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_pad_token_id(3)
    if template is not None:
        writer.add_chat_template(template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name.endswith("q_proj.weight"):
            tensor = turned(tensor, config.num_attention_heads)
        if name.endswith("k_proj.weight"):
            tensor = turned(tensor, config.num_key_value_heads)
        short = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(short, tensor.float().numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)


def untied_llama():
    return random_model(LlamaConfig(**SIZES, num_key_value_heads=2))


@pytest.mark.parametrize("place", ("the file", "its folder"))
@pytest.mark.parametrize("dtype", ("float32", "auto", "bfloat16"))
def test_a_gguf_file_loads_dequantized(tmp_path, place, dtype):
    model = untied_llama()
    write_gguf(tmp_path / "model.gguf", model, TEMPLATE)
    path = tmp_path / "model.gguf" if place == "the file" else tmp_path
    loaded = load_chat_model(str(path), dtype=dtype)
    close = dict(rtol=0.1, atol=0.2) if dtype == "bfloat16" else dict(rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(loaded.model), logits(model), **close)
    head, tail = loaded.encode("abc", "abc")
    assert (head[0], tail[-1]) == (2, 3)
    save_weights(loaded, tmp_path / "saved")
    assert torch.equal(logits(load_chat_model(str(tmp_path / "saved"), dtype=dtype).model),
                       logits(loaded.model))


def test_several_gguf_files_need_a_choice(tmp_path):
    for name in ("model-q4.gguf", "model-q8.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(SsahError, match="several GGUF files .model-q4.gguf, model-q8.gguf.; name"):
        load_chat_model(str(tmp_path))


def test_a_gguf_file_that_is_damaged_or_has_no_template_is_refused(tmp_path):
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF not at all")
    with pytest.raises(SsahError, match="could not load the model .*damaged.gguf"):
        load_chat_model(str(tmp_path / "damaged.gguf"))
    write_gguf(tmp_path / "plain.gguf", untied_llama(), None)
    with pytest.raises(SsahError, match="no chat template"):
        load_chat_model(str(tmp_path / "plain.gguf"))


# ---- folders ---------------------------------------------------------------------------------


def test_pickled_weights_are_not_read_and_the_remedy_works(chat, folder):
    (folder / "model.safetensors").unlink()
    torch.save(chat.model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(SsahError, match="only pickled weights .pytorch_model.bin.") as refusal:
        load_chat_model(str(folder))
    assert "damaged" not in str(refusal.value)
    command = re.search('python -c "(.*)"', str(refusal.value))[1]
    finished = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    loaded = load_chat_model(f"{folder}-safetensors")
    assert torch.equal(logits(loaded.model), logits(chat.model))


@pytest.mark.parametrize("method", ("gptq", "awq", "fp8", "bitsandbytes", "compressed-tensors"))
def test_a_quantized_model_is_refused_with_the_remedy(folder, method):
    change_config(folder, quantization_config={"quant_method": method, "bits": 4})
    message = f"is quantized .{method}., .*take the version of the model that is not quantized"
    with pytest.raises(SsahError, match=message):
        load_chat_model(str(folder))


def test_a_model_with_weights_missing_is_refused(folder):
    """They would be random numbers, and nothing would say so."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SsahError, match="not a whole model: model.layers.1.mlp.up_proj.weight is"):
        load_chat_model(str(folder))


@pytest.mark.parametrize("name, message", [
    ("", "has no .*safetensors and no .*gguf; give the folder that save_pretrained wrote"),
    ("config.json", "is one file; give a GGUF file, or the folder of the model"),
])
def test_what_holds_no_model_is_refused(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(SsahError, match=message):
        load_chat_model(str(tmp_path / "empty" / name))


@pytest.mark.parametrize("name", ("./no/model", "/no/such/model", "model.gguf", "nothing"))
def test_a_path_that_is_not_there_is_refused_without_a_list_of_data_sets(name):
    with pytest.raises(SsahError, match="there is no such path; give a hub id") as refusal:
        load_chat_model(name)
    assert "advbench" not in str(refusal.value)


@pytest.mark.parametrize("family", ("qwen2", "phi3"))
def test_a_tokenizer_is_what_its_files_say_and_not_what_its_family_has(folder, family):
    """Of a Qwen2 with words for tokens, say: transformers would read them as pieces of bytes."""
    change_config(folder, model_type=family, architectures=None)
    tokenizer = _tokenizer(folder)
    assert tokenizer.get_vocab() == tiny_chat().tokenizer.get_vocab()
    assert tokenizer.encode("sing a song") == tiny_chat().tokenizer.encode("sing a song")


def test_a_path_names_a_model_and_other_things_do_not(folder):
    assert torch.equal(logits(load_chat_model(folder).model), logits(tiny_chat().model))
    with pytest.raises(SsahError, match="named by a text or a path; got None"):
        load_chat_model(None)


def test_code_of_a_repository_is_not_run(folder):
    change_config(folder, model_type="novel", auto_map={"AutoConfig": "novel.Config"})
    (folder / "novel.py").write_text("raise SystemExit('run')")
    with pytest.raises(SsahError, match="could not load the model"):
        load_chat_model(str(folder))


def test_a_mixture_of_experts_is_refused_when_it_is_loaded(chat, tmp_path):
    config = MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=2)
    model = AutoModelForCausalLM.from_config(config)
    save_weights(Chat(model, chat.tokenizer, "m"), tmp_path / "m")
    with pytest.raises(SsahError, match="MixtralSparseMoeBlock is a mixture of experts"):
        load_chat_model(str(tmp_path / "m"))


def test_of_a_model_of_text_and_images_the_text_model_is_loaded(chat, tmp_path, batches):
    """As Gemma 3 comes from 4B on."""
    text = Gemma3TextConfig(**SIZES, num_key_value_heads=2, head_dim=8)
    vision = SiglipVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                num_attention_heads=2, image_size=28, patch_size=14)
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    torch.manual_seed(0)
    whole = Gemma3ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path / "model")
    chat.tokenizer.save_pretrained(tmp_path / "model")
    loaded = load_chat_model(str(tmp_path / "model"))
    torch.testing.assert_close(logits(loaded.model), logits(whole))
    assert np.isfinite(importance(loaded.model, batches)).all()

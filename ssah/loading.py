"""Model files as people have them: safetensors, GGUF, a LoRA folder.

Weights are never unpickled, and no code of a model's repository runs.
"""

import os
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file, find_adapter_config_file

from .errors import SsahError
from .inputs import archives, large

#: Number formats by the names that people give them; ``torch.`` before a name is left out.
DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "f32": torch.float32,
    "float": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "f16": torch.float16,
    "half": torch.float16,
    "float64": torch.float64,
    "fp64": torch.float64,
    "double": torch.float64,
}

#: Where the weights of the text model lie in a model of text and images (Gemma 3 from 4B on).
TEXT_PART = {
    r"^model\.language_model\.": "model.",
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}

#: What the files of a tokenizer call a general one, which is all in its ``tokenizer.json``.
GENERAL = ("PreTrainedTokenizerFast", "TokenizersBackend")

#: How weights that are not read are made into weights that are.
CONVERT = (
    "from transformers import AutoModelForCausalLM, AutoTokenizer; "
    "AutoModelForCausalLM.from_pretrained({old!r}, use_safetensors=False)"
    ".save_pretrained({new!r}); "
    "AutoTokenizer.from_pretrained({old!r}).save_pretrained({new!r})"
)


def parsed_dtype(dtype: str | torch.dtype) -> torch.dtype | str:
    """A number format as people write it: a torch dtype, or ``"auto"`` for that of the files."""
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    name = str(dtype).removeprefix("torch.").lower()
    if name == "auto":
        return name
    if name not in DTYPES:
        raise SsahError(f"unknown dtype {dtype!r}; known: auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def parsed_device(device: str | int | torch.device) -> torch.device | str:
    """A device as people write it: a torch device, or ``"auto"`` where several GPUs share a model.

    Raises `SsahError` for a device that is not there.
    """
    if device == "auto":
        if torch.cuda.device_count() > 1:
            return "auto"
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise SsahError(
            f"device {device!r} cannot be used here: {_first_line(error)}; "
            "use device=\"cpu\" or \"auto\", or install a build of PyTorch for that device"
        ) from error
    return found


def open_model(name: str, dtype: torch.dtype | str, device: torch.device | str) -> tuple:
    """``(model, tokenizer)`` by source name, on the device; see `ssah.load_chat_model`.

    `dtype` and `device` as `parsed_dtype` and `parsed_device` give them. Raises `SsahError` for
    whatever cannot be read, with what to do about it.
    """
    location, options = _location(name)
    try:
        adapter = None
        if not location.endswith(".gguf"):
            adapter = find_adapter_config_file(location, **options)
        if adapter is None:
            return _whole_model(name, location, options, dtype, device)
        return _merged(name, location, options, Path(adapter), dtype, device)
    except SafetensorError as error:
        raise SsahError(
            f"could not load the model {name!r}: {_first_line(error)} "
            f"(if its files in {location} are damaged, delete them)"
        ) from error
    except SsahError:
        raise
    except Exception as error:      # files can be wrong in any way
        raise SsahError(f"could not load the model {name!r}: {_first_line(error)}") from error


def _location(name: str) -> tuple[str, dict]:
    """Where transformers finds a model, and the options for looking there."""
    archives.check_model(name)
    kind, rest = archives.split_name(name)
    if kind == "path":
        return _readable(Path(rest).expanduser()), {}
    if kind == "pip":
        return dequantized(rest), {}
    if kind == "large":
        return dequantized(rest), {}
    location, _, revision = rest.partition("@")
    return location, {"revision": revision or None, "local_files_only": archives.offline()}


def _readable(path: Path) -> str:
    """A file or folder on disk; `SsahError` if there is no model in it that can be read."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise SsahError(f"{path} is one file; give a GGUF file, or the folder of the model")
        return str(path)
    names = sorted(file.name for file in path.iterdir())
    pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
    weights = [name for name in names if name.endswith((".safetensors", ".gguf"))]
    ggufs = [name for name in weights if name.endswith(".gguf")]
    if pickled and not weights:
        command = CONVERT.format(old=str(path), new=f"{path}-safetensors")
        raise SsahError(
            f"{path} has only pickled weights ({pickled[0]}), which are not read. If you trust "
            f"them, convert them to safetensors: python -c \"{command}\""
        )
    if not weights:
        raise SsahError(
            f"{path} is not a model that can be read: it has no *.safetensors and no *.gguf; "
            "give the folder that save_pretrained wrote"
        )
    if len(ggufs) == len(weights):
        if len(ggufs) > 1:
            raise SsahError(f"{path} has several GGUF files ({', '.join(ggufs)}); name one of them")
        return str(path / ggufs[0])
    return str(path)


def _whole_model(name: str, location: str, options: dict, dtype, device) -> tuple:
    """Model and tokenizer from safetensors or from one GGUF file."""
    how = {
        "dtype": dtype,
        "device_map": "auto" if device == "auto" else None,
        "trust_remote_code": False,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    if location.endswith(".gguf"):
        options = {"gguf_file": Path(location).name}
        location = str(Path(location).parent)
        if dtype == "auto":     # dequantized, it has no number format of its own
            how["dtype"] = torch.float32
    else:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False, **options)
        _refuse_quantized(name, config)
        if "text_config" in config.sub_configs:
            how["config"] = _text_part(config)
            how["key_mapping"] = TEXT_PART
    tokenizer = _tokenizer(location, **options)
    model, report = AutoModelForCausalLM.from_pretrained(location, **how, **options)
    missing = sorted(report["missing_keys"])
    if missing:
        raise SsahError(
            f"the files of {name!r} are not a whole model: {missing[0]} is missing "
            f"({len(missing)} weights in all); they would be random numbers. Get the files again"
        )
    _forget_quantization(model)
    _place(name, model, device)
    return model, tokenizer


def _tokenizer(location: str, **options):
    """The tokenizer of a model.

    One whose files say that it is a general one is loaded as that: for some families transformers
    would take the family's own class, which reads other words from the same files.
    """
    said = get_tokenizer_config(location, **options) if "gguf_file" not in options else {}
    kind = PreTrainedTokenizerFast if said.get("tokenizer_class") in GENERAL else AutoTokenizer
    return kind.from_pretrained(location, trust_remote_code=False, **options)


def _text_part(config):
    """The config of the text model in a model of text and images."""
    text = config.get_text_config()
    text.tie_word_embeddings = config.tie_word_embeddings
    return text


def _place(name: str, model, device) -> None:
    """Put the model on its device, unless it was spread over several."""
    if device != "auto":
        model.to(device)
        return
    # what finds no room on a GPU is kept elsewhere, and then is "cpu" or "meta"
    if any(parameter.device.type != "cuda" for parameter in model.parameters()):
        raise SsahError(
            f"{name!r} does not fit into the memory of the GPUs; take dtype=\"bfloat16\", "
            "a smaller model, or device=\"cpu\""
        )


def _refuse_quantized(name: str, config) -> None:
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return
    if not isinstance(settings, dict):
        settings = settings.to_dict()
    method = getattr(settings.get("quant_method"), "value", settings.get("quant_method"))
    how = f" ({method})" if method else ""
    raise SsahError(
        f"{name!r} is quantized{how}, and its layers are not plain linear maps: take the "
        "version of the model that is not quantized, or a GGUF file, which is dequantized here"
    )


# ---- GGUF ------------------------------------------------------------------------------------

def dequantized(name: str) -> str:
    """Folder in the cache with a pinned GGUF model as safetensors.

    Made on first use: the small model in float32, in about 20 s; a large file in bfloat16, in
    minutes, and then the file itself is deleted.
    """
    source = f"pip:{name}" if name in archives.MEMBERS else name
    fingerprint = archives.fingerprint(source)[:12]
    folder = archives.cache_dir() / "models" / f"{name}-{fingerprint}"
    if folder.exists():
        return str(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".dequantizing-") as scratch:
        if name in archives.LARGE_FILES:
            _dequantize(large.fetch(name), folder, Path(scratch), torch.bfloat16)
            large.path_of(name).unlink(missing_ok=True)
        else:
            file = Path(scratch) / "model.gguf"
            file.write_bytes(archives.read_member(name))
            _dequantize(file, folder, Path(scratch), torch.float32)
    return str(folder)


def _dequantize(file: Path, folder: Path, scratch: Path, dtype: torch.dtype) -> None:
    """Write a GGUF file as safetensors with its tokenizer; the folder appears when it is whole."""
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype)
    _forget_quantization(model)
    finished = scratch / "finished"
    model.save_pretrained(finished)
    tokenizer.save_pretrained(finished)
    if not folder.exists():     # another process may have been faster
        os.replace(finished, folder)


def _forget_quantization(model) -> None:
    """Let a dequantized model be an ordinary one; transformers would refuse to save it."""
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


# ---- adapters --------------------------------------------------------------------------------

def _merged(name: str, location: str, options: dict, adapter: Path, dtype, device) -> tuple:
    """The base model of a ``peft`` adapter with the adapter merged into it."""
    import peft

    folder = adapter.parent
    if (folder / "model.safetensors").exists():
        raise SsahError(
            f"{folder} has a whole model and an adapter; move one of them to a folder of its own"
        )
    # found, or fetched; pickled ones are not looked for
    weights = cached_file(location, "adapter_model.safetensors", **options)
    config = peft.PeftConfig.from_pretrained(str(folder))
    kind = type(config).__name__.removesuffix("Config")
    base = config.base_model_name_or_path
    if config.is_prompt_learning or isinstance(config, peft.AdaptionPromptConfig):
        raise SsahError(
            f"{name!r} is an adapter ({kind}) that cannot become part of its model's weights; "
            "take a LoRA adapter, or a whole model"
        )
    if not base:
        raise SsahError(
            f"{name!r} is an adapter ({kind}) that does not say of which model; write it into "
            f"base_model_name_or_path of {adapter}"
        )
    model, tokenizer = open_model(base, dtype, device)
    if (folder / "tokenizer_config.json").exists():
        tokenizer = _tokenizer(str(folder))
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    if touches_tied_embeddings(model, config):
        _untie(model)
    wrapped = peft.PeftModel.from_pretrained(model, str(Path(weights).parent), config=config)
    print(f"{name} is an adapter ({kind}): merged into its base model {base}", file=sys.stderr)
    return wrapped.merge_and_unload(safe_merge=True), tokenizer


def touches_tied_embeddings(model, config) -> bool:
    """Whether a ``peft`` configuration changes embeddings that are the output map at once."""
    from peft.tuners.tuners_utils import check_target_module_exists

    embeddings = model.get_input_embeddings()
    head = model.get_output_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return False
    names = [name for name, module in model.named_modules() if module in (embeddings, head)]
    for name in names:
        if name.split(".")[-1] in _whole_parts(config):
            return True
        if getattr(config, "target_modules", None) and check_target_module_exists(config, name):
            return True
    # single tokens of the embeddings are changed in both; those of the output map in it alone
    tokens = getattr(config, "trainable_token_indices", None)
    return isinstance(tokens, dict) and any(name in ("lm_head", names[-1]) for name in tokens)


def _whole_parts(config) -> set[str]:
    """Last names of the modules that a ``peft`` configuration copies, or whose weight it changes."""
    parts = set(getattr(config, "modules_to_save", None) or ())
    for parameter in getattr(config, "target_parameters", None) or ():
        module = parameter.rpartition(".")[0]
        parts.add(module.split(".")[-1])
    return parts


def _untie(model) -> None:
    """Give the output map a weight of its own: an adapter was trained on one of the two alone."""
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.config.tie_word_embeddings = False


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

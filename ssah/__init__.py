"""A companion to "Superficial Safety Alignment Hypothesis" (Li & Kim, ICLR 2026).

    sources -> models -> units -> attribution -> classification -> ablation / fine-tuning
            -> evaluation -> store -> notebooks -> figures

Names are loaded on first use, so `import ssah` and a notebook that only reads results never import torch.
"""

from importlib import import_module

_HOME = {
    "Chat": "models", "load_chat_model": "models",
    "UnitIndex": "units",
    "importance": "attribution", "scoring_batches": "attribution",
    "Units": "classification", "classify": "classification", "iou": "classification", "scaled": "classification",
    "ablated": "ablation", "transplanted": "ablation", "without_direction": "ablation",
    "finetune": "finetuning",
    "generate": "evaluation", "refusal_log_odds": "evaluation", "perplexity": "evaluation",
    "multiple_choice": "evaluation",
    "judge": "judging",
    "load_prompts": "inputs.prompts",
    "load_profile": "claims.profiles",
    "open_lab": "claims",
    "SsahError": "errors",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'ssah' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return __all__

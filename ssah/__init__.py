"""A companion to "Superficial Safety Alignment Hypothesis" (Li & Kim, ICLR 2026).

    inputs -> models -> units -> attribution -> classification -> ablation / fine-tuning
           -> evaluation                                                  (the library)
    lab: steps, keys, store        claims: a room for every claim        notebooks -> figures

Names are loaded on first use, so `import ssah` and a notebook that only reads results never import
torch.
"""

from importlib import import_module

from .errors import MODEL_PACKAGES, no_models

_HOME = {
    "errors": ("SsahError",),
    "models": ("Chat",),
    "catalog": ("load_chat_model",),
    "units": ("UnitIndex",),
    "attribution": ("importance", "scoring_batches"),
    "classification": ("Units", "classify", "iou", "scaled"),
    "ablation": ("ablated", "transplanted", "without_direction", "rounded"),
    "finetuning": ("finetune",),
    "objectives": ("Constrained", "Preference"),
    "rehearsal": ("plan_memory",),
    "deepening": ("begun_refusals", "fulfilment_beginnings"),
    "evaluation": ("generate", "refusal_log_odds", "perplexity", "multiple_choice"),
    "reevaluation": ("generate_reevaluating",),
    "judging": ("judge",),
    "organism": ("load_organism",),
    "inputs.prompts": ("load_prompts",),
    "lab.source": ("show_source",),
    "claims": ("open_lab", "verdict", "verdicts"),
    "claims.profiles": ("load_profile",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ssah' has no attribute {name!r}")
    try:
        module = import_module(f".{_MODULE_OF[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name in MODEL_PACKAGES:
            raise no_models(error.name) from error
        raise
    return getattr(module, name)


def __dir__():
    return __all__

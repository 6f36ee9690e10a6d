"""GiB that steps declare, from the size of the profile's models; see `ssah.lab.steps.step`.

Estimates from above: what committed results note of 0.135 and 0.5 billion weights on CPUs, where
most weights and all moments are in float32, and a line through them for other sizes.
"""

import re

from ...inputs.archives import MADE_IN_MEMORY

#: Billions of weights where a model's name does not say how many it has.
UNKNOWN_SIZE = 1.0
#: GiB of Python, torch and tables.
REST = 1.0
#: Of a model that answers: GiB for a billion weights, of the weights, and of all else (activations
#: and the logits of a batch) up to a limit in GiB, since that grows less in larger models.
ANSWERING = (4, 11, 6)
#: Of one that trains: weights, gradients and two moments; and all else, as above.
TRAINING = (16, 47, 40)


def billions(model: str) -> float:
    """Billions of weights by a model's name: ``smollm2-135m``, ``Llama-2-7b-chat-hf``."""
    if model.partition(":")[0] in MADE_IN_MEMORY:
        return 0.0
    sizes = re.findall(r"(\d+(?:\.\d+)?)([bm])(?![a-z])", model.rpartition("/")[2].lower())
    if not sizes:
        return UNKNOWN_SIZE
    number, unit = sizes[-1]
    return float(number) / (1 if unit == "b" else 1000)


def memory_of(weights: float, costs: tuple[float, float, float]) -> float:
    """GiB for `weights` (billions), with `costs` as of `ANSWERING`."""
    of_weights, of_the_rest, at_most = costs
    return REST + of_weights * weights + min(of_the_rest * weights, at_most)


def _largest(profile) -> float:
    models = (*profile.model.sources(), *profile.probing.pair)
    return max(billions(model) for model in models)


def asks_model(profile) -> float:
    """GiB of a step that scores a model or lets it answer."""
    return memory_of(_largest(profile), ANSWERING)


def trains_model(profile) -> float:
    """GiB of a step that trains a model."""
    return memory_of(_largest(profile), TRAINING)


def asks_judge(profile) -> float:
    """GiB of a step that asks the chat model that is the second judge."""
    return memory_of(billions(profile.second_judge.name), ANSWERING)

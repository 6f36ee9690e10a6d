"""C1 on the second bench: to which side a model leans while it answers."""

import pandas as pd

from ...lab import Context, Need, Result, step
from ..shared.material import checkpoint_need, load_role
from ..shared.memory import asks_model
from .run import probed_requests

#: Requests that are compared: the paper's, and benign ones.
COMPARED = ("harmful", "benign")


def bench(profile, seed: int) -> list[Need]:
    """Both kinds of requests, of the aligned model, and of the unaligned one if it is a pair."""
    roles = ("aligned",) if profile.model.aligned else ("aligned", "unaligned")
    return [Need("leaning", {"seed": seed, "role": role, "requests": requests})
            for role in roles for requests in COMPARED]


def _leaning_needs(profile, seed: int, role: str, requests: str) -> list[Need]:
    return [Need("splits"), *checkpoint_need(profile, role, seed)]


@step(version=1, reads=("model", "data", "probing"), minutes=5, needs=_leaning_needs,
      memory=asks_model)
def leaning(context: Context, seed: int, role: str, requests: str) -> Result:
    """The reasoning direction of a model (paper, Fig. 3 and 4), branch reading.

    Distance to fulfilment branches minus distance to refusal branches: above 0 the model is nearer
    to a refusal. Table ``queries``: id, leaning (cosine distance, mean over wordings, numbers of
    generated tokens and blocks). Table ``blocks``: n, block, leaning (mean over queries).
    """
    from ... import probing

    options = context.profile.probing
    chat = load_role(context, role, seed)
    chosen = probed_requests(context, requests, options.queries)
    distances = probing.branch(chat, chosen["text"].tolist(), probing.probe_openings(chat),
                               options.steps, system=options.system,
                               progress=f"{role}, {requests}")
    to_side = {kind: values.mean(axis=1) for kind, values in distances.items()}
    nearer_to_refusal = to_side["fulfilment"] - to_side["refusal"]      # (query, n, block)
    queries = pd.DataFrame({"id": chosen["id"], "leaning": nearer_to_refusal.mean(axis=(1, 2))})
    blocks = [{"n": n, "block": block, "leaning": float(value)}
              for n, row in zip(options.steps, nearer_to_refusal.mean(axis=0))
              for block, value in enumerate(row)]
    return Result(tables={"queries": queries, "blocks": pd.DataFrame(blocks)})

"""Training refusals that begin in the middle of an answer (claim C8, the paper's future work).

Safety fine-tuning teaches a refusal as the *first* words of an answer. Here some refusals r of a
request x follow the first k tokens h of a fulfilment, which are given and not trained on, so that a
model learns to turn. The loss of an example begins at the refusal's first token:

    - log P(r | x, h_1 ... h_k),    k = 0 in half of the refusals, else uniform from 1 to `most`

This is the data augmentation of Qi et al. (2025, arXiv 2406.05946), with one difference: their h
are harmful answers. Ours are openings without content, and then what a model without safety
training goes on to say, which is generated in memory and never stored.

    begun = fulfilment_beginnings(unaligned, requests)
    ssah.finetune(chat, [*begun_refusals(refusals, begun), *benign])

Not here: their weighting of refusals against other answers.
"""

from collections.abc import Sequence

import numpy as np

from .errors import SsahError
from .evaluation import generate
from .inputs.texts import as_texts
from .inputs.words import data_file
from .models import Chat, check_chat
from .probing import token_lists

#: The most tokens of a fulfilment before a refusal.
MOST = 100
#: The part of the refusals that stand first, as in usual safety training.
AT_ONCE = 0.5


def fulfilment_beginnings(
    chat: Chat,
    prompts: Sequence[str],
    *,
    n_tokens: int = MOST,
    opening_tokens: int = 10,
    system: str = "default",
    progress: str | None = None,
) -> list[list[int]]:
    """Token ids of the first `n_tokens` of a fulfilment of every prompt (fewer if it ends before).

    The first `opening_tokens` are of the package's openings without content (`deep_prefills.csv`),
    which the prompts take in turn; the others are what `chat` goes on to say, greedily. It should
    be a model without safety training. The tokens may spell out what was asked for: keep them in
    memory and store nothing of them. Raises `SsahError` for no prompts and more opening tokens than
    an opening has.
    """
    check_chat(chat)
    prompts = as_texts(prompts, "prompts")
    openings = token_lists(chat, data_file("deep_prefills")["text"])
    shortest = min(map(len, openings))
    if not 0 < opening_tokens <= shortest:
        raise SsahError(
            f"opening_tokens is from 1 to {shortest}, which the shortest opening has; "
            f"got {opening_tokens}"
        )
    begun = [openings[row % len(openings)][:opening_tokens] for row in range(len(prompts))]
    n_new = max(n_tokens - opening_tokens, 1)
    answers = generate(
        chat, prompts, system=system, prefill=begun, max_new_tokens=n_new, progress=progress
    )
    whole = [opening + tokens for opening, tokens in zip(begun, answers.tokens)]
    return [tokens[:n_tokens] for tokens in whole]


def begun_refusals(
    refusals: Sequence[dict], beginnings: Sequence[list[int]], *, most: int = MOST, seed: int = 0
) -> list[dict]:
    """Refusals (records of prompt and response) with a field ``given``: tokens before the refusal.

    None in `AT_ONCE` of them by chance, else the first k of its beginning, k uniform from 1 to
    `most` (or to as many as there are). Raises `SsahError` for another number of beginnings.
    """
    if len(refusals) != len(beginnings):
        raise SsahError(f"there are {len(beginnings)} beginnings for {len(refusals)} refusals; "
                        "give one for each")
    random = np.random.default_rng(seed)
    begun = []
    for refusal, beginning in zip(refusals, beginnings):
        longest = min(most, len(beginning))
        at_once = random.random() < AT_ONCE
        length = random.integers(1, longest + 1) if longest and not at_once else 0
        given = [int(token) for token in beginning[:length]]
        begun.append({**refusal, "given": given})
    return begun

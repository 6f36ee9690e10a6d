"""Training refusals that begin in the middle of an answer (claim C8, the paper's future work).

Safety fine-tuning teaches a refusal as the *first* words of an answer. Here some refusals r of a
request x follow the first k tokens h of a fulfilment, which are given and not trained on, so that a
model learns to turn. The loss of an example begins at the refusal's first token:

    - log P(r | x, h_1 ... h_k),    k = 0 in half of the refusals, else uniform from 1 to `most`

This is the data augmentation of Qi et al. (2025, arXiv 2406.05946), with one difference: their h
are harmful answers. Ours are openings without content, and then what a model without safety
training goes on to say, which is generated in memory and never stored.

    begun = fulfilment_beginnings(unaligned, requests)
    finetune_given(chat, [*begun_refusals(refusals, begun), *benign])

Not here: their weighting of refusals against other answers; checkpoints, adapters, some units alone
(`ssah.finetune`).
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .errors import SsahError
from .evaluation import generate
from .finetuning import ADAMW, FineTuning, _check_arithmetic, _make, what_trains
from .inputs.columns import examples_of
from .inputs.texts import as_texts
from .inputs.words import data_file
from .models import Chat, check_chat
from .probing import token_lists
from .training import Encoded, Options, Run, bytes_in_use, training_mode

#: The most tokens of a fulfilment before a refusal.
MOST = 100
#: The part of the refusals that stand first, as in usual safety training.
AT_ONCE = 0.5


# ---- examples --------------------------------------------------------------------------------


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
        begun.append({**refusal, "given": list(beginning[:length])})
    return begun


def encode_given(
    chat: Chat, examples: Sequence[dict], system: str = "default"
) -> tuple[list[Encoded], int]:
    """Token ids of every example: what is read (prompt and what is given), and what is trained on.

    After what is given the response stands with a space before it. Also returned: how many
    responses the context has cut. Raises `SsahError` for no examples, for what `ssah.finetune`
    refuses of them, for a ``given`` that is no list of token ids, and where nothing is left to
    train on.
    """
    records = list(examples)
    if not records:
        raise SsahError("no training examples")
    limit = chat.model.config.max_position_embeddings
    encoded = []
    cut = 0
    for number, (record, example) in enumerate(zip(records, examples_of(records))):
        given = _checked_tokens(number, record.get("given", []))
        response = f" {example['response']}" if given else example["response"]
        head, tail = chat.encode(example["prompt"], response, example.get("system", system))
        read = head + given
        if len(read) >= limit:
            raise SsahError(
                f"example {number}: the prompt with what is given ({len(read)} tokens) "
                f"exceeds the context of {limit}"
            )
        cut += len(read) + len(tail) > limit
        encoded.append((read, tail[:limit - len(read)]))
    return encoded, cut


def _checked_tokens(number: int, given) -> list[int]:
    is_list = isinstance(given, (list, tuple, np.ndarray))
    if not is_list or not all(isinstance(token, (int, np.integer)) for token in given):
        raise SsahError(f"example {number}: what is given is a list of token ids; got {given!r}")
    return [int(token) for token in given]


# ---- training --------------------------------------------------------------------------------


def finetune_given(
    chat: Chat,
    examples: Sequence[dict],
    *,
    epochs: int = 2,
    lr: float = 5e-5,
    batch_size: int = 16,
    micro_batch: int | None = None,
    weight_decay: float = 0.0,
    warmup_steps: int = 10,
    schedule: str = "constant",
    max_norm: float = 1.0,
    optimizer: Callable = ADAMW,
    seed: int = 0,
    system: str = "default",
    autocast: bool = True,
    checkpointing: bool = False,
    max_steps: int | None = None,
    progress: str | None = "fine-tuning",
) -> FineTuning:
    """Train all of `chat.model` in place on examples whose answers may have a beginning as given.

    `examples`: records as of `ssah.finetune`, with an optional field ``given``: token ids between
    prompt and response that are read and not trained on (`begun_refusals`). Without that field it
    is what `ssah.finetune` does, step for step; the options are the same. Raises `SsahError` as
    `encode_given` and `ssah.finetune` do.
    """
    check_chat(chat)
    _check_arithmetic(chat.model, schedule, autocast)
    encoded, cut = encode_given(chat, examples, system)
    options = Options(
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        micro_batch=micro_batch or batch_size,
        weight_decay=weight_decay,
        warmup_steps=warmup_steps,
        schedule=schedule,
        max_norm=max_norm,
        seed=seed,
        autocast=autocast,
        checkpointing=checkpointing,
        probe_every=1.0,
        max_steps=max_steps,
    )
    everything = what_trains(chat.model, None, None, None, None, seed)
    with everything.moving as state, training_mode(chat.model, checkpointing):
        stepper = _make(optimizer, state, lr, weight_decay)
        random = np.random.default_rng(seed)
        run = Run(chat, encoded, None, state, stepper, (), options, random)
        silent = progress is None
        with tqdm(total=run.n_steps, desc=progress, disable=silent, leave=False) as bar:
            run.to_the_end(None, bar)
        run.check_weights()
        used = bytes_in_use(chat.model, state.parameters, stepper)
    return FineTuning(pd.DataFrame(run.history), pd.DataFrame(run.checkpoints), cut, used)

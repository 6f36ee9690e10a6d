"""Answers in batches, the probe, and decoding that asks again, against plain `generate`."""

from collections.abc import Iterator

from .. import evaluation, probing
from ..models import Chat, pad
from ..reevaluation import generate_reevaluating
from .table import Row
from .timing import in_turn, ratio, seconds

#: Prompts that are answered in one batch, and those of them that are answered one by one.
PROMPTS = 32
SINGLES = 3
#: Queries of the probe.
QUERIES = 2
STEPS = (2, 4, 6, 8, 10)
#: Prompts that are asked again on the way, every so many tokens, and their answers' length.
ASKED = 4
EVERY = 10
TOKENS = 48


def rows(chat: Chat, prompts: list[str], repeats: int) -> Iterator[Row]:
    """All of them; the first warms the process up for the others."""
    yield in_a_batch(chat, prompts[:PROMPTS])
    yield probe(chat, prompts[:QUERIES], repeats)
    yield asking_again(chat, prompts[:ASKED], repeats)


def in_a_batch(chat: Chat, prompts: list[str]) -> Row:
    """Answers in one batch against one call of `generate` a prompt."""
    evaluation.generate(chat, prompts[:1], max_new_tokens=2)
    batched = seconds(lambda: evaluation.generate(chat, prompts))
    single = 0.0
    for prompt in prompts[:: len(prompts) // SINGLES][:SINGLES]:
        single += seconds(lambda prompt=prompt: evaluation.generate(chat, [prompt]))
    per_second = len(prompts) / batched
    one_by_one = SINGLES / single
    return Row(
        f"evaluation, {len(prompts)} prompts in a batch",
        f"{per_second:.2f} answers/s",
        f"one by one {one_by_one:.2f} answers/s",
        f"{per_second / one_by_one:.1f} x as many",
        ">= 8",
    )


def probe(chat: Chat, queries: list[str], repeats: int) -> Row:
    """The probe, which reads branches, against `generate` over the same prefixes."""
    openings = probing.probe_openings(chat)
    prefixes: list[list[int]] = [[]]
    for kind in openings:
        prefixes += openings[kind]
    sequences = []
    for query in queries:
        head, _ = chat.encode(query)
        sequences += [head + prefix for prefix in prefixes]
    batch = pad(sequences, chat.tokenizer.pad_token_id, "left", chat.model.device)
    n_tokens = max(STEPS) + 1
    settings = evaluation.greedy(chat, n_tokens, least=n_tokens)
    times = in_turn(
        {
            "probe": lambda: probing.branch(chat, queries, openings, STEPS),
            "bare": lambda: chat.model.generate(**batch, generation_config=settings),
        },
        repeats,
        warm=True,
    )
    speeds = {name: repeats * len(queries) / sum(taken) for name, taken in times.items()}
    return Row(
        "probe",
        f"{speeds['probe']:.2f} queries/s",
        f"bare generate {speeds['bare']:.2f} queries/s",
        f"{ratio(times['bare'], times['probe']):.2f} x as many",
        ">= 0.8",
    )


def asking_again(chat: Chat, prompts: list[str], repeats: int) -> Row:
    """`generate_reevaluating` against `generate`, by the time that a token takes."""
    settings = {"max_new_tokens": TOKENS}
    counts = {}

    def plain() -> None:
        counts["plain"] = n_tokens(evaluation.generate(chat, prompts, **settings))

    def asking() -> None:
        counts["asking"] = n_tokens(
            generate_reevaluating(chat, prompts, every=EVERY, refusal="", **settings)
        )

    times = in_turn({"asking": asking, "plain": plain}, repeats, warm=True)
    speeds = {name: repeats * counts[name] / sum(taken) for name, taken in times.items()}
    by_call = ratio(times["asking"], times["plain"])
    by_token = by_call * counts["plain"] / counts["asking"]
    return Row(
        f"decoding that asks again every {EVERY} tokens, {len(prompts)} prompts",
        f"{speeds['asking']:.1f} tokens/s",
        f"plain generate {speeds['plain']:.1f} tokens/s",
        f"{by_token:.2f} x its time",
        "<= 1.3",
    )


def n_tokens(answers: evaluation.Answers) -> int:
    """Tokens of all answers, with the end of each."""
    return sum(len(tokens) + 1 for tokens in answers.tokens)

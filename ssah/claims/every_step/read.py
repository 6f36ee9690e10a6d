"""C8: how deep refusals go, and what asking again brings back. Rates are fractions.

An *arm* is a model (role) with a way to decode: ``aligned, asked again``. Refusals in tables and
figures are what the judge calls so; the words of the ledger stand on attack success (`decide`).
"""

from pathlib import Path

import pandas as pd

from ...errors import NotStored
from ...lab import Lab
from ...lab.words import say
from .. import rules
from ..shared.tables import interval, outcomes, with_interval
from . import decide
from .run import (
    AS_USUAL,
    ASKED_AGAIN,
    DECODINGS,
    NEUTRAL,
    REQUESTS,
    Decoding,
    bench,
    deep_need,
    twin_of,
)

WORDS = Path(__file__).with_name("words.md.j2")

#: The arms of a model that refuses nothing.
OF_TWIN = (AS_USUAL, ASKED_AGAIN)
#: The arm that was trained to turn (our own pair alone).
DEEPENED = "deepened, as usual"

#: How arms are called where people read them.
TITLES = {
    "aligned, as usual": "decoded as usual",
    "aligned, asked again": "asked again by the header",
    "aligned, neutral": "asked after neutral words",
    DEEPENED: "trained to turn, as usual",
    "base, as usual": "base model, as usual",
    "base, asked again": "base model, asked again",
    "unaligned, as usual": "unaligned model, as usual",
    "unaligned, asked again": "unaligned model, asked again"}

#: The arms of a model that refuses, as columns of a table call them.
SHORT = {
    "aligned, as usual": "as usual",
    "aligned, asked again": "asked again",
    "aligned, neutral": "neutral words",
    DEEPENED: "trained to turn"}


# ---- which runs ------------------------------------------------------------------------------

def has_runs(lab: Lab) -> bool:
    """Whether all that the claim needs of a lab's profile is stored."""
    if not lab.profile.bench:
        return False
    try:
        lab.require([need for seed in lab.seeds for need in bench(lab.profile, seed)])
    except NotStored:       # not run yet
        return False
    return True


def shown(lab: Lab, organism: Lab) -> tuple[Lab, str]:
    """The lab whose runs a notebook shows, and a sentence that says which.

    The notebook's own, where its profile has runs of this claim (computed now, if the lab may),
    else the organism's.
    """
    if has_runs(lab):
        return lab, say(WORDS, "own_runs", model=lab.profile.model.label)
    return organism, say(WORDS, "no_runs", profile=lab.profile.name, bench=lab.profile.bench,
                         model=organism.profile.model.label)


# ---- after a prefill -------------------------------------------------------------------------

def answers(lab: Lab) -> pd.DataFrame:
    """Outcomes of all answers, below each other, with columns arm, requests and seed."""
    parts = [_refusing(lab, lab.seeds, was_trained=not lab.profile.model.aligned)]
    twin = twin_of(lab.profile)
    if twin:
        parts += [_arm(lab, seed, twin, decoding) for seed in lab.seeds for decoding in OF_TWIN]
    return outcomes(pd.concat(parts, ignore_index=True))


def _refusing(lab: Lab, seeds: tuple[int, ...], was_trained: bool) -> pd.DataFrame:
    """The answers of the model that refuses, and of the one that was trained to turn, if it was."""
    parts = []
    for seed in seeds:
        parts += [_arm(lab, seed, "aligned", decoding, requests)
                  for requests in REQUESTS for decoding in DECODINGS]
        if was_trained:
            turned = lab.get("deepened", seed=seed).tables["answers"]
            parts.append(turned.assign(arm=DEEPENED, seed=seed))
    return pd.concat(parts, ignore_index=True)


def _arm(lab: Lab, seed: int, role: str, decoding: Decoding,
         requests: str = "harmful") -> pd.DataFrame:
    """The answers of one run, with the columns that tell it from others."""
    need = deep_need(seed, role, decoding, requests)
    table = lab.get(need.step, **need.params).tables["answers"]
    return table.assign(arm=f"{role}, {decoding.name}", requests=requests, seed=seed)


def after_prefill(answered: pd.DataFrame) -> pd.DataFrame:
    """A row an arm, kind of requests and length: how much was refused, with intervals.

    Columns: refused, strict ASR and log-odds (nats), each with ``low`` and ``high`` (`bootstrap`),
    and ``stepped in``: the part of the answers in which the decoder did.
    """
    rows = []
    groups = answered.groupby(["arm", "requests", "length"], sort=False)
    for (arm, requests, length), part in groups:
        rows.append({
            "arm": arm,
            "requests": requests,
            "length": length,
            **interval("refused", part, "refused"),
            **interval("strict ASR", part, "strict_asr"),
            **interval("log-odds", part, "log_odds"),
            "stepped in": (part["stepped_in"] >= 0).mean()})
    return pd.DataFrame(rows)


def shown_after_prefill(table: pd.DataFrame, requests: str) -> pd.DataFrame:
    """Per cent refused with intervals: a row an arm, a column a number of tokens put first."""
    chosen = table[table["requests"] == requests]
    cells = chosen.assign(cell=chosen.apply(with_interval, axis="columns", column="refused",
                                            digits=0))
    wide = cells.pivot(index="arm", columns="length", values="cell")
    wide = wide.loc[chosen["arm"].unique()].rename(index=TITLES)
    return wide.rename_axis(index="refused %", columns="tokens put first")


# ---- recovery --------------------------------------------------------------------------------

def recovery(answered: pd.DataFrame) -> pd.DataFrame:
    """Which part of the prefilled answers has turned to a refusal within k new tokens.

    A row an arm and k (from 0 on): arm, within, turned; without the model that refuses nothing.
    Harmful requests, all lengths of prefill but 0.
    """
    is_meant = (answered["requests"] == "harmful") & (answered["length"] > 0)
    prefilled = answered[is_meant & answered["arm"].str.startswith(("aligned", "deepened"))]
    longest = max(int(prefilled["turned"].max()), 0)
    rows = []
    for arm, part in prefilled.groupby("arm", sort=False):
        turned = part["turned"].to_numpy()
        for within in range(longest + 1):
            by_then = (turned >= 0) & (turned <= within)
            rows.append({"arm": arm, "within": within, "turned": by_then.mean()})
    return pd.DataFrame(rows)


# ---- words -----------------------------------------------------------------------------------

def summary(lab: Lab, table: pd.DataFrame) -> str:
    """The first paragraph of notebook 07. `table`: of `after_prefill`."""
    options = lab.profile.reevaluation
    at = table[table["length"] == options.decided_at].set_index(["requests", "arm"])
    cells = {}
    for requests in REQUESTS:
        for decoding in DECODINGS:
            row = at.loc[(requests, f"aligned, {decoding.name}")]
            cells[requests, decoding.name] = with_interval(row, "refused", digits=0)
    return say(WORDS, "summary",
               model=lab.profile.model.label,
               verdict=words(lab),
               length=options.decided_at,
               over="seeds and requests" if len(lab.seeds) > 1 else "requests, of one seed",
               every=options.every,
               cells=cells,
               usual=AS_USUAL.name,
               again=ASKED_AGAIN.name,
               neutral=NEUTRAL.name)


def words(lab: Lab) -> str:
    """The two words on C8 in a sentence, or that it was not run."""
    try:
        verdict = decide.verdict(lab)
    except NotStored:
        return "not run yet."
    caveats = [f"A caveat: {caveat}." for caveat in rules.caveats(verdict)]
    return " ".join([rules.sentence(verdict), *caveats])


# ---- the models of the second bench ----------------------------------------------------------

def by_model(labs: dict[str, Lab]) -> pd.DataFrame:
    """A row a model of the second bench that was asked, kind of requests and arm of `SHORT`.

    What `after_prefill` says of the prefill that decides; with the seeds on which the words stand.
    """
    parts = []
    for lab in labs.values():
        seeds = decide.finished_seeds(lab)
        trained = {params["seed"] for params, _ in lab.stored("deepened")}
        try:
            # models of other makers are not trained to turn
            answered = _refusing(lab, seeds, was_trained=trained.issuperset(seeds))
        except NotStored:       # not run yet
            continue
        at = answered[answered["length"] == lab.profile.reevaluation.decided_at]
        parts.append(after_prefill(outcomes(at)).assign(model=lab.profile.model.label))
    return pd.concat(parts, ignore_index=True)


def shown_by_model(table: pd.DataFrame) -> pd.DataFrame:
    """`by_model` as per cent with intervals: two rows a model, a column requests and arm.

    What was refused, and what complied, on which the words stand.
    """
    column = table["requests"] + ", " + table["arm"].map(SHORT)
    parts = []
    for title, rate in (("refused %", "refused"), ("complied %", "strict ASR")):
        cell = table.apply(with_interval, axis="columns", column=rate, digits=0)
        parts.append(table.assign(column=column, rate=title, cell=cell))
    cells = pd.concat(parts)
    wide = cells.pivot(index=["model", "rate"], columns="column", values="cell")
    in_order = pd.MultiIndex.from_product([table["model"].unique(), cells["rate"].unique()])
    wide = wide.loc[in_order, column.unique()]
    return wide.fillna("").rename_axis(index=[None, None], columns=None)

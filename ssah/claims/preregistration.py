"""What was fixed before the second bench ran: rules, gates, profiles, prompts and exclusions.

`write` makes ``data/preregistration.json``; it is committed before the pair of the second bench is
trained, and `tests/test_preregistration.py` holds today's rules and profiles to it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from ..inputs import archives
from ..lab import Lab
from . import planning, rules
from .profiles import BENCH, SECTIONS
from .rules import estimates, gates

PATH = archives.DATA / "preregistration.json"

#: What had been seen when rules and margins were written.
KNOWN_BEFORE = (
    "All results of the first bench (seeds 0 to 2 of the default profile).",
    "Rough trials on AdvBench with both Qwen models, one draw and one seed, by keywords: refusals "
    "before, and without SCU, random units and RU; a benign fine-tuning of the smaller one. They "
    "came before the rules and δ of C2.",
    "Trials on made-up models with planted units (the organism).",
    "Sizes on the Qwen models follow the time of the machine at hand (two cores without bfloat16 "
    "arithmetic). The random draws on the smaller one were cut from 10 to 5 when its answers on "
    "`identify` had been generated, and before anything was removed from it.",
    "Over-refusal of the smaller Qwen model was measured first on the first 50 safe requests of the "
    "file, which is in the order of their kinds (5 of 12): 16 of 50 were refused, more than the "
    "limit allows. Since a sample of all kinds was meant, all 120 are asked, whatever comes out; "
    "both numbers stand in the store (steps guard and over_refusal).",
    "C4 on the smaller Qwen model was planned when its C1 and C2 were known and before anything was "
    "fine-tuned, with one run an arm, so that its interval covers requests alone. 128 answers of at "
    "most 64 tokens follow the rough trial; 4e-5 is twice its rate, for more harm in one epoch. "
    "Should full fine-tuning add less than 20 % or more than 60 % of headroom, the rate is doubled "
    "or halved once and both runs are reported. After its first run, with nothing frozen, the gate "
    "on the attack was mended: it had taken the added share of headroom for the end of attack "
    "success, too; the run passes by both.",
    "C8: the runs on the organism, before the settings of its runs on other models were fixed.",
    "A GPU was lent for half an hour when C1 and C2 of the smaller Qwen model were known, and of its "
    "C4 the runs with nothing and with SCU + all CU frozen. Before it was used these were added: two "
    "more seeds of fine-tuning for both Qwen models (three had been meant, one was cut for time), "
    "LoRA on them (C5), fine-tuning of the larger one with the settings of the smaller, and the runs "
    "that decide C3 and C7 on our own pair. What was stored stays: with seed 10 of the smaller one, "
    "LoRA on the GPU stands beside full fine-tuning on a CPU.",
    "While that ran: the first fine-tuning of the pair stopped for want of short answers (188 are left "
    "by its splits, 192 were wanted), before any had been trained, and the unseen ones were cut from "
    "64 to 48. When the loan ended, C8 had run on the pair with three of six seeds; its words stand on "
    "these, with a caveat.",
    "The milder dose of C4, when the usual one was known on our pair and on the smaller Qwen model (it "
    "added 74 points and 62 % of headroom, more than the 60 that are allowed). Qwen: half the rate, as "
    "was said. The pair: the runs at the usual rate had added nothing after one of two epochs, so half "
    "would be too little; three quarters of the rate. The words stand on the milder dose where its "
    "attack is fair; both are reported.",
    "While the first of these ran: constrained SFT as one more arm of the milder dose, and DPO beside SFT "
    "on the organism (where its epochs were tried) and on the pair. No word stands on them.",
    "Caveats that a reader of all results asked for, when the words were known; rows, questions and words "
    "stay as they were registered. C1-unaligned: that model leans to fulfilment on benign requests as well "
    "(lean). C2-SCU: other units of a high I_S do much of it (as important). C6-tax: accuracy does not fall "
    "(accuracy). C8: safe requests are refused too (over-refusal). C4: what stands behind a share that is "
    "not formed (share). In sentences the second word of C1-unaligned says *alignment moves harmful requests "
    "more* now, as its question does, where it said *it is the harmful requests*.",
    "C3 and C7, before their first runs: the weights of seeds 10 to 15 of the pair had gone with the lent "
    "machine, and at the usual dose both would have been blocked by the attack (74 points are added). So "
    "they are run at the milder dose, with seeds 16 to 18 of the same recipe, which two cores make; so is "
    "C4 at that dose. Guardrail and labels of these rows are those of these seeds, of the aligned model "
    "alone. The base model's answers, which they learn and are scored on, were made anew there; so, "
    "when first numbers of seed 16 had been seen, they became a profile of their own; nothing else moved.",
)

#: The probability below which a word would not have been expected.
UNLIKELY = 0.15

#: Where limits of the gates stand -> their names there.
GATE_NUMBERS = {
    gates: ("GATE_PROMPTS", "PLACEBO_MOST", "SIGHT_LEAST", "SCU_OVERLAP_LEAST", "RU_OVERLAP_LEAST",
            "ATTACK_END", "PLACEBO_TUNING_MOST", "RUNS_LEAST"),
    estimates: ("RATIO_LEAST", "LEVELS"),
}
GATE_LIMITS = ("PAIR_GUARDRAIL", "NATIVE_GUARDRAIL", "ATTACK")


def fixed() -> dict:
    """Rules, gates, profiles and the hash of the excluded prompts, as plain JSON."""
    found = {
        "rows": {name: asdict(row) for name, row in rules.ROWS.items()},
        "gates": {name: getattr(place, name) for place, names in GATE_NUMBERS.items()
                  for name in names}
        | {name: _limits(getattr(gates, name)) for name in GATE_LIMITS},
        "profiles": {name: _settings(profile) for name, profile in BENCH.items()},
        "excluded": archives.fingerprint("data:excluded.csv"),
    }
    return json.loads(json.dumps(found))        # tuples as lists, as they are read back


def _limits(limits) -> list[dict]:
    if isinstance(limits, rules.Limit):
        return [asdict(limits)]
    return [asdict(limit) for limit in limits]


def _settings(profile) -> dict:
    sections = {name: asdict(getattr(profile, name)) for name in SECTIONS}
    return {"seeds": profile.seeds, "further_tunings": profile.further_tunings,
            "milder_alone": profile.milder_alone, **sections}


def prompt_ids(lab: Lab) -> dict[str, list[str]]:
    """``kind split`` -> the ids of its prompts, in their order, from the step `splits`."""
    table = lab.get("splits").tables["splits"]
    return {f"{kind} {split}": part["id"].tolist()
            for (kind, split), part in table.groupby(["kind", "split"])}


def write(labs: dict[str, Lab], path: Path = PATH) -> None:
    """Write the pre-registration; `labs`: of every profile of the second bench, by its name."""
    words = planning.probabilities()
    content = {
        "known_before": KNOWN_BEFORE,
        **fixed(),
        "prompts": {name: prompt_ids(lab) for name, lab in labs.items()},
        "probabilities": words.round(4).to_dict("records"),
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read(path: Path = PATH) -> dict:
    """The pre-registration as it is committed."""
    return json.loads(path.read_text("utf-8"))


def planned_words() -> str:
    """How likely each word was at the planned size, as Markdown."""
    said = ("How likely each word was, of the rows whose spread the first bench shows, at a size "
            "that was thought of for our own pair before it ran. What ran has 160 requests, and of "
            "some rows another number of seeds, which the gates below tell; on models aligned by "
            "their makers it is smaller:")
    return f"{said}\n\n{planning.shown(pd.DataFrame(read()['probabilities']))}"


def looked_back(spoken: Mapping[str, rules.Verdict]) -> str:
    """What `planned_words` did not foresee, as Markdown; empty where there is nothing."""
    rows = unlikely(spoken)
    if not rows:
        return ""
    return (f"**Looking back.** Of our own pair {' and '.join(rows)} came out *cannot tell*, which the "
            f"simulation gave less than {UNLIKELY:.0%} whatever the truth is. It took the spread of the "
            "first bench; the seeds of the new pair differ more than its seeds did, so these chances "
            "were too good.")


def unlikely(spoken: Mapping[str, rules.Verdict]) -> list[str]:
    """The rows that came out *cannot tell*, though that was unlikely whatever the truth is.

    `spoken`: the verdicts on our own pair, by row.
    """
    table = pd.DataFrame(read()["probabilities"])
    could_not_tell = table.query("question == 'first' and word == @rules.CANNOT_TELL")
    most = could_not_tell.groupby("row")["probability"].max()
    return [row for row, verdict in spoken.items()
            if verdict.first.word == rules.CANNOT_TELL and most.get(row, 1.0) < UNLIKELY]


def digest() -> str:
    """SHA-256 of the committed file."""
    return archives.sha256_of(PATH)

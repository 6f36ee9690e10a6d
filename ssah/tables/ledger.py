"""The scoreboard: every claim with the paper's number, ours, the verdict, and the way back to figure and command."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from .. import claims, sources
from ..claims import Facts, points
from ..experiments import CONDITIONS, ROLES, TRANSPLANTS, VARIATIONS, Lab, Need, with_upstream
from . import attribute_transfer, four_kinds, freezing, reasoning_direction, redundant_units, which_units
from .shared import number_of_seeds


@dataclass(frozen=True)
class Entry:
    """Where a verdict comes from, and what the scoreboard shows beside it."""

    facts: Callable[..., Facts]             # of a lab; for C4 to C7 of the rate of attack success too
    judge: Callable[[Facts], claims.Verdict]
    n_seeds: int                            # that a verdict takes: three where models are fine-tuned for it
    ours: Callable[[Lab, Facts], str]       # our number, with interval and n
    figure: str
    step: str                               # of `ssah recompute`


def _direction(lab: Lab, facts: Facts) -> str:
    curve = reasoning_direction.curve(lab, "harmful").query("line == 'direction'")
    middle = lab.profile.probing.steps[len(lab.profile.probing.steps) // 2]
    rows = curve[curve["n"] == middle].set_index("role")
    said = [f"{role} {row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" for role, row in rows.iterrows()
            if role != "difference"]
    return f"direction after {middle} tokens: {', '.join(said)}; {reasoning_direction.sample(lab)}"


def _attacks(text: str, *names: str) -> Callable[[Lab, Facts], str]:
    """`text` with differences of keyword ASR (names of facts) in its ``{}``, and how many prompts."""
    return lambda lab, facts: (f"keyword ASR: {text.format(*(points(facts, name) for name in names))}; "
                               f"n = {lab.profile.evaluation.harmful}")


def _left(lab: Lab, facts: Facts) -> str:
    full, more = facts["left: full"], facts["left: full - halves"]
    return (f"{full[0]:.0%} of the SCU change their label in fine-tuning, {full[0] - more[0]:.0%} where only the texts "
            f"change; difference {points(facts, 'left: full - halves')} (brackets: seeds); n = all units")


ENTRIES = {
    "C1": Entry(reasoning_direction.c1_facts, claims.judge_c1, 1, _direction, "01_distance_by_token", "probe"),
    "C2": Entry(four_kinds.c2_facts, claims.judge_c2, 1,
                _attacks("without SCU minus without random units {}", "keyword: SCU - random SCU"), "02_table_1",
                "ablation"),
    "C3": Entry(attribute_transfer.c3_facts, claims.judge_c3, 3, _left, "03_flows", "reattribution"),
    "C4": Entry(freezing.c4_facts, claims.judge_c4, 3,
                _attacks("nothing frozen minus SCU + all CU frozen {}, as many random units minus these {}",
                         "full - SCU + all CU", "random - SCU + all CU"), "04_table_2", "tuning"),
    "C5": Entry(which_units.c5_facts, claims.judge_c5, 3, _attacks("LoRA minus full fine-tuning {}", "LoRA - full"),
                "05_table_3", "adapter_tuning"),
    "C6": Entry(redundant_units.c6_facts, claims.judge_c6, 3,
                _attacks("base model minus RU trained alone {}", "base - RU"), "06_table_4", "budget"),
    "C7": Entry(which_units.c7_facts, claims.judge_c7, 3,
                _attacks("single weights frozen minus units frozen {}", "SNIP difference - SCU + all CU"),
                "05_units_or_weights", "weight_tuning")}


def verdict(lab: Lab, claim: str) -> claims.Verdict:
    """The verdict on one claim that has a notebook, from that claim's results alone; *not tested* by too few seeds."""
    return _judged(lab, claim)[1]


def _judged(lab: Lab, claim: str) -> tuple[Facts, claims.Verdict]:
    entry = ENTRIES[claim]
    facts = entry.facts(lab)
    judged = entry.judge(facts)
    return facts, judged if len(lab.seeds) >= entry.n_seeds else replace(judged, verdict="not tested")


def ledger(lab: Lab, notebooks: str = "", figures: str = "../figures/") -> str:
    """The claim ledger as Markdown; links lead into the folders `notebooks` and `figures`."""
    rows = ["| | claim | our verdict | ours | the paper's number | in the paper | origin | notebook, figure | "
            "recompute with |", "|---" * 9 + "|"]
    for claim in claims.CLAIMS:
        ours, origin, found, links, command = "–", "paper-reported", "not tested", "", ""
        if claim.notebook:
            entry = ENTRIES[claim.id]
            facts, judged = _judged(lab, claim.id)
            ours, origin, found = f"{entry.ours(lab, facts)}, {number_of_seeds(lab)}", "recomputed", judged.verdict
            links = (f"[{claim.notebook[:2]}]({notebooks}{claim.notebook}.ipynb), "
                     f"[figure]({figures}{entry.figure}.png)")
            command = f"`ssah recompute {entry.step}`"
        rows.append(f"| {claim.id} | {claim.text} | **{found}** | {ours} | {claim.paper} | {claim.where} | {origin} | "
                    f"{links} | {command} |")
    return "\n".join(rows)


def checks(lab: Lab) -> str:
    """Every check of every verdict as Markdown."""
    rows = ["| | holds | check | found |", "|---|---|---|---|"]
    for claim in claims.CLAIMS:
        if claim.notebook:
            rows += [f"| {claim.id} | {'yes' if check.holds else 'no'} | {check.question} | {check.found} |"
                     for check in verdict(lab, claim.id).checks]
    return "\n".join(rows)


def by_strict(lab: Lab) -> str:
    """The checks of C4 to C7 that come out otherwise by strict ASR, and the verdicts then, as Markdown."""
    rows, verdicts = ["| | check | by keywords | by strict ASR |", "|---|---|---|---|"], []
    for claim in ("C4", "C5", "C6", "C7"):
        usual, entry = verdict(lab, claim), ENTRIES[claim]
        strict = entry.judge(entry.facts(lab, "strict_asr"))
        verdicts.append(f"{claim} {strict.verdict}")
        rows += [f"| {claim} | {one.question} | {'yes' if one.holds else 'no'}: {one.found} | "
                 f"{'yes' if other.holds else 'no'}: {other.found} |"
                 for one, other in zip(usual.checks, strict.checks) if one.holds != other.holds]
    return "\n".join(rows) + f"\n\nVerdicts by strict ASR: {', '.join(verdicts)}."


# ---- from a figure to its command ------------------------------------------------------------

#: Figure -> the steps of which it shows results.
STEPS_OF = {
    "00_toy_units": (),
    "01_along_the_answer": ("along_answers",),
    **dict.fromkeys(("01_by_wording", "01_difference_by_block", "01_distance_by_block", "01_distance_by_token",
                     "01_distance_by_token_harmbench", "01_intent_residual", "01_predicts_refusal",
                     "01_static_reading"), ("probe",)),
    "02_choices": ("variation",), "02_four_labels": ("ablation",), "02_judge_threshold": ("judge_threshold",),
    "02_map": ("attribution", "shares"), "02_ratio_scan": ("scan",), "02_table_1": ("ablation",),
    "02_transplant": ("transplant",),
    "03_base_to_aligned": ("reattribution", "attribution"), "03_flows": ("reattribution", "attribution", "subsample"),
    "03_harm": ("reattribution", "tuning"), "03_matrices": ("reattribution", "attribution", "subsample"),
    "03_stability": ("subsample", "attribution"), "03_toy_flow": (),
    **dict.fromkeys(("04_along_training", "04_table_2", "04_table_2_doubled_epochs"), ("tuning",)),
    **dict.fromkeys(("05_table_3", "05_how_few", "05_along_training"), ("adapter_tuning", "tuning")),
    "05_units_or_weights": ("weight_tuning", "tuning"),
    **dict.fromkeys(("06_table_4", "06_after_prefill", "06_by_share"), ("budget",)),
    "06_flows": ("budget", "base_attribution")}


def traces() -> str:
    """Every figure of the repository as Markdown: its notebook, and the commands that recompute what it shows."""
    notebooks = {path.name[:2]: path.name for path in sorted((sources.REPOSITORY / "notebooks").glob("*.ipynb"))}
    rows = ["| figure | notebook | recompute with |", "|---|---|---|"]
    for path in sorted((sources.REPOSITORY / "figures").glob("*.png")):
        number, steps = path.name[:2], STEPS_OF.get(path.stem)
        commands = ("not listed in `STEPS_OF` (ssah/tables/ledger.py)" if steps is None else
                    ", ".join(f"`ssah recompute {step}`" for step in steps) or "a toy: nothing is stored")
        notebook = f"[{number}]({notebooks[number]})" if number in notebooks else "–"
        rows.append(f"| [{path.stem}](../figures/{path.name}) | {notebook} | {commands} |")
    return "\n".join(rows)


# ---- what another model would cost -----------------------------------------------------------

def costs(lab: Lab, sizes=(0.5e9, 1.1e9, 7e9)) -> pd.DataFrame:
    """Notebook 02 for one seed: measured here, and in proportion for models of other sizes (parameters).

    Minutes on two CPU cores. GiB: for ours the most that the process had held by the end of the alignment; for others
    18 bytes a parameter (float32 weights, gradients, AdamW's two moments; a bf16 copy), without activations.
    """
    seed = lab.profile.seeds[0]
    wanted = [Need(step, {"seed": seed, name: choice}) for step, name, choices in (
        ("ablation", "condition", CONDITIONS), ("transplant", "units", TRANSPLANTS), ("behaviour", "role", ROLES),
        ("variation", "variation", VARIATIONS)) for choice in choices]
    done = [lab.get(need.step, **need.params).provenance for need in with_upstream(lab.profile, wanted)]
    n = lab.get("tuning", seed=seed, condition="full").values["moved_bytes"] / 4
    minutes = sum(facts["seconds"] for facts in done) / 60
    rows = {f"{lab.profile.model.label} (measured)": (n, minutes, max(facts["peak_memory_gib"] for facts in done
                                                                     if facts["step"] == "checkpoint"))}
    rows |= {f"a model of {size / 1e9:g}B (in proportion)": (size, minutes * size / n, 18 * size / 2**30)
             for size in sizes}
    return pd.DataFrame([{"model": name, "parameters": f"{size / 1e6:,.0f} M", "minutes": f"{time:,.0f}",
                          "GiB": f"{memory:,.0f}"} for name, (size, time, memory) in rows.items()]).set_index("model")


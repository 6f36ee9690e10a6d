"""C2: four kinds of units (Table 1).

The steps of the first bench: `ratio_scan` (how many units each kind gets), `run` (Table 1 and the
plan), `direction`; of its first seed alone `transplant`, `behaviour`, `variations`. What they take
out or choose otherwise is in `conditions`. Of the second bench: `removal`, `second_judge`.
"""

from ..claim import Claim, attacks
from . import (  # noqa: F401  (those that are not named below register their steps)
    behaviour,
    decide,
    direction,
    ratio_scan,
    read,
    rechecks,
    removal,
    run,
    second_judge,
    transplant,
    variations,
)


def bench(profile, seed: int) -> list:
    """All that a seed of the second bench takes, what decides most first."""
    return removal.bench(profile, seed) + second_judge.bench(profile, seed)


CLAIM = Claim(
    id="C2",
    text="Four kinds of units; a per cent or so of them (SCU) carry safety",
    where="Table 1",
    paper="SCU 1.3 %: ASR 10 -> 66 % (Llama-2), utility 58.3 -> 56.9",
    notebook="02_four_kinds_of_units",
    core=run.core,
    extended=run.extended,
    facts=read.c2_facts,
    rule=read.judge_c2,
    ours=attacks(
        "without SCU minus without random units {}", "keyword: SCU - random SCU"
    ),
    step="ablation",
    figures={
        "02_table_1": ("ablation",),
        "02_paper_and_ours": ("ablation",),
        "02_choices": ("variation",),
        "02_four_labels": ("ablation",),
        "02_judge_threshold": ("judge_threshold",),
        "02_map": ("attribution", "shares"),
        "02_ratio_scan": ("scan",),
        "02_removals": ("removal",),
        "02_grows": ("removal", "labels"),
        "02_transplant": ("transplant",),
    },
    parts={"summary-c2": read.summary, "table-1": read.readme_table},
    deviations=read.deviations,
    rechecks=rechecks.rechecks,
    retrained=rechecks.retrained,
    bench=bench,
    rows={"C2-SCU": decide.scu_verdict, "C2-UCU": decide.ucu_verdict, "C2-RU": decide.ru_verdict},
)

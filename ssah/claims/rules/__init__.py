"""The rules that turn measured numbers into two words a row, and the intervals they stand on.

A row of the ledger asks two questions of a model. *Does the paper's own comparison come out
here?* has one primary number; *is it these units?* has one contrast, the effect minus that of
a control. Each answer is one word, read off one interval; everything else that notebooks show
is description. Gates say whether a question may be asked at all.

    values (seeds x prompts) -> satterthwaite -> Estimate -> verdict_of(row, ...) -> sentence
    estimates                                             rows, gates, verdicts

Arithmetic only: no model, no store, no torch.
"""
# ruff: noqa: F401  (its parts have this name too)

from .estimates import (
    Estimate,
    crossed_variance,
    exactly,
    mean_squares,
    ratio,
    satterthwaite,
)
from .gates import (
    BY_JUDGE,
    GATE_PROMPTS,
    NATIVE_GUARDRAIL,
    NATIVE_PRINTED,
    PAIR_GUARDRAIL,
    RUNS_LEAST,
    SAFE,
    SCU_OVERLAP_LEAST,
    Limit,
    accuracy,
    all_seeds,
    as_important,
    attack,
    enough_runs,
    guardrail,
    labels,
    lean,
    other_dose,
    over_refusal,
    placebo,
    placebo_tuning,
    share,
    sight,
    tax,
)
from .power import (
    Spread,
    probability_of_words,
    simulated,
    spread_of,
)
from .rows import (
    KEYWORD_FIRST,
    NATS,
    POINTS,
    ROWS,
    TIMES,
    Row,
)
from .verdicts import (
    ANY_UNITS,
    ASKED_AFTER,
    CANNOT_TELL,
    CONTROL_BETTER,
    FIRST_WORDS,
    NOT_ASKED,
    NOT_FOUND,
    OPPOSITE,
    REPRODUCED,
    SECOND_WORDS,
    SMALLER,
    SPECIFIC,
    Answer,
    Gate,
    Measured,
    Verdict,
    caveats,
    finding,
    first_answer,
    first_word,
    first_word_of_no_harm,
    in_words,
    numbers,
    second_answer,
    second_word,
    sentence,
    verdict_of,
)

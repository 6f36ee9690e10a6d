"""The ledger under other rules: which words there would be with another δ or judge.

A verdict keeps what it was read off (`ssah.claims.rules.Verdict`), so the rules can be asked
again. Gates stay as they were measured.
"""

from dataclasses import replace

from ..claims import answers, rules
from ..lab import Lab

#: δ, the least that matters, times these; 1 is what was fixed beforehand.
FACTORS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
#: Who judges answers: as each row has it, or one judge for all rows.
AS_FIXED = "as fixed beforehand"
JUDGES = (AS_FIXED, *rules.KEYWORD_FIRST)


def with_delta(row: rules.Row, factor: float) -> rules.Row:
    """A row whose δ, in both questions, is so many times as large."""
    second = replace(row.second, delta=row.second.delta * factor)
    if row.first is None:
        return replace(row, second=second)
    return replace(row, first=replace(row.first, delta=row.first.delta * factor), second=second)


def judged(verdict: rules.Verdict, judge: str, factor: float = 1.0) -> rules.Verdict:
    """A verdict again, by one of `JUDGES` and with δ times `factor`."""
    row = with_delta(rules.ROWS[verdict.row], factor)
    measured = verdict.measured
    other = verdict.by_second_judge
    if judge in row.judges[1:]:
        measured, other = other, measured
    return rules.verdict_of(row, measured, gates=verdict.gates, by_second_judge=other)


def ledger(labs: dict[str, Lab]) -> dict:
    """Every row and model under every judge and δ, as plain JSON."""
    models = [{"label": labs[name].profile.title,
               "rows": {row: cell(verdict) for row, verdict in verdicts.items()}}
              for name, verdicts in answers.words(labs).items()]
    return {"factors": FACTORS, "judges": JUDGES, "models": models,
            "rows": [about(row) for row in rules.ROWS.values()]}


def about(row: rules.Row) -> dict:
    """What a row asks, and its δ at each factor, in the unit of the second question."""
    deltas = [row.second.unit.amount(row.second.delta * factor) for factor in FACTORS]
    return {"id": row.id, "statement": row.statement, "deltas": deltas}


def cell(verdict: rules.Verdict) -> list[list[dict]]:
    """What there is to show of a verdict, a list a judge, an entry a factor of δ."""
    return [[shown(judged(verdict, judge, factor)) for factor in FACTORS] for judge in JUDGES]


def shown(verdict: rules.Verdict) -> dict:
    """Two words, and the numbers that decided."""
    return {"words": [verdict.first.word, verdict.second.word],
            "numbers": rules.numbers(verdict)}

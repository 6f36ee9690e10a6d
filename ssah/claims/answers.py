"""The second bench as people read it: two words a row and model, and the sentences behind them.

All of it is read from the store; a row that was not run says so.
"""

from collections.abc import Collection

from ..errors import NotStored
from ..lab import Lab
from ..lab.words import markdown_table
from . import claim, lab_of, verdict, verdicts
from .four_kinds import by_hand, removed
from .freezing import natives
from .profiles import BENCH
from .rules import ROWS, Row, Verdict, caveats, in_words, numbers, sentence

#: The model whose safety units were planted, and the rows of which its answer is known for that.
CONTROL = "organism"
KNOWN = ("C2-SCU", "C8")
#: Of a row that has no words: its runs are planned and not stored; the plan has none; or it is
#: another row of the control.
NOT_RUN = "not run yet"
NOT_PLANNED = "not planned"
NOT_KNOWN = "no known answer"
#: What is said below a ledger with such rows.
WHY_NO_WORDS = (
    "What stands behind *beyond* is the second question's own number; that of C4 is a refusal "
    "log-odds between two disjoint sets of equal size, and no part of the first. "
    "*No known answer*: of the organism only the safety units were planted, so it is a control of "
    f"{' and '.join(KNOWN)} alone. *Not planned*: models aligned by their makers have no twin "
    "without safety training (C1-unaligned, C6), and on them C3 and C7 would take more runs of "
    "fine-tuning than we have hours; the pair *made again*, with other seeds, is there for what a "
    "milder dose of fine-tuning decides (C3, C4, C7), since at the usual one the attack is too strong "
    "(gate *attack*) and the weights of the first pair are gone. *Not run yet*: planned "
    "and registered, without machine time so far; the largest model does not train on two cores, and "
    "a GPU was lent for half an hour in all.")
#: Of words that another judge of the answers does not speak.
DAGGER = " †"
#: What intervals of the second bench cover, and what stands below its sentences.
COVERED = ("They cover requests and random draws, and of our own pair its seeds; not other runs "
           "where there is one, nor other wordings or texts.")
MARKS = (f"Brackets are 95 % intervals. {COVERED} The mark{DAGGER} says that another judge of the "
         "answers gives another word. The second half of a sentence stands on a comparison with "
         "other units, or with another control: its number is in the table below.")
#: The mimetype under which notebook 09 leaves words and sentences for the front page.
ANSWERS = "application/vnd.ssah.answers+json"


def labs(compute: bool = False) -> dict[str, Lab]:
    """A lab on the stored results of every profile of the second bench, by its name."""
    return {name: lab_of(profile, compute=compute) for name, profile in BENCH.items()}


def begun(found: dict[str, Lab]) -> list[Lab]:
    """The labs of real models from which something was removed already (claim C2)."""
    return [lab for name, lab in found.items() if name != CONTROL and _was_tried(lab)]


def words(found: dict[str, Lab]) -> dict[str, dict[str, Verdict]]:
    """The verdicts of every lab on the rows that were run, by its name and the row's id."""
    return {name: verdicts(lab) for name, lab in found.items()}


def answered(lab: Lab) -> dict[str, Verdict | str]:
    """What there is on every row: its words, or why there are none (such as `NOT_RUN`)."""
    found: dict[str, Verdict | str] = {}
    for row_id in ROWS:
        try:
            found[row_id] = verdict(lab, row_id)
        except NotStored as missing:
            found[row_id] = NOT_RUN if _is_planned(lab, row_id, missing) else NOT_PLANNED
        if lab.profile.name == CONTROL and row_id not in KNOWN:
            found[row_id] = NOT_KNOWN
    return found


def _is_planned(lab: Lab, row_id: str, missing: NotStored) -> bool:
    """Whether a row will have words: its claim has runs on this model, and what is missing too.

    What it misses first may be planned for another row alone.
    """
    runs = claim(ROWS[row_id].claim).runs(lab.profile, lab.seeds[0])
    return bool(runs) and missing.label in {need.label for need in lab.plan()}


def _with_words(rows: dict[str, Verdict | str]) -> dict[str, Verdict]:
    """The rows that have words."""
    return {row_id: found for row_id, found in rows.items() if isinstance(found, Verdict)}


# ---- as Markdown -----------------------------------------------------------------------------

def ledger(found: dict[str, Lab]) -> str:
    """The words on every row and every model that ran, as Markdown; then what did not run."""
    return _ledger(found, {name: answered(lab) for name, lab in found.items()})


def findings(found: dict[str, Lab]) -> str:
    """What came out on every real model that ran: the numbers of Table 1, and a sentence a row."""
    return _findings(found, words(found))


def sentences(lab: Lab, rows: Collection[str] = tuple(ROWS)) -> str:
    """One plain sentence a row that was run, as a Markdown list. `rows`: the ids that are asked."""
    found = verdicts(lab, rows)
    if not found:
        return f"Not complete on {lab.profile.title} yet: {', '.join(rows)}."
    return _sentences(found)


def of_models(lab: Lab, rows: Collection[str], found: dict[str, Lab] | None = None) -> str:
    """What a claim's rows say of real models, as Markdown; empty on the pages of other profiles.

    On those of the default profile every model of the second bench speaks (`found`: their `labs`,
    where a notebook has them at hand), else the lab's own.
    """
    if lab.profile.name == "default":
        chosen = [bench for name, bench in (found or labs()).items() if name != CONTROL]
    else:
        chosen = [lab] if lab.profile.bench else []
    parts = []
    for bench in chosen:
        spoken = verdicts(bench, rows)
        if spoken:
            parts.append(f"*{bench.profile.title}*\n\n{_sentences(spoken)}")
    if not parts:
        return ""
    said = ("**On the second bench** (rules, gates and prompts were fixed before these runs; what "
            "had been seen by then, all rows, and what the words mean: notebook 09, section 6). "
            f"Brackets are 95 % intervals. {COVERED}")
    return "\n\n".join([said, *parts])


def _ledger(found: dict[str, Lab], by_model: dict[str, dict[str, Verdict | str]]) -> str:
    ran = {name: lab for name, lab in found.items() if _with_words(by_model[name])}
    head = ["", "claim", *(lab.profile.title for lab in ran.values())]
    rows = []
    for row in ROWS.values():
        cells = [_cell(by_model[name][row.id]) for name in ran]
        rows.append([row.id, row.statement, *cells])
    return f"{markdown_table(head, rows)}\n\n{WHY_NO_WORDS}{_to_come(found, ran)}"


def _cell(found: Verdict | str) -> str:
    """The two words, with the numbers that decided below them; or why there are none."""
    if isinstance(found, str):
        return found
    return "<br>".join([f"**{found}**", *numbers(found)])


def _to_come(found: dict[str, Lab], ran: dict[str, Lab]) -> str:
    """A sentence on the models of which nothing was run, after a blank line; or nothing."""
    missing = [lab.profile.title for name, lab in found.items() if name not in ran]
    if not missing:
        return ""
    return f"\n\nNot run yet: {'; '.join(missing)}."


def _findings(found: dict[str, Lab], by_model: dict[str, dict[str, Verdict]]) -> str:
    real = {name: lab for name, lab in found.items() if name != CONTROL and by_model[name]}
    if not real:
        return _on_the_way(found)
    parts = [_by_claim(real, by_model)]
    noted = {short(lab): _caveats(by_model[name]) for name, lab in real.items()}
    if any(noted.values()):
        lines = [f"*{model}.* {' '.join(caveats)}" for model, caveats in noted.items() if caveats]
        parts.append(f"**Caveats**, gates that failed and block nothing:\n\n{_listed(lines)}")
    measured = [f"**{lab.profile.title}**\n\n{_listed(lab.once(_measured))}"
                for lab in real.values()]
    summary = "<summary>What was measured, model by model</summary>"
    folded = "\n\n".join([f"<details>{summary}", *measured, "</details>"])
    return "\n\n".join([*parts, folded])


def _by_claim(real: dict[str, Lab], by_model: dict[str, dict[str, Verdict]]) -> str:
    """A sentence a claim, as a Markdown list; below it what the marks mean."""
    lines = []
    for told in by_claim(real, by_model):
        said = []
        for part in told["said"]:
            models = ", ".join(f"*{model}*{rest}" for model, rest in part["models"])
            said.append(f"{models}: {part['words']}.")
        lines.append(f"- **{told['statement']}.** {' '.join(said)}")
    return "\n".join([*lines, "", MARKS])


def by_claim(real: dict[str, Lab], by_model: dict[str, dict[str, Verdict]]) -> list[dict]:
    """The rows with words on a real model: statement, and what is said, as plain JSON."""
    found = []
    for row in ROWS.values():
        spoken = {lab: by_model[name][row.id] for name, lab in real.items()
                  if row.id in by_model[name]}
        if spoken:
            found.append({"statement": row.statement, "said": _of_claim(row, spoken)})
    return found


def _of_claim(row: Row, spoken: dict[Lab, Verdict]) -> list[dict]:
    """Models of the same words together, each with the number that decided; the unit once."""
    alike: dict[str, list[list[str]]] = {}
    question = row.first or row.second
    shown = question.unit.shown
    for lab, found in spoken.items():
        rest = ""
        decided = found.measured.effect if row.first else found.measured.contrast
        if decided is not None:
            rest = f" ({shown(decided)})"
            shown = question.unit.brief
        if found.depends_on_the_judge:
            rest += DAGGER
        alike.setdefault(_clause(found), []).append([short(lab), rest])
    return [{"words": words, "models": models} for words, models in alike.items()]


def _clause(verdict: Verdict) -> str:
    """The words as a clause; of a verdict that gates block, with their names."""
    if not verdict.is_blocked:
        return in_words(verdict)
    failed = [f"*{gate.name}*" for gate in verdict.gates if gate.blocking and not gate.passed]
    return f"cannot tell, for a gate does not hold ({', '.join(failed)})"


def _listed(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def short(lab: Lab) -> str:
    """The name of a lab's model, without what stands behind it, but with its variant."""
    name = lab.profile.model.label.partition(" (")[0].partition(",")[0]
    return name + lab.profile.variant


def _measured(lab: Lab) -> list[str]:
    """What removing and freezing units did, in numbers that need no rule: a line a subject."""
    parts = [natives.in_numbers(lab)]
    if _was_tried(lab):
        parts = [removed.in_numbers(lab), by_hand.in_numbers(lab), *parts]
    return [line for part in parts for line in part.splitlines()]


def _was_tried(lab: Lab) -> bool:
    """Whether something was removed from the model."""
    return lab.has("removal")


def _on_the_way(found: dict[str, Lab]) -> str:
    """What to say while no row of a real model is complete."""
    labels = [lab.profile.title for lab in begun(found)]
    if not labels:
        return "No real model has been run on this bench yet."
    return (f"No row is complete on a real model yet, so no word is spoken. What has been measured "
            f"of {' and '.join(labels)} stands in notebook 02, section 8.")


def _sentences(found: dict[str, Verdict]) -> str:
    lines = [f"- {sentence(verdict)}" for verdict in found.values()]
    return "\n".join([*lines, *(f"\n*A caveat.* {caveat}" for caveat in _caveats(found))])


def _caveats(found: dict[str, Verdict]) -> list[str]:
    """Every caveat once, with the rows that it is about."""
    rows: dict[str, list[str]] = {}
    for row_id, found_of_row in found.items():
        for caveat in caveats(found_of_row):
            rows.setdefault(caveat, []).append(row_id)
    return [f"On {', '.join(ids)}: {caveat}." for caveat, ids in rows.items()]


def gates(found: dict[str, Lab]) -> str:
    """Every gate of every model that ran, as Markdown: the rows, whether it holds, what was found.

    A gate that fails blocks the rows that name it; elsewhere it is a caveat.
    """
    rows = []
    for name, verdicts_of in words(found).items():
        label = found[name].profile.title
        of_rows: dict[tuple, list[str]] = {}
        for row_id, of_row in verdicts_of.items():
            for gate in of_row.gates:
                key = (gate.name, "yes" if gate.passed else "no", gate.found)
                of_rows.setdefault(key, []).append(row_id)
        rows += [[label, gate, holds, what, ", ".join(ids)]
                 for (gate, holds, what), ids in of_rows.items()]
    return markdown_table(["", "gate", "holds", "found", "rows"], rows)


# ---- in a notebook ---------------------------------------------------------------------------

def report(found: dict[str, Lab]) -> None:
    """Show findings and ledger in a notebook, and leave them for the front page."""
    from IPython.display import display

    by_model = {name: answered(lab) for name, lab in found.items()}
    spoken = {name: _with_words(rows) for name, rows in by_model.items()}
    real = {name: lab for name, lab in found.items() if name != CONTROL}
    shown = f"{_findings(found, spoken)}\n\n{_ledger(found, by_model)}"
    models = []
    for name, lab in found.items():
        cells = [_noted(verdict) for verdict in spoken[name].values()]
        measured = [] if name == CONTROL else lab.once(_measured)
        without = {row_id: why for row_id, why in by_model[name].items() if isinstance(why, str)}
        models.append({"label": lab.profile.title, "short": short(lab),
                       "control": name == CONTROL,
                       "measured": measured, "cells": cells, "without": without,
                       "caveats": _caveats(spoken[name])})
    display({"text/markdown": shown, "text/plain": "two words a row and model",
             ANSWERS: {"models": models, "not_planned": WHY_NO_WORDS, "marks": MARKS,
                       "claims": by_claim(real, spoken)}}, raw=True)


def _noted(verdict: Verdict) -> dict:
    """A verdict as plain JSON."""
    return {"row": verdict.row, "first": verdict.first.word, "second": verdict.second.word,
            "depends": verdict.depends_on_the_judge, "numbers": numbers(verdict),
            "sentence": sentence(verdict)}

"""The two words of a row, read off one interval each, and the sentence that says them."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import SsahError
from .estimates import Estimate
from .rows import ROWS, Row

# ---- the two words ---------------------------------------------------------------------------

REPRODUCED = "reproduced"
SMALLER = "smaller"
OPPOSITE = "opposite"
NOT_FOUND = "not found"
CANNOT_TELL = "cannot tell"
#: The first word where the paper has nothing to compare with.
NO_COMPARISON = "no published comparison"

SPECIFIC = "specific"
CONTROL_BETTER = "the control does better"
ANY_UNITS = "any units do"
NOT_ASKED = "not asked"

FIRST_WORDS = (REPRODUCED, SMALLER, OPPOSITE, NOT_FOUND, CANNOT_TELL)
SECOND_WORDS = (SPECIFIC, CONTROL_BETTER, ANY_UNITS, CANNOT_TELL, NOT_ASKED)
#: First words after which the second question is asked.
ASKED_AFTER = (REPRODUCED, SMALLER, NO_COMPARISON)


def within(estimate: Estimate, delta: float) -> bool:
    """Whether the 90 % interval lies between -δ and δ: the effect is too small to matter."""
    return -delta < estimate.low90 and estimate.high90 < delta


def first_word(estimate: Estimate, *, delta: float, smallest_published: float | None) -> str:
    """Does the paper's comparison come out? The first word that holds, for an effect.

    *reproduced*: the 95 % interval is above 0 and the mean is at least half the paper's smallest
    comparable number; *smaller*: it is above 0; *opposite*: it is below 0; *not found*: the 90 %
    interval lies within δ of 0; else *cannot tell*.

    Where no number of the paper can be compared, `smallest_published` is None and δ takes the
    place of the half: a clear effect too small to matter is *smaller*, never *reproduced*.
    """
    enough = delta if smallest_published is None else smallest_published / 2
    if estimate.low > 0 and estimate.mean >= enough:
        return REPRODUCED
    if estimate.low > 0:
        return SMALLER
    if estimate.high < 0:
        return OPPOSITE
    if within(estimate, delta):
        return NOT_FOUND
    return CANNOT_TELL


def first_word_of_no_harm(harm: Estimate, *, delta: float) -> str:
    """The first word of a row that claims no harm; positive is harm.

    *reproduced*: the 95 % interval ends below δ; *opposite*: it begins above δ; else *cannot
    tell*. A clear gain is *reproduced* too: the claim is that nothing is lost.
    """
    if harm.high < delta:
        return REPRODUCED
    if harm.low > delta:
        return OPPOSITE
    return CANNOT_TELL


def second_word(contrast: Estimate, *, delta: float) -> str:
    """Is it these units? The first word that holds, for an effect minus the control's.

    For rows that claim no harm the contrast is the control's harm minus that of these units.
    """
    if contrast.low > 0:
        return SPECIFIC
    if contrast.high < 0:
        return CONTROL_BETTER
    if within(contrast, delta):
        return ANY_UNITS
    return CANNOT_TELL


# ---- verdicts --------------------------------------------------------------------------------

@dataclass(frozen=True)
class Answer:
    """One word, with the estimate that it was read off (None where there was none)."""

    word: str
    estimate: Estimate | None = None

    def __str__(self) -> str:
        return self.word


@dataclass(frozen=True)
class Gate:
    """What had to hold before a row may be judged: whether it did, and what was found."""

    name: str
    passed: bool
    #: Whether a failure blocks the first or the second question of the row; else it is a caveat.
    blocking: bool
    found: str


@dataclass(frozen=True)
class Measured:
    """What one judge saw of a row: its primary number and its contrast.

    None stands for a number that could not be formed (a ratio that was refused, an arm that did
    not reach the loss); the word is then *cannot tell*. A row without a published comparison
    has no effect.
    """

    effect: Estimate | None
    contrast: Estimate | None


@dataclass(frozen=True)
class Verdict:
    """The two words on one row and model, with the gates and all that they were read off."""

    row: str            # its id
    first: Answer
    second: Answer
    gates: tuple[Gate, ...]
    depends_on_the_judge: bool
    measured: Measured
    by_second_judge: Measured | None

    def __str__(self) -> str:
        words = f"{self.first}, {self.second}"
        return f"{words}, depends on the judge" if self.depends_on_the_judge else words

    @property
    def is_blocked(self) -> bool:
        """Whether a gate failed that permits no word; what was measured all the same is shown."""
        return self.first.word.startswith(f"{CANNOT_TELL}: ")


def first_answer(row: Row, effect: Estimate | None) -> Answer:
    """The first word of a row, whatever its gates say."""
    if row.first is None:
        return Answer(NO_COMPARISON)
    if effect is None:
        return Answer(CANNOT_TELL)
    if row.claims_no_harm:
        return Answer(first_word_of_no_harm(effect, delta=row.first.delta), effect)
    word = first_word(effect, delta=row.first.delta, smallest_published=row.smallest_published)
    return Answer(word, effect)


def second_answer(row: Row, first: Answer, contrast: Estimate | None) -> Answer:
    """The second word of a row after its first, whatever its gates say."""
    if first.word not in ASKED_AFTER:
        return Answer(NOT_ASKED)
    if contrast is None:
        return Answer(CANNOT_TELL)
    return Answer(second_word(contrast, delta=row.second.delta), contrast)


def verdict_of(row: Row, measured: Measured, *, gates: Sequence[Gate],
               by_second_judge: Measured | None = None) -> Verdict:
    """The two words on a row.

    `measured` is what the row's primary judge saw, `by_second_judge` the same by the second one:
    if that gives another first or second word, the verdict depends on the judge. A contrast
    that no judge enters (log-odds) is the same in both.

    `gates` must hold every gate that blocks the row; others are caveats. A failure of one that
    blocks both questions gives *cannot tell* with its name, and the second is not asked; of one
    that blocks the second question, *cannot tell* with its name there, where it was asked.

    Raises SsahError where a gate or a judge that the row names is missing, or has no place.
    """
    _complete(row, gates, by_second_judge)
    failed = [gate.name for gate in gates if not gate.passed]
    blocked = [name for name in row.blocked_by if name in failed]
    if blocked:
        reason = Answer(f"{CANNOT_TELL}: {', '.join(blocked)}")
        return Verdict(row.id, reason, Answer(NOT_ASKED), tuple(gates), False, measured,
                       by_second_judge)

    first, second = _answers(row, measured, failed)
    depends = False
    if by_second_judge is not None:
        other_first, other_second = _answers(row, by_second_judge, failed)
        depends = (first.word, second.word) != (other_first.word, other_second.word)
    return Verdict(row.id, first, second, tuple(gates), depends, measured, by_second_judge)


def _complete(row: Row, gates: Sequence[Gate], by_second_judge: Measured | None) -> None:
    """Raise SsahError where something that the row names is missing."""
    names = [gate.name for gate in gates]
    missing = {*row.blocked_by, *row.second_blocked_by} - set(names)
    if missing:
        raise SsahError(f"{row.id}: measure its gates first: {', '.join(sorted(missing))}")
    if bool(row.judges) != (by_second_judge is not None):
        wanted = " and ".join(row.judges) or "no judge"
        raise SsahError(f"{row.id} is judged by {wanted}: give `by_second_judge` accordingly")


def _answers(row: Row, measured: Measured, failed: Sequence[str]) -> tuple[Answer, Answer]:
    """Both answers by one judge, given the names of the gates that failed."""
    first = first_answer(row, measured.effect)
    second = second_answer(row, first, measured.contrast)
    blocked = [name for name in row.second_blocked_by if name in failed]
    if blocked and second.word != NOT_ASKED:
        second = Answer(f"{CANNOT_TELL}: {', '.join(blocked)}")
    return first, second


# ---- a verdict in words ----------------------------------------------------------------------

def sentence(verdict: Verdict) -> str:
    """A verdict as one plain sentence, with the numbers that decided (see also `caveats`).

    Where a gate permits no word, with that gate, and with what was measured all the same.

    ``Removing the units called safety-critical takes refusals away: reproduced, and it
    is these units (48% of what could be lost [40, 56]; beyond other units 46% ...).``
    """
    return f"{ROWS[verdict.row].statement}: {finding(verdict)}"


def finding(verdict: Verdict) -> str:
    """`sentence` without the claim that it is about."""
    text = in_words(verdict)
    found = numbers(verdict)
    if found:
        text += f" ({'; '.join(found)})"
    if verdict.depends_on_the_judge:
        text += "; another judge of the answers gives another word"
    for gate in verdict.gates:
        if gate.blocking and not gate.passed:
            text += f"; {gate.name}: {gate.found}"
    return f"{text}."


def in_words(verdict: Verdict) -> str:
    """Both words of a verdict as one clause: ``reproduced, and it is these units``."""
    return f"{verdict.first}{_second_clause(ROWS[verdict.row], verdict.second)}"


def caveats(verdict: Verdict) -> list[str]:
    """The gates that failed and block nothing, each with what was found."""
    return [f"{gate.found} (gate *{gate.name}*)" for gate in verdict.gates
            if not gate.passed and not gate.blocking]


def _second_clause(row: Row, second: Answer) -> str:
    if second.word == NOT_ASKED:
        return ""
    clauses = {SPECIFIC: f", and {row.clauses.specific}",
               CONTROL_BETTER: f", but {row.clauses.control_better}",
               ANY_UNITS: f", but {row.clauses.any_units}"}
    return clauses.get(second.word, f", but one cannot tell whether {row.clauses.specific}")


def numbers(verdict: Verdict) -> list[str]:
    """The numbers behind a verdict as text: of the first question, then of the second."""
    row = ROWS[verdict.row]
    effect = verdict.first.estimate
    contrast = verdict.second.estimate
    if verdict.is_blocked:
        effect = verdict.measured.effect
        contrast = verdict.measured.contrast
    found = []
    if effect is not None:
        found.append(row.first.unit.shown(effect))
    if contrast is not None:
        found.append(f"{row.clauses.contrast} {row.second.unit.shown(contrast)}")
    if verdict.is_blocked and found:
        found[0] = f"measured all the same: {found[0]}"
    return found

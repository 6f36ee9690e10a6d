"""A claim of the paper as one object: its text, its runs, its rule, its figures, its words.

Ledger, plan, README, scoreboard and traces are loops over `ssah.claims.CLAIMS`. A verdict is
*met*, *partly met*, *not met* or *not tested*: whether the model of the profile meets the
conditions of the claim's rule (the first bench's). Several conditions at once cannot say what was
seen; the two words of `rules` do. The margins of the rules were written before the results were
looked at (the git history shows it).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from ..lab import Lab, Need
from ..lab.statistics import Estimate
from ..lab.words import NOTE, markdown_table
from . import rules

#: What a rule asks for, by name; C1's are shares from 0 to 1.
Facts = dict[str, Estimate] | dict[str, float]


@dataclass(frozen=True)
class Check:
    """One condition of a verdict: what was asked, what was found, whether it holds."""

    question: str
    found: str
    holds: bool


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict with the checks behind it."""

    claim: str          # its id
    verdict: str        # met | partly met | not met | not tested
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Deviation:
    """One choice of ours, beside what the paper does."""

    name: str
    paper: str
    here: str
    why: str
    otherwise: str      # what would change, measured where it was


@dataclass(frozen=True)
class Recheck:
    """One thing that `ssah verify` computes again from what is stored."""

    name: str
    passed: bool
    details: str = ""


def nothing(*arguments) -> list:
    """Of a claim that has none of it."""
    return []


@dataclass(frozen=True)
class Claim:
    """One claim: a row of the ledger, and everything that belongs to it.

    `facts` and `rule` make its verdict on the first bench, where a claim without a rule was not
    tested; `by_rate` says that the facts may be asked for by strict ASR too. `bench`, `tunings`,
    `milder` and `rows` are those of the second bench.
    """

    id: str
    text: str                                                   # in our words
    where: str                                                  # in the paper
    paper: str                                                  # the paper's number
    notebook: str = ""
    core: Callable[[int], list[Need]] = nothing                 # what it needs, of a seed
    extended: Callable[[int], list[Need]] = nothing             # and of the first seed alone
    facts: Callable[..., Facts] | None = None                   # of a lab
    rule: Callable[[Facts], Verdict] | None = None
    by_rate: bool = False
    least_seeds: int = 1                                        # that a verdict takes
    ours: Callable[[Lab, Facts], str] | None = None             # our number, with interval and n
    step: str = ""                                              # of `ssah recompute`
    figures: dict[str, tuple[str, ...]] = field(default_factory=dict)   # -> steps that it shows
    # parts of README, as Markdown
    parts: dict[str, Callable[[Lab, Verdict], str]] = field(default_factory=dict)
    deviations: Callable[[Lab], list[Deviation]] = nothing
    rechecks: Callable[[Lab], Iterator[Recheck]] = nothing      # from stored arrays, exactly
    retrained: Callable[[Lab, Lab], Iterator[Recheck]] = nothing    # stored, computed afresh
    bench: Callable[..., list[Need]] = nothing      # of a profile and a seed: the second bench
    tunings: Callable[..., list[Need]] = nothing    # and of a profile and a seed of fine-tuning
    milder: Callable[..., list[Need]] = nothing     # and of a profile and a seed of its milder dose
    rows: dict[str, Callable[[Lab], "rules.Verdict"]] = field(default_factory=dict)   # by its id

    @property
    def figure(self) -> str:
        """The figure that the ledger links: the first."""
        return next(iter(self.figures))

    def runs(self, profile, seed: int) -> list[Need]:
        """What a seed takes on the second bench: measured, and fine-tuned at every planned dose."""
        if profile.milder_alone:
            return self.milder(profile, seed)
        return [*self.bench(profile, seed), *self.tunings(profile, seed),
                *self.milder(profile, seed)]

    def require(self, lab: Lab) -> None:
        """All that the claim needs, for the seeds of a lab (see `ssah.lab.Lab.require`)."""
        for seed in lab.seeds:
            lab.require(self.core(seed))
        lab.require(self.extended(lab.profile.seeds[0]))

    def judged(self, lab: Lab, **options) -> tuple[Facts, Verdict]:
        """The facts of a lab and the verdict on them; *not tested* by too few seeds."""
        self.require(lab)
        facts = lab.once(self.facts, **options)
        verdict = self.rule(facts)
        if len(lab.seeds) < self.least_seeds:
            verdict = replace(verdict, verdict="not tested")
        return facts, verdict

    def verdict(self, lab: Lab) -> Verdict:
        """The verdict, from this claim's results alone."""
        return self.judged(lab)[1]


# ---- parts of rules --------------------------------------------------------------------------

def points(facts: Facts, name: str) -> str:
    """A difference of rates (fractions) as text: ``12.3 points [10.1, 14.8]``."""
    mean, low, high = (value * 100 for value in facts[name])
    return f"{mean:.1f} points [{low:.1f}, {high:.1f}]"


def times(facts: Facts, name: str) -> str:
    """A ratio as text: ``0.84 x [0.73, 0.94]``."""
    mean, low, high = facts[name]
    return f"{mean:.2f} x [{low:.2f}, {high:.2f}]"


def pp(margin: float) -> str:
    """A margin on a difference of rates (a fraction) as text: ``10 points``."""
    return f"{margin * 100:.0f} points"


def all_reached(facts: Facts, *conditions: str) -> bool:
    """Whether every seed of these conditions came to the loss at which they are compared."""
    return all(facts[f"reached: {name}"].mean == 1 for name in conditions)


def clear(facts: Facts, name: str, margin: float) -> bool:
    """Whether a difference is at least the margin, with its interval above 0."""
    return facts[name].mean >= margin and facts[name].low > 0


def above(question: str, facts: Facts, first: str, second: str, margin: float) -> Check:
    """Check that ASR with `first` is the margin above that with `second`.

    At a loss that both reached in every seed.
    """
    name = f"{first} - {second}"
    holds = clear(facts, name, margin) and all_reached(facts, first, second)
    return Check(question, points(facts, name), holds)


def conclude(claim: str, checks: tuple[Check, ...], partly: bool) -> Verdict:
    """*met* where all checks hold, else *partly met* if `partly`."""
    if all(check.holds for check in checks):
        return Verdict(claim, "met", checks)
    return Verdict(claim, "partly met" if partly else "not met", checks)


def attacks(text: str, *names: str) -> Callable[[Lab, Facts], str]:
    """Our number: `text` with differences of keyword ASR (names of facts) in its ``{}``."""
    def ours(lab: Lab, facts: Facts) -> str:
        differences = text.format(*(points(facts, name) for name in names))
        return f"keyword ASR: {differences}; n = {lab.profile.evaluation.harmful}"
    return ours


# ---- showing ---------------------------------------------------------------------------------

def report(verdict: Verdict) -> None:
    """Show a verdict in a notebook, and leave it in the output for the runner's summary."""
    from IPython.display import display

    rows = [["yes" if check.holds else "no", check.question, check.found]
            for check in verdict.checks]
    brief = "; ".join(f"{check.question.split(':')[0]} {'yes' if check.holds else 'no'}"
                      for check in verdict.checks)
    title = f"{verdict.claim}, conditions of the first bench: {verdict.verdict}"
    explained = ("Points are percentage points; brackets are 95 % intervals, or the lowest and "
                 "highest seed. A difference of *at least* so many points must also have its whole "
                 "bracket above 0.")
    display({"text/markdown": f"**{title}**\n\n"
                              f"{markdown_table(['holds', 'check', 'found'], rows)}\n\n{explained}",
             "text/plain": title,
             NOTE: {"claim": verdict.claim, "verdict": verdict.verdict, "why": brief}},
            raw=True)

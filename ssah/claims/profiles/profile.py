"""A profile: all sections of a run, and its seeds."""

import shlex
from dataclasses import dataclass, field

from .claim_sections import (
    BudgetSection,
    ComparisonSection,
    FreezingSection,
    MilderSection,
    PreferenceSection,
    ProbingSection,
    ReevaluationSection,
    RemovalSection,
    SecondJudgeSection,
)
from .sections import (
    AlignmentSection,
    CalibrationSection,
    ClassificationSection,
    DataSection,
    EvaluationSection,
    JudgeSection,
    ModelSection,
)


@dataclass(frozen=True)
class Profile:
    """All sections of a run and the seeds of its core."""

    name: str
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    alignment: AlignmentSection = field(default_factory=AlignmentSection)
    calibration: CalibrationSection = field(default_factory=CalibrationSection)
    classification: ClassificationSection = field(default_factory=ClassificationSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    judge: JudgeSection = field(default_factory=JudgeSection)
    probing: ProbingSection = field(default_factory=ProbingSection)
    freezing: FreezingSection = field(default_factory=FreezingSection)
    milder: MilderSection = field(default_factory=MilderSection)
    comparison: ComparisonSection = field(default_factory=ComparisonSection)
    budget: BudgetSection = field(default_factory=BudgetSection)
    removal: RemovalSection = field(default_factory=RemovalSection)
    second_judge: SecondJudgeSection = field(default_factory=SecondJudgeSection)
    reevaluation: ReevaluationSection = field(default_factory=ReevaluationSection)
    preference: PreferenceSection = field(default_factory=PreferenceSection)
    seeds: tuple[int, ...] = (0, 1, 2)
    further_tunings: tuple[int, ...] = ()   # seeds of fine-tuning alone, beside `seeds`
    milder_alone: bool = False              # nothing but the milder dose of fine-tuning is planned
    variant: str = ""                       # what tells it from another profile of the same model
    chosen: str = ""        # what chooses it on the command line, if not its name
    bench: bool = False     # of the second bench (`rules`); its plan is another

    @property
    def title(self) -> str:
        """What the model is called in lists of several."""
        return self.model.label + self.variant

    @property
    def option(self) -> str:
        """What chooses it on the command line, with a space before; empty for the default one."""
        if self.name == "default":
            return ""
        return f" --profile {shlex.quote(self.chosen or self.name)}"


#: The sections of a profile, by name.
SECTIONS = tuple(name for name in Profile.__dataclass_fields__
                 if name not in ("name", "seeds", "further_tunings", "milder_alone", "variant",
                              "chosen", "bench"))

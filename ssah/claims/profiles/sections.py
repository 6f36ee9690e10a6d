"""What all claims stand on: the model, its prompts and alignment, and how all is measured."""

from dataclasses import dataclass

#: Prompt sets that we wrote ourselves -> the source that they are read from.
HAND_MADE = {
    "borderline": "data:borderline.csv",
    "safe-align": "data:safe_requests.csv",
    "safe-select": "data:safe_requests.csv",
    "safe-evaluate": "data:safe_requests.csv",
}


class Section:
    """Settings of one part of a run."""

    def sources(self) -> list[str]:
        """Names of the sources that a step reads with these settings.

        Those of `ssah.inputs.archives`, or ``data:FILE`` for a file of ``data/``.
        """
        return []


@dataclass(frozen=True)
class ModelSection(Section):
    """Which model, and in which number format it is scored and evaluated."""

    name: str = "smollm2-135m"
    label: str = "SmolLM2-135M-Instruct (Q4_1, dequantized)"
    dtype: str = "bfloat16"
    aligned: str = ""       # a ready-made aligned model, instead of aligning `name`

    def sources(self) -> list[str]:
        return [name for name in (self.name, self.aligned) if name]


@dataclass(frozen=True)
class DataSection(Section):
    """Prompt sets and the sizes of their four disjoint splits."""

    harmful: tuple[str, ...] = ("advbench", "harmbench")
    evaluate_only: tuple[str, ...] = ("harmbench",)
    benign: tuple[str, ...] = ("alpaca", "chat-instructions")
    harmful_sizes: tuple[int, ...] = (150, 150, 50, 100)    # align, identify, select, evaluate
    benign_sizes: tuple[int, ...] = (400, 150, 50, 150)
    longest_prompt: int = 240       # characters, benign prompts
    align_unseen: int = 0           # prompts of `evaluate_only` that are trained on after all

    def sources(self) -> list[str]:
        return [*self.harmful, *self.benign, "data:excluded.csv"]


@dataclass(frozen=True)
class AlignmentSection(Section):
    """Safety SFT of the base model (aligned) and the same amount without refusals (unaligned).

    With `look_every` it is that of the second bench (`shared.pair`): trained until the gates hold,
    on all that the fields below it say. Their defaults are the first bench.
    """

    refusals: int = 150             # harmful prompts of `align` answered with our refusal wordings
    benign: int = 250               # benign ones with the base model's own greedy answers
    answer_tokens: int = 40
    epochs: int = 2
    lr: float = 5e-5
    batch_size: int = 16
    system: str = "default"
    look_every: float = 0.0         # epochs between two looks at the gates; 0: train all epochs
    look_tokens: int = 64           # of the answers that are looked at
    look_safe: str = ""             # safe requests that are asked then
    judge_version: int = 1          # of `ssah.judging`, which labels those answers
    wordings: str = "refusals"      # file of refusal wordings
    wordings_each: int = 1          # how many of them answer each harmful request
    answers_each: int = 1           # of the base model to each benign prompt, the first one greedy
    safe: str = ""                  # safe requests that look dangerous, answered by the base model
    without_system: float = 0.0     # share of the examples that have no system prompt

    def sources(self) -> list[str]:
        asked = [HAND_MADE.get(name, name) for name in (self.safe, self.look_safe) if name]
        return [f"data:{self.wordings}.csv", *asked]


@dataclass(frozen=True)
class CalibrationSection(Section):
    """The texts that importance is measured on: prompts of `identify`, redrawn with every seed."""

    prompts: int = 100              # harmful, and as many benign
    answer_tokens: int = 32
    system: str = "default"
    judge_version: int = 1          # of `ssah.judging`: what counts as a refusal
    # one bank of texts for all seeds (`shared.bank`): a file of refusal wordings, each of which
    # follows every harmful prompt, and how many answers of the base model a benign prompt has
    wordings: str = ""
    answers_each: int = 1

    def sources(self) -> list[str]:
        return [f"data:{self.wordings}.csv"] if self.wordings else []


@dataclass(frozen=True)
class ClassificationSection(Section):
    """How scores become labels, and the grids of the ratio scan (shares of all units)."""

    scale: str = "log-z"
    bank: bool = False      # scores of the bank of texts (second bench), which stay in the cache
    scu_grid: tuple[float, ...] = (0.003, 0.0065, 0.013, 0.03, 0.05, 0.08)
    ucu_grid: tuple[float, ...] = (0.002, 0.005, 0.01, 0.02)
    ru_grid: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3)


@dataclass(frozen=True)
class EvaluationSection(Section):
    """How answers and utility are measured on the `evaluate` split."""

    harmful: int = 100              # prompts of each harmful set
    systems: tuple[str, ...] = ("default", "none")
    answer_tokens: int = 32
    tasks: tuple[str, ...] = ("openbookqa", "piqa", "commonsenseqa")
    questions: int = 200            # a task
    wiki: str = "wikipedia"
    wiki_tokens: int = 4096
    benign: int = 50                # benign prompts with reference answers
    benign_tokens: int = 64         # of each reference answer
    borderline: str = "borderline"  # safe requests that look dangerous, for over-refusal
    judge_version: int = 1          # of `ssah.judging`; 2: keywords in all forms of quotes, too
    # babble is told by the base model's NLL too; no: by repetition alone, where that model never
    # refuses and so finds every refusal unlikely
    babble_by_nll: bool = True
    # of HarmBench, and safe ones that look dangerous, by which the guardrail is measured
    guarded: int = 100

    def sources(self) -> list[str]:
        hand_made = ["data:openings.csv", "data:refusal_keywords.txt", "data:refusals.csv"]
        borderline = HAND_MADE.get(self.borderline, self.borderline)
        return [*self.tasks, self.wiki, borderline, *hand_made]


@dataclass(frozen=True)
class JudgeSection(Section):
    """Answers that people labelled, beside which the judge is put."""

    labelled: str = "refusal-labels"
    judge_version: int = 1

    def sources(self) -> list[str]:
        labelled = [self.labelled]
        if self.labelled == "refusal-labels":       # two archives, one set
            labelled.append("refusal-labels-extra")
        return [*labelled, "data:refusal_keywords.txt"]

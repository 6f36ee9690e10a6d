"""What single claims add: their probes, trainings and removals."""

from dataclasses import dataclass

from .sections import Section


@dataclass(frozen=True)
class ProbingSection(Section):
    """How the reasoning direction is probed (claim C1)."""

    queries: int = 100
    steps: tuple[int, ...] = (2, 4, 6, 8, 10)       # generated (branch) or appended (static) tokens
    answer_tokens: int = 32
    along_queries: int = 50
    along_steps: int = 20
    prefills: tuple[int, ...] = (0, 1, 3, 5, 10, 20)    # tokens put into the model's mouth
    system: str = "default"
    pair: tuple[str, ...] = ()      # two models of one's own, aligned and unaligned, if not ours
    judge_version: int = 1

    def sources(self) -> list[str]:
        return [*self.pair, "data:openings.csv", "data:prefills.csv"]


@dataclass(frozen=True)
class FreezingSection(Section):
    """Benign fine-tuning of the aligned model with some units frozen (claim C4)."""

    instructions: str = "alpaca"    # whose prompts and reference answers
    examples: int = 128             # 0: a model of the second bench that is not fine-tuned
    unseen: int = 64                # others of the same set
    probe: int = 64                 # training examples on which the loss is compared
    answer_tokens: int = 96         # longest reference answer
    epochs: int = 2                 # of full fine-tuning; the others: twice as long (paper)
    lr: float = 1e-4
    slower_lr: float = 4e-5
    batch_size: int = 16
    # SCU, UCU, RU of the paper's Llama-2, so that CU are 71 %
    shares: tuple[float, ...] = (0.013, 0.133, 0.148)
    top_cu: float = 0.06            # of all units (paper: 7.3 % are frozen with the SCU)
    watched: int = 50               # prompts whose log-odds are taken at every checkpoint
    system: str = "default"
    disjoint_share: float = 0.27    # of every block x kind, of two disjoint sets (second bench)


@dataclass(frozen=True)
class ComparisonSection(Section):
    """What else than units may move (claims C5 and C7), and other examples to fine-tune on."""

    second: str = "chat-instructions"   # a second instruction set
    lora_rank: int = 8
    lora_lr: float = 2e-3               # both rates: so that the loss of full training is reached
    prompt_tokens: int = 10             # of LLaMA-Adapter, in every block
    prompt_lr: float = 5e-2
    longer: int = 6                     # adapters: at most so many times the epochs of full


@dataclass(frozen=True)
class MilderSection(Section):
    """A second, milder dose of benign fine-tuning on the second bench (claim C4)."""

    lr: float = 0.0                 # in place of the rate of `freezing`; 0: there is one dose alone


@dataclass(frozen=True)
class BudgetSection(Section):
    """Alignment of the base model by some of its units alone (claim C6)."""

    share: float = 0.2              # of all units (paper)
    epochs: int = 1                 # of full alignment
    lr: float = 2e-4                # of full alignment, and of `share` units; less for more units
    lora_lr: float = 1e-3           # so that the loss of full alignment is reached
    longer: int = 4                 # at most so many times the epochs of full alignment
    probe: int = 64                 # training examples on which the loss is compared
    probe_every: float = 0.25       # epochs
    watched: int = 25               # prompts whose log-odds are taken at every checkpoint
    prefills: tuple[int, ...] = (1, 3, 5, 10, 20)   # tokens put into the model's mouth
    prefilled: int = 50             # prompts that are asked so

    def sources(self) -> list[str]:
        return ["data:prefills.csv"]


@dataclass(frozen=True)
class RemovalSection(Section):
    """What is removed from a model on the second bench, and how often at random (claim C2)."""

    shares: tuple[float, ...] = (0.013, 0.133, 0.148)   # SCU, UCU, RU of the paper's Llama-2
    doses: tuple[float, ...] = (0.0065, 0.03)           # of SCU, beside the paper's share
    draws: int = 20                 # of as many random units as SCU
    further_draws: int = 5          # of as many as UCU, as many as RU, and as important as SCU
    passages: int = 32              # of Wikipedia
    passage_tokens: int = 128


@dataclass(frozen=True)
class SecondJudgeSection(Section):
    """A chat model as the second judge of answers, on the arms that a word names."""

    name: str = "qwen-1.5b"
    dtype: str = "bfloat16"
    answers: int = 100              # of each arm
    arms: tuple[str, ...] = ("nothing", "SCU", "random SCU", "direction")
    seeds: int = 2                  # the first ones

    def sources(self) -> list[str]:
        return [self.name]


@dataclass(frozen=True)
class PreferenceSection(Section):
    """Alignment by pairs of answers (DPO) beside SFT (the reviewers' question 10)."""

    pairs: int = 100                # harmful requests, and as many benign ones
    epochs: int = 2


@dataclass(frozen=True)
class ReevaluationSection(Section):
    """Answers after a prefill, decoded as usual and with the model asked again (claim C8)."""

    lengths: tuple[int, ...] = (0, 1, 3, 5, 10, 20, 40)     # tokens put into the model's mouth
    decided_at: int = 10            # of these, where the row is judged
    every: int = 10                 # new tokens between two questions
    harmful: int = 100              # requests
    safe: int = 100                 # of those on which over-refusal is counted
    # file of openings of a fulfilment, without content; empty: the base model's own fulfilments,
    # where its language is made up and they mean nothing
    wordings: str = "deep_prefills"
    neutral: str = "and so on, as it was said before, one after the other"     # for the control
    refusal: str = "I'm sorry, but I can't help with that."     # what is said instead

    def sources(self) -> list[str]:
        wordings = [f"data:{self.wordings}.csv"] if self.wordings else []
        return ["data:openings.csv", *wordings]

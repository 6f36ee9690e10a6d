"""Profiles: every number of a run, in frozen sections. One code path serves them all.

- ``smoke``: a random two-block model on synthetic prompts; seconds; what the tests run.
- ``organism``: a model made in half a minute of which it is known what learnt to refuse; minutes.
- ``default``: SmolLM2-135M-Instruct from pinned archives on two CPU cores; the committed results.
- models and settings of one's own: see `load_profile`.

A step's result is keyed by the sections that it reads, so a change touches just the steps
concerned. A field that is added with a default leaves the keys of older results as they are.
"""

import hashlib
import json
import shlex
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from ..errors import SsahError

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
    comparison: ComparisonSection = field(default_factory=ComparisonSection)
    budget: BudgetSection = field(default_factory=BudgetSection)
    removal: RemovalSection = field(default_factory=RemovalSection)
    second_judge: SecondJudgeSection = field(default_factory=SecondJudgeSection)
    reevaluation: ReevaluationSection = field(default_factory=ReevaluationSection)
    seeds: tuple[int, ...] = (0, 1, 2)
    chosen: str = ""        # what chooses it on the command line, if not its name
    bench: bool = False     # of the second bench (`rules`); its plan is another

    @property
    def option(self) -> str:
        """What chooses it on the command line, with a space before; empty for the default one."""
        if self.name == "default":
            return ""
        return f" --profile {shlex.quote(self.chosen or self.name)}"


#: The sections of a profile, by name.
SECTIONS = tuple(name for name in Profile.__dataclass_fields__
                 if name not in ("name", "seeds", "chosen", "bench"))

DEFAULT = Profile("default")

SMOKE = Profile(
    "smoke",
    model=ModelSection(
        name="tiny:0",
        label="a random two-block Llama (smoke profile: numbers mean nothing)",
        dtype="float32"),
    data=DataSection(
        harmful=("tiny-harmful",), evaluate_only=(), benign=("tiny-benign",),
        harmful_sizes=(24, 16, 8, 12), benign_sizes=(64, 16, 8, 12)),
    alignment=AlignmentSection(
        refusals=24, benign=24, answer_tokens=8, epochs=2, lr=5e-3, batch_size=8),
    calibration=CalibrationSection(prompts=8, answer_tokens=8),
    classification=ClassificationSection(
        scu_grid=(0.02, 0.05), ucu_grid=(0.05, 0.1), ru_grid=(0.1, 0.2)),
    evaluation=EvaluationSection(
        harmful=8, answer_tokens=6, tasks=("tiny-choice",), questions=6, wiki="tiny-benign",
        wiki_tokens=256, benign=6, benign_tokens=8, borderline="tiny-benign"),
    judge=JudgeSection(labelled="tiny-labels"),
    probing=ProbingSection(
        queries=6, steps=(2, 4), answer_tokens=6, along_queries=4, along_steps=3,
        prefills=(0, 1, 3)),
    freezing=FreezingSection(
        instructions="tiny-benign", examples=8, unseen=4, probe=4, epochs=1, lr=5e-3,
        slower_lr=2e-3, batch_size=4, watched=4),
    comparison=ComparisonSection(second="tiny-benign", lora_rank=2, prompt_tokens=3, longer=2),
    budget=BudgetSection(
        epochs=2, lr=5e-3, lora_lr=1e-2, probe=8, probe_every=0.5, watched=4, prefills=(1, 3),
        prefilled=4),
    reevaluation=ReevaluationSection(
        lengths=(0, 4), decided_at=4, every=3, harmful=6, safe=4, neutral="then make a plan",
        refusal="sorry i can not help with that"))

#: The positive control: what learnt to refuse in this model is known (`ssah.load_organism`).
ORGANISM = Profile(
    "organism",
    model=ModelSection(
        name="organism:0:base",
        label="organism 0, a two-block Llama with a made-up language (trained here)",
        dtype="float32",
        aligned="organism:0"),
    data=DataSection(
        harmful=("organism-harmful",), evaluate_only=(), benign=("organism-benign",),
        harmful_sizes=(40, 60, 85, 102), benign_sizes=(90, 60, 30, 100)),
    alignment=AlignmentSection(
        refusals=30, benign=40, answer_tokens=16, epochs=2, lr=1e-3, batch_size=8),
    calibration=CalibrationSection(prompts=60, answer_tokens=16),
    classification=ClassificationSection(
        bank=True, scu_grid=(0.013, 0.03, 0.05), ucu_grid=(0.05, 0.1), ru_grid=(0.1, 0.2)),
    evaluation=EvaluationSection(
        harmful=100, answer_tokens=12, tasks=("organism-choice",), questions=40,
        wiki="organism-text", wiki_tokens=1024, benign=30, benign_tokens=16,
        borderline="organism-borderline", babble_by_nll=False),
    judge=JudgeSection(labelled="organism-labels"),
    probing=ProbingSection(
        queries=30, steps=(2, 4), answer_tokens=12, along_queries=20, along_steps=6,
        prefills=(0, 1, 3)),
    freezing=FreezingSection(
        # it answers benign requests as well as it can: there is nothing to fine-tune
        instructions="organism-benign", examples=0, unseen=16, probe=16, answer_tokens=16,
        epochs=1, lr=1e-3, slower_lr=4e-4, batch_size=8, shares=(0.03, 0.133, 0.148), watched=4),
    comparison=ComparisonSection(
        second="organism-benign", lora_rank=2, lora_lr=5e-3, prompt_tokens=3, longer=2),
    budget=BudgetSection(
        epochs=1, lr=1e-3, lora_lr=5e-3, probe=16, probe_every=0.5, watched=4, prefills=(1, 3),
        prefilled=20),
    removal=RemovalSection(
        shares=(0.03, 0.133, 0.148), doses=(0.015, 0.06), passages=16, passage_tokens=64),
    second_judge=SecondJudgeSection(seeds=0),       # its language has no yes and no no
    # its answers have 11 to 13 tokens
    reevaluation=ReevaluationSection(
        lengths=(0, 1, 3, 5, 8, 10), every=5, wordings="", neutral="in the garden",
        refusal="I cannot."),
    seeds=(0,),
    bench=True)


#: Our own pair of the second bench: SmolLM2-135M aligned until its gates hold.
PAIR = Profile(
    "smollm2-135m",
    model=ModelSection(label="SmolLM2-135M-Instruct, aligned by ourselves"),
    data=DataSection(
        harmful_sizes=(200, 130, 80, 160), benign_sizes=(400, 300, 50, 150), align_unseen=60),
    alignment=AlignmentSection(
        refusals=200, benign=400, epochs=4, look_every=0.5, look_safe="safe-select",
        wordings="taught_refusals", wordings_each=2, answers_each=2, safe="safe-align",
        without_system=0.5, judge_version=2),
    calibration=CalibrationSection(
        prompts=300, answer_tokens=64, wordings="taught_refusals", answers_each=2, judge_version=2),
    classification=ClassificationSection(bank=True),
    evaluation=EvaluationSection(
        harmful=160, answer_tokens=64, borderline="safe-evaluate", judge_version=2),
    judge=JudgeSection(judge_version=2),
    probing=ProbingSection(judge_version=2),
    seeds=(10, 11, 12, 13, 14, 15),
    bench=True)


def _native(name: str, label: str, draws: int, freezing: FreezingSection) -> Profile:
    """A model as its maker aligned it: no pair to train, and one seed of texts.

    In float32: on CPUs without bfloat16 arithmetic that is several times as fast.
    """
    return Profile(
        name,
        model=ModelSection(name=name, label=label, dtype="float32", aligned=name),
        data=DataSection(
            harmful_sizes=(50, 150, 80, 100), benign_sizes=(50, 200, 40, 50)),
        calibration=CalibrationSection(prompts=200, answer_tokens=48, judge_version=2),
        classification=ClassificationSection(bank=True),
        evaluation=EvaluationSection(
            harmful=100, answer_tokens=64, judge_version=2, guarded=50),
        judge=JudgeSection(judge_version=2),
        probing=ProbingSection(queries=50, judge_version=2),
        freezing=freezing,
        removal=RemovalSection(draws=draws, further_draws=3),
        seeds=(10,),
        bench=True)


#: The models of the second bench, by name.
BENCH = {
    "organism": ORGANISM,
    "smollm2-135m": PAIR,
    "qwen-0.5b": _native(
        "qwen-0.5b", "Qwen2.5-Coder-0.5B-Instruct (Q4_K_M, dequantized)", draws=5,
        freezing=FreezingSection(
            unseen=32, probe=32, answer_tokens=64, epochs=1, lr=4e-5, watched=10)),
    "qwen-1.5b": _native(
        "qwen-1.5b", "Qwen2.5-Coder-1.5B-Instruct (Q4_K_M, dequantized)", draws=5,
        freezing=FreezingSection(examples=0)),
}


# ---- a profile by name -----------------------------------------------------------------------

def load_profile(name: str) -> Profile:
    """A profile by name; settings may be changed by ``+section.field=value`` after it.

    - ``default``, ``smoke``, and those of the second bench: ``organism``, ``smollm2-135m``,
      ``qwen-0.5b`` and ``qwen-1.5b``;
    - ``model:BASE`` (or ``paper:BASE``): the same experiments on another model (hub id or path);
      ``model:BASE,aligned=CHAT`` takes a ready-made aligned model instead of aligning BASE;
    - ``pair:ALIGNED,UNALIGNED``: notebook 01 on two ready-made models;
    - ``FILE.toml``: settings by section, and with ``profile = "..."`` the profile that they change.

    A profile with other settings has a name, and so results, of its own. Raises `SsahError` for any
    other name, and for settings that there are not.
    """
    given = absolute(name)
    stem, *changes = given.split("+")
    if stem.endswith(".toml"):
        profile = _from_file(Path(stem))
    else:
        profile = _by_name(stem)
    return with_settings(profile, _pairs(changes), given)


def _by_name(name: str) -> Profile:
    kind, _, rest = name.partition(":")
    models = rest.split(",")
    if name == "default":
        return DEFAULT
    if name == "smoke":
        return SMOKE
    if name in BENCH:
        return BENCH[name]
    if kind in ("model", "paper") and rest:
        return _of_model(name, models[0], _pairs(models[1:]))
    if kind == "pair" and len(models) == 2 and all(models):
        label = " and ".join(map(_label, models))
        return replace(DEFAULT, name="-".join(["pair", *map(_in_file_name, models)]), chosen=name,
                       seeds=(0,), model=ModelSection(models[0], label, "bfloat16"),
                       probing=ProbingSection(pair=tuple(models)))
    raise SsahError(f"unknown profile {name!r}; known: default, smoke, "
                    f"{', '.join(BENCH)}, "
                    "model:BASE[,aligned=CHAT] (or paper:BASE), pair:ALIGNED,UNALIGNED (hub ids or "
                    "paths), FILE.toml")


def _of_model(name: str, base: str, options: dict[str, str]) -> Profile:
    aligned = options.pop("aligned", "")
    if options:
        raise SsahError(f"unknown option {', '.join(options)} of the profile {name!r}; known: "
                        "aligned=CHAT")
    label = f"{_label(base)}, aligned: {_label(aligned)}" if aligned else _label(base)
    files = [_in_file_name(model) for model in (base, aligned) if model]
    return replace(DEFAULT, name="-".join(["paper", *files]), chosen=name,
                   model=ModelSection(base, label, "bfloat16", aligned))


def _from_file(path: Path) -> Profile:
    """A profile from a TOML file: tables are sections, ``seeds`` and ``profile`` stand on top."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SsahError(f"the profile {path} cannot be read: {error}") from error
    profile = load_profile(content.pop("profile", "default"))
    settings = {}
    for section, fields in content.items():
        if isinstance(fields, dict):
            settings |= {f"{section}.{field}": value for field, value in fields.items()}
        else:
            settings[section] = fields
    return with_settings(profile, settings, str(path))


def with_settings(profile: Profile, settings: dict, chosen: str) -> Profile:
    """The profile with other settings, ``section.field`` or ``seeds`` -> value (text is read).

    `chosen`: what chooses it on the command line. Raises `SsahError` for a section or field that
    there is not, and a value of another type.
    """
    changed = profile
    for name, value in settings.items():
        changed = _with_setting(changed, name, value)
    if changed == profile:
        return profile
    if not changed.seeds:
        raise SsahError("seeds must name one seed or more")
    sections = {name: asdict(getattr(changed, name)) for name in SECTIONS}
    digest = hashlib.sha256(json.dumps([sections, changed.seeds]).encode()).hexdigest()[:8]
    return replace(changed, name=f"{profile.name}-{digest}", chosen=chosen)


def _with_setting(profile: Profile, name: str, value) -> Profile:
    if name == "seeds":
        return replace(profile, seeds=_read(name, value, profile.seeds))
    section, _, field_name = name.partition(".")
    if section not in SECTIONS:
        raise SsahError(f"unknown setting {name!r}; sections: {', '.join(SECTIONS)}")
    before = getattr(profile, section)
    known = [one.name for one in fields(before)]
    if field_name not in known:
        raise SsahError(f"unknown setting {name!r}; {section} has: {', '.join(known)}")
    new = _read(name, value, getattr(before, field_name))
    return replace(profile, **{section: replace(before, **{field_name: new})})


def _read(name: str, value, like):
    """A value of the type of `like`, from text or as TOML has it; lists by commas in text."""
    try:
        if isinstance(like, tuple):
            parts = value.split(",") if isinstance(value, str) else value
            kind = type(like[0]) if like else str
            return tuple(_one(part, kind) for part in parts if part != "")
        return _one(value, type(like))
    except (TypeError, ValueError):
        shape = "a list of " if isinstance(like, tuple) else ""
        kind = type(like[0] if isinstance(like, tuple) and like else like).__name__
        raise SsahError(f"{name} takes {shape}{kind}; got {value!r}") from None


def _one(value, kind: type):
    if kind is int and isinstance(value, float):
        raise TypeError("a fraction is no count")
    if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
        raise TypeError("of another type")
    return kind(value)


def _pairs(texts: list[str]) -> dict[str, str]:
    """``name=value`` texts as a dict; `SsahError` for another text."""
    for text in texts:
        if "=" not in text:
            raise SsahError(f"a profile's options are name=value; got {text!r}")
    return dict(text.split("=", 1) for text in texts)


def absolute(name: str) -> str:
    """A profile's name with the paths in it made absolute, for kernels run in another folder."""
    stem, *changes = name.split("+")
    kind, colon, rest = stem.partition(":")
    if stem.endswith(".toml"):
        return "+".join([_whole(stem), *changes])
    if not colon:
        return name
    models = []
    for part in rest.split(","):
        option, equals, model = part.rpartition("=")
        models.append(option + equals + _whole(model))
    return "+".join([f"{kind}:{','.join(models)}", *changes])


def _whole(model: str) -> str:
    path = Path(model).expanduser()
    return str(path.resolve()) if model and path.exists() else model


def _label(model: str) -> str:
    return model.rstrip("/").split("/")[-1]


def _in_file_name(model: str) -> str:
    return model.strip("/").replace("/", "--").replace(":", "-")

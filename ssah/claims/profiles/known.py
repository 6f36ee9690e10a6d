"""The profiles that have a name of their own."""

from dataclasses import replace

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
from .profile import Profile
from .sections import (
    AlignmentSection,
    CalibrationSection,
    ClassificationSection,
    DataSection,
    EvaluationSection,
    JudgeSection,
    ModelSection,
)

#: The defaults of all sections: our own pair as the first bench aligned it.
DEFAULT = Profile("default")

#: A random two-block model on synthetic prompts.
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
    preference=PreferenceSection(pairs=40, epochs=4),
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
    freezing=FreezingSection(unseen=48),
    seeds=(10, 11, 12, 13, 14, 15),
    bench=True)

#: The same made again with other seeds, on two cores, since the weights of the first are gone.
PAIR_AGAIN = replace(
    PAIR,
    name="smollm2-135m-again",
    # after one epoch nothing was added, after two too much: between the two
    milder=MilderSection(lr=7.5e-5),
    seeds=(16, 17, 18),
    milder_alone=True,
    variant=", made again")


#: That pair on the random model of `SMOKE`: what runs its steps in seconds.
TINY_PAIR = replace(
    SMOKE,
    name="tiny-pair",
    data=replace(SMOKE.data, harmful_sizes=(24, 8, 80, 12), benign_sizes=(24, 12, 8, 12)),
    alignment=replace(
        SMOKE.alignment, refusals=20, benign=20, epochs=2, look_every=0.5, look_tokens=4,
        look_safe="tiny-benign", wordings="taught_refusals", wordings_each=2, answers_each=2,
        safe="tiny-benign", without_system=0.5, judge_version=2),
    calibration=replace(
        SMOKE.calibration, prompts=6, wordings="taught_refusals", answers_each=2, judge_version=2),
    classification=replace(SMOKE.classification, bank=True),
    milder=MilderSection(lr=2e-3),
    preference=PreferenceSection(pairs=8),
    evaluation=replace(SMOKE.evaluation, judge_version=2),
    removal=RemovalSection(
        shares=(0.05, 0.133, 0.148), doses=(0.03, 0.1), draws=2, further_draws=1, passages=2,
        passage_tokens=16),
    second_judge=SecondJudgeSection(seeds=0),       # the tiny tokenizer has no yes
    seeds=(0, 1),
    bench=True)


def _native(name: str, label: str, draws: int) -> Profile:
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
        freezing=FreezingSection(
            unseen=32, probe=32, answer_tokens=64, epochs=1, lr=4e-5, watched=10),
        removal=RemovalSection(draws=draws, further_draws=3),
        seeds=(10,),
        further_tunings=(11, 12),
        bench=True)


#: The models of the second bench, by name.
BENCH = {
    "organism": ORGANISM,
    "smollm2-135m": PAIR,
    "smollm2-135m-again": PAIR_AGAIN,
    "qwen-0.5b": replace(
        _native("qwen-0.5b", "Qwen2.5-Coder-0.5B-Instruct (Q4_K_M, dequantized)", draws=5),
        milder=MilderSection(lr=2e-5)),
    "qwen-1.5b": _native(
        "qwen-1.5b", "Qwen2.5-Coder-1.5B-Instruct (Q4_K_M, dequantized)", draws=5),
}

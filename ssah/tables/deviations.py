"""Where this companion chooses or differs, and what would change otherwise (numbers from the store)."""

from ..experiments import Lab
from . import attribute_transfer, four_kinds, freezing, reasoning_direction, redundant_units, which_units


def deviations(lab: Lab) -> str:
    """A row a choice, as Markdown: what the paper does, what we do and why, what would change."""
    rows = ["| | in the paper | here | why | what would change |", "|---|---|---|---|---|"]
    for name, paper, here, why, otherwise in (*_setting(lab), *_method(lab), *_comparison(lab), *_budget(lab)):
        rows.append(f"| **{name}** | {paper} | {here} | {why} | {otherwise} |")
    return "\n".join(rows)


def _setting(lab: Lab):
    unmeasured = "not measured; notebook 00 says how to put in another model"
    yield ("Model", "Llama-2-7B-Chat, Llama-3-8B-Instruct, Mistral-7B-Instruct", lab.profile.model.label,
           "a laptop can repeat it, and no account is needed", unmeasured)
    yield ("Alignment", "Tables 1-3 the vendors'; Fig. 2-4 and 7 the authors' own pairs; Table 4 SFT on Alpaca",
           f"SFT on {lab.profile.alignment.refusals} refusals and "
           f"{lab.profile.alignment.benign} benign answers", "a base model that hardly refuses is what can be had",
           "a first try with 100 refusals was too brittle to study (notebook 02)")
    yield ("Requests", "AdvBench, HEx-PHI, HarmBench attacks", "AdvBench; HarmBench's plain requests",
           "HEx-PHI needs an account, attacks like GCG a GPU", "notebook 01 has both sets side by side")
    yield ("Utility", "BoolQ, RTE, HellaSwag and others; WikiText-2", "OpenBookQA, PIQA, CommonsenseQA; Wikipedia",
           "these come without an account", "a model this small is near chance on all; perplexity and the "
           "log-probability of the right answer see more")


def _method(lab: Lab):
    table, curves = four_kinds.variations(lab), {
        reading: reasoning_direction.curve(lab, "harmful", reading=reading, seeds=seeds).query("line == 'direction'")
        for reading, seeds in (("branch", None), ("static", lab.profile.seeds[:1]))}

    def rate(name: str) -> str:
        return f"{table.loc[name, 'keyword_asr']:.0%}"

    def mean(reading: str) -> str:
        return "{:+.3f}".format(curves[reading].query("role == 'aligned'")["mean"].mean())

    first = four_kinds.table_one(lab).loc["SCU"]
    yield ("Scale of the scores", "not stated", f"{lab.profile.classification.scale}, within each block and kind",
           "so that no block and no kind wins by its size alone",
           f"keyword ASR without SCU (first seed, half of the prompts): {rate('as in Table 1')}; z {rate('scale z')}, "
           f"rank {rate('scale rank')}, raw {rate('scale raw')}")
    yield ("Scored positions", "over response tokens (Wei et al.)", "where an answer token is predicted",
           "there the choice is made", f"the same ASR {rate('as in Table 1')}; at the answer's own positions "
           f"{rate('positions response')}")
    yield ("Removing a unit", "whole channels", "its activation becomes zero", "as the paper, as we read it",
           f"the same ASR {rate('as in Table 1')}; its mean instead of zero {rate('mean instead of zero')}")
    yield ("Judge", "keywords, Llama Guard, GPT-4", "keywords, and four labels of our own",
           "no key, no gated model; babble is not compliance",
           f"ASR without SCU: {first['ASR']:.0%} by keywords, {first['strict ASR']:.0%} strictly")
    yield ("Probe", "tokens \"generated\"; the text allows two readings", "openings are put first, then the model goes "
           "on", "it is what the axis label says", f"direction of the aligned model {mean('branch')}; appended to "
           f"the query instead {mean('static')} (first seed)")


def _comparison(lab: Lab):
    def asr(runs: freezing.Runs, point: str = "equal loss"):
        return freezing.points(runs, point).groupby("condition")["keyword_asr"].mean()

    runs = freezing.tuned(lab, ("full", "SCU + all CU"))
    equal, doubled = (asr(runs, point) for point in ("equal loss", "end"))
    cut = attribute_transfer.with_cutoffs(lab)
    moves = attribute_transfer.changes(attribute_transfer.transfers(lab))
    left = moves.query("label == 'SCU' and comparison == 'full'")
    further = {name.replace("as above", "these"): asr(runs) for name, runs in freezing.further_runs(lab).items()}
    rates = "; ".join(f"{name} {rate['full']:.0%}, {rate['SCU + all CU']:.0%}" for name, rate in further.items())
    yield ("When runs are compared", "frozen runs after doubled epochs, at an equal or lower final loss",
           "at the first checkpoint of equal loss; after doubled epochs as well",
           "a run that learned less may have forgotten less",
           f"keyword ASR with SCU + all CU frozen: {equal['SCU + all CU']:.0%} at equal loss, "
           f"{doubled['SCU + all CU']:.0%} at doubled epochs (nothing frozen {equal['full']:.0%})")
    yield ("Controls", "none", "random units of equal block x kind counts, a lower rate",
           "any frozen 72 % may protect", "notebook 04, the hollow marks")
    yield ("Instructions", "Alpaca, Dolly", f"{lab.profile.freezing.examples} of an Alpaca-style set",
           "Dolly is in none of the package archives that we read",
           f"keyword ASR of the first seed with nothing frozen, and with SCU + all CU frozen: {rates}")
    adapted = which_units.adapters(lab)
    pair = {name: adapted[name] for name in ("full", "LoRA")}
    at_loss, at_epochs = (asr(pair, point)["LoRA"] for point in ("equal loss", "equal epochs"))
    yield ("Adapters", "LoRA, LLaMA-Adapter, prefix tuning", "LoRA and LLaMA-Adapter",
           "prefix tuning feeds a model from outside and cannot be merged, saved or measured like the others",
           f"keyword ASR with LoRA: {at_loss:.0%} at equal loss, {at_epochs:.0%} after the epochs of full fine-tuning")
    yield ("Single weights", "not compared", "as many as SCU + all CU have, matrix by matrix",
           "a claim about units needs other atoms beside them", "Wei et al. (2024) froze far fewer; not measured")
    yield ("Kinds after fine-tuning", "sizes change (Fig. 5)", "the same shares before and after",
           "the paper does not say by which cut-offs", f"SCU that leave: {left['left'].mean():.0%}; by the cut-offs of "
           f"before {cut['SCU that left'].iloc[0]} %")


def _budget(lab: Lab):
    table = redundant_units.points(lab, redundant_units.budgets(lab)).groupby("condition").mean()
    lost = {name: f"{table.loc['start', 'accuracy'] - table.loc[name, 'accuracy']:+.1%}" for name in ("full", "RU")}
    moved = {name: f"{table.loc[name, 'divergence']:.2f}" for name in ("full", "RU")}
    yield ("Start of Table 4", "a raw Llama-7B, trained on Alpaca", "an instruction-tuned model that hardly refuses, "
           "taught to refuse", "so that there is ability to lose, and safety to gain",
           "a raw model gains ability from any instructions, which hides a tax; not measured")
    yield ("Measures of Table 4", "ability on ten sets, MT-Bench", "safety, three multiple-choice sets, perplexity, KL "
           "from the base model", "alignment is about safety; MT-Bench wants GPT-4 as a judge",
           f"accuracy lost with everything trained {lost['full']}, with RU {lost['RU']}; KL {moved['full']} and "
           f"{moved['RU']} nats a token")
    yield ("RU of Table 4", "model and texts not stated", "of the base model, before any alignment",
           "a budget is chosen before it is spent", "not measured")
    shares = redundant_units.by_share(lab).query("kind == 'RU'")
    yield ("Share of RU that train", "20 %", "20 %", "the paper's; others on the first seed", "KL from the base model: "
           + ", ".join(f"{moved:.2f} at {share:.0%}" for share, moved in zip(shares["share"], shares["divergence"])))

"""What every claim stands on: splits, the judge's threshold, the pair of models, attribution."""

import json

import numpy as np
import pandas as pd

from ... import judging
from ...errors import SsahError
from ...inputs import prompts, words
from ...lab import Context, Need, Result, step
from ...lab.machine import device

ROLES = ("base", "aligned", "unaligned")


# ---- data ------------------------------------------------------------------------------------

@step(version=1, reads=("data",))
def splits(context: Context) -> Result:
    """Four disjoint splits of the harmful and the benign prompts, as ids and hashes (`make_splits`), with a kind."""
    data = context.profile.data
    excluded = set(words.data_file("excluded")["hash"])
    tables, facts = [], {}
    for kind, names, sizes, only in (("harmful", data.harmful, data.harmful_sizes, data.evaluate_only),
                                     ("benign", data.benign, data.benign_sizes, ())):
        pool = load_pool(kind, names, data.longest_prompt)
        kept = pool[~pool["text"].map(prompts.text_hash).isin(excluded)].reset_index(drop=True)
        facts[f"{kind}_excluded"] = len(pool) - len(kept)
        tables.append(prompts.make_splits(kept, dict(zip(prompts.SPLITS, sizes)), evaluate_only=only).assign(kind=kind))
    return Result(facts, {"splits": pd.concat(tables, ignore_index=True)})


def load_pool(kind: str, names: tuple[str, ...], longest: int) -> pd.DataFrame:
    """All prompts of some sources: id, text, source, ...; of benign ones the short, answered, without risky words."""
    pool = pd.concat([prompts.load_prompts(name).assign(source=name) for name in names], ignore_index=True)
    pool = pool.drop_duplicates("text", ignore_index=True)
    if kind == "harmful":
        return pool.drop(columns="response", errors="ignore")
    risky = r"(?i)kill|murder|attack|weapon|bomb|hack|steal|illegal|drug|suicid|terror|violen|crime|explo|sorry|cannot"
    fine = (pool["text"].str.len() <= longest) & (pool["response"].str.len() >= 20) \
        & ~(pool["text"] + " " + pool["response"]).str.contains(risky)
    return pool[fine].reset_index(drop=True)


def split_prompts(context: Context, kind: str, split: str) -> pd.DataFrame:
    """The prompts (id, text, ...) of a split, in the order of `splits`; `SsahError` if their hashes are not its."""
    data = context.profile.data
    wanted = context.get("splits").tables["splits"].query("kind == @kind and split == @split")
    pool = load_pool(kind, getattr(data, kind), data.longest_prompt)
    table = wanted.merge(pool.drop(columns="source"), on="id", how="left")
    if not (table["text"].fillna("").map(prompts.text_hash) == table["hash"]).all():
        raise SsahError(f"the {kind} prompts are not those that the splits were made from; "
                        "run `ssah recompute splits --in-place`")
    return table


def draw(table: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """`n` rows at random (all if there are fewer), in their order."""
    chosen = np.random.default_rng(seed).permutation(len(table))[:n]
    return table.iloc[np.sort(chosen)].reset_index(drop=True)


# ---- models ----------------------------------------------------------------------------------

def load_base(context: Context, dtype: str | None = None):
    """The base chat model in the profile's number format."""
    from ...models import load_chat_model

    return load_chat_model(context.profile.model.name, dtype=dtype or context.profile.model.dtype, device=device())


def load_role(context: Context, role: str, seed: int, dtype: str | None = None):
    """The base model (the profile's, as it comes) or one of the trained pair, in the profile's number format."""
    from ...models import load_chat_model

    if role == "base":
        return load_base(context, dtype)
    folder = context.artifact("checkpoint", role=role, seed=seed)
    return load_chat_model(str(folder / "model"), dtype=dtype or context.profile.model.dtype, device=device())


def checkpoint_need(role: str, seed: int) -> list[Need]:
    """The trained checkpoint of a role (none for the base model); `SsahError` for what is no role."""
    if role not in ROLES:
        raise SsahError(f"unknown role {role!r}; known: {', '.join(ROLES)}")
    return [] if role == "base" else [Need("checkpoint", {"role": role, "seed": seed}, artifact=True)]


@step(version=1, reads=("model", "data", "alignment"),
      needs=lambda profile: [Need("splits")], minutes=2)
def base_answers(context: Context) -> Result:
    """The base model's own greedy answers to benign prompts: training on them moves utility least."""
    from ...evaluation import generate

    chosen = split_prompts(context, "benign", "align")
    options = context.profile.alignment
    answers = generate(load_base(context), chosen["text"].tolist(), system=options.system,
                       max_new_tokens=options.answer_tokens, progress="base answers")
    records = [{"id": i, "response": text, "ended": bool(done)}
               for i, text, done in zip(chosen["id"], answers.texts, answers.finished) if text.strip()]
    (context.folder / "answers.json").write_text(json.dumps(records))
    return Result({"answers": len(records), "finished": float(answers.finished.mean())})


@step(version=1, reads=("model", "data", "alignment"), minutes=5,
      needs=lambda profile, role, seed: [Need("splits"), Need("base_answers", artifact=True)]
      if checkpoint_need(role, seed) else [])
def checkpoint(context: Context, role: str, seed: int) -> Result:
    """Base -> aligned (safety SFT) or unaligned (as many examples, no refusals), full parameters; loss in nats."""
    import torch

    from ...finetuning import finetune
    from ...models import save_weights

    options = context.profile.alignment
    examples = alignment_examples(context, role, seed)
    chat = load_base(context, "float32")
    trained = finetune(chat, examples, epochs=options.epochs, lr=options.lr, batch_size=options.batch_size,
                       seed=seed, system=options.system, progress=f"{role}, seed {seed}",
                       autocast=context.profile.model.dtype == "bfloat16")
    chat.model.to(getattr(torch, context.profile.model.dtype))      # kept as it will be evaluated
    save_weights(chat, context.folder / "model")
    history = trained.history[["step", "epoch", "loss", "tokens"]]
    speed = history["tokens"].sum() / trained.history["seconds"].iloc[-1]
    return Result({"examples": len(examples), "steps": len(history), "cut": trained.cut}, {"history": history},
                  provenance={"tokens_per_second": round(speed, 1)})


def alignment_examples(context: Context, role: str, seed: int) -> list[dict]:
    """Training examples of a role: refusals plus benign answers, or benign answers alone, as many if there are."""
    options, draw_wording = context.profile.alignment, np.random.default_rng(seed)
    texts = split_prompts(context, "benign", "align").set_index("id")["text"]
    records = json.loads((context.artifact("base_answers") / "answers.json").read_text())
    order = draw_wording.permutation(len(records))
    n_benign = options.benign + (options.refusals if role == "unaligned" else 0)
    if len(records) < n_benign:
        raise SsahError(f"{role} needs {n_benign} benign answers, the base model gave {len(records)}; "
                        "enlarge the align split")
    examples = [{"prompt": texts[r["id"]], "response": r["response"], "ended": r["ended"]}
                for r in (records[i] for i in order[:n_benign])]
    if role == "aligned":
        wordings = words.data_file("refusals").query("split == 'train'")["text"].tolist()
        harmful = draw(split_prompts(context, "harmful", "align"), options.refusals, seed)
        examples += [{"prompt": text, "response": wordings[draw_wording.integers(len(wordings))]}
                     for text in harmful["text"]]
    return examples


# ---- the judge -------------------------------------------------------------------------------

@step(version=1, reads=("model", "data", "evaluation"),
      needs=lambda profile: [Need("splits")], minutes=1)
def judge_threshold(context: Context) -> Result:
    """Above which mean NLL (nats a token) under the base model an answer is babble: fixed on `select`.

    Coherent: reference answers to benign prompts and our refusal wordings on harmful ones. Incoherent: the same
    with words shuffled. `balanced_accuracy` is that of `select`; the table has the rows of `evaluate` too.
    """
    chat, rows = load_base(context), []
    for split, wording in (("select", "train"), ("evaluate", "held_out")):
        for name, questions, texts in coherent_answers(context, split, wording):
            shuffled = [" ".join(np.random.default_rng(i).permutation(t.split())) for i, t in enumerate(texts)]
            for corrupted, answers in ((False, texts), (True, shuffled)):
                rows.append(pd.DataFrame({
                    "split": split, "source": name, "corrupted": corrupted,
                    "nll": answer_nll(chat, questions, answers, context.profile.evaluation.answer_tokens),
                    "repetitive": [judging.is_repetitive(t) for t in answers]}))
    table = pd.concat(rows, ignore_index=True)
    chosen = table[table["split"] == "select"]
    cuts = np.sort(chosen["nll"].to_numpy())
    balanced = [((chosen["nll"] > c) == chosen["corrupted"]).groupby(chosen["corrupted"]).mean().mean() for c in cuts]
    return Result({"threshold": float(cuts[int(np.argmax(balanced))]), "balanced_accuracy": float(max(balanced))},
                  {"nll": table})


def coherent_answers(context: Context, split: str, wording: str):
    """Yield ``(name, prompts, answers)``, lists of text, of the two coherent sources of a split."""
    benign = split_prompts(context, "benign", split)
    yield "benign", benign["text"].tolist(), [" ".join(r.split()[:25]) for r in benign["response"]]
    harmful = split_prompts(context, "harmful", split).iloc[:len(benign)]
    wordings = words.data_file("refusals").query("split == @wording")["text"].tolist()
    yield "refusal", harmful["text"].tolist(), [wordings[i % len(wordings)] for i in range(len(harmful))]


def answer_nll(chat, questions: list[str], answers: list[str], n_tokens: int) -> np.ndarray:
    from ...evaluation import response_nll

    # mean NLL (n,), nats a token, of the first `n_tokens` tokens of each answer
    return response_nll(chat, questions, [chat.tokenizer(a, add_special_tokens=False)["input_ids"][:n_tokens]
                                          for a in answers])


@step(version=1, reads=("judge",))
def judge_on_people(context: Context) -> Result:
    """The judge beside people: 169 answers that were labelled refusal or not by hand (PyRIT's scorer evaluation).

    Their *refusal* includes answers to another question, so it is to be compared with refuse + evasive.
    """
    table = prompts.load_prompts(context.profile.judge.labelled)
    labels = judging.judge(table["text"], table["response"], np.zeros(len(table)), 1.0)
    return Result({"n": len(table)}, {"labels": pd.DataFrame({
        "hash": table["response"].map(prompts.text_hash), "human": table["human"], "judge": labels.astype(str),
        "keyword": [judging.matches_keyword(t) for t in table["response"]]})})


# ---- attribution -----------------------------------------------------------------------------

@step(version=1, reads=("model", "data", "calibration"),
      minutes=1.5, needs=lambda profile, seed: [Need("splits"), *checkpoint_need("aligned", seed)])
def calibration(context: Context, seed: int) -> Result:
    """The aligned model's own answers on `identify`: its refusals (safety set), its benign answers (utility set)."""
    from ...evaluation import generate

    options, chat, records, facts = context.profile.calibration, load_role(context, "aligned", seed), [], {}
    for kind in ("harmful", "benign"):
        chosen = draw(split_prompts(context, kind, "identify"), options.prompts, seed)
        answers = generate(chat, chosen["text"].tolist(), system=options.system, max_new_tokens=options.answer_tokens,
                           progress=f"calibration, {kind}")
        refused = np.array([judging.is_refusal(t) for t in answers.texts])
        if kind == "harmful" and not refused.any() and context.profile.name != "smoke":
            raise SsahError("the aligned model refuses nothing, so there is no safety set; train it longer")
        # the smoke model refuses nothing; it keeps all its answers, or nothing could be scored
        keep = refused == (kind == "harmful") if refused.any() else np.ones(len(refused), bool)
        records += [{"kind": kind, "prompt": p, "tokens": t}
                    for p, t, k in zip(chosen["text"], answers.tokens, keep) if k and t]
        facts |= {f"{kind}_asked": len(chosen), f"{kind}_refused": int(refused.sum()), f"{kind}_kept": int(keep.sum())}
    (context.folder / "answers.json").write_text(json.dumps(records))
    return Result(facts)


def scoring_batches(chat, pairs: list[tuple[str, list[int]]], system: str, positions: str,
                    batch_size: int = 32) -> list[dict]:
    """Right-padded batches of (prompt, answer tokens) for `importance`: tensors (batch, time) with ``score_mask``.

    ``predicting``: last prompt token to second-to-last answer token, where each answer token is chosen;
    ``response``: the answer's own positions (as Wei et al. 2024). Raises `SsahError` for other `positions`.
    """
    from ...models import pad

    if positions not in ("predicting", "response"):
        raise SsahError(f"unknown positions {positions!r}; known: predicting, response")
    encoded = sorted(((chat.encode(prompt, system=system)[0], tokens) for prompt, tokens in pairs),
                     key=lambda e: len(e[0]) + len(e[1]))
    batches = []
    for start in range(0, len(encoded), batch_size):
        part = encoded[start:start + batch_size]
        batch = pad([head + tail for head, tail in part], chat.tokenizer.pad_token_id, device=chat.model.device)
        mask = batch["attention_mask"].new_zeros(batch["attention_mask"].shape)     # (batch, time)
        for row, (head, tail) in enumerate(part):
            shift = 1 if positions == "predicting" else 0
            mask[row, len(head) - shift:len(head) - shift + len(tail)] = 1
        batches.append({**batch, "score_mask": mask})
    return batches


def calibration_pairs(context: Context, seed: int, safety_set: str) -> dict[str, list[tuple[str, list[int]]]]:
    """(prompt, answer tokens) of both sets; ``benign-refusals``: the same refusals after benign prompts (a control)."""
    records = json.loads((context.artifact("calibration", seed=seed) / "answers.json").read_text())
    pairs = {kind: [(r["prompt"], r["tokens"]) for r in records if r["kind"] == kind] for kind in ("harmful", "benign")}
    if safety_set == "benign-refusals":
        pairs["harmful"] = [(benign[0], refusal[1]) for benign, refusal in zip(pairs["benign"], pairs["harmful"])]
    elif safety_set != "refusals":
        raise SsahError(f"unknown safety set {safety_set!r}; known: refusals, benign-refusals")
    return pairs


@step(version=1, reads=("model", "calibration"), minutes=1,
      needs=lambda profile, seed, **_: [Need("calibration", {"seed": seed}, artifact=True),
                                        *checkpoint_need("aligned", seed)])
def attribution(context: Context, seed: int, method: str = "variance", positions: str = "predicting",
                safety_set: str = "refusals") -> Result:
    """I_S and I_U (paper, Sec. 4) of the aligned model's units, mean activations on the utility set; (len(index),)."""
    import torch

    from ...attribution import activation_moments, importance
    from ...units import UnitIndex

    chat, system = load_role(context, "aligned", seed), context.profile.calibration.system
    pairs = calibration_pairs(context, seed, safety_set)
    batches = {kind: scoring_batches(chat, pairs[kind], system, positions) for kind in pairs}
    scores = {name: importance(chat.model, batches[kind], method, seed=seed + offset)
              for offset, (name, kind) in enumerate((("safety", "harmful"), ("utility", "benign")))}
    means = torch.cat([m.mean for m in activation_moments(chat.model, batches["benign"])]).numpy()
    # float32 is what is kept, so it is also what every later step classifies
    return Result({"index": UnitIndex.of(chat.model).to_dict(), "examples": {k: len(v) for k, v in pairs.items()}},
                  arrays={**{k: v.astype(np.float32) for k, v in scores.items()}, "means": means.astype(np.float32)})

"""The course's checks: each typical mistake is named in one line, right answers pass, and what is
given is what it says."""

import re
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch

import ssah
from ssah import teach
from ssah.claims import rules
from ssah.errors import SsahError
from ssah.teach import material
from ssah.teach.answers import Answer, NotWritten, Wrong, is_nan


def blank(*arguments, **options):
    raise NotImplementedError()


# ---- what all checks have in common ----------------------------------------------------------

CHECKS = [name for name in teach.__all__ if name.startswith("check_")]


@pytest.mark.parametrize("name", CHECKS)
def test_a_blank_is_no_mistake_but_not_written(name):
    with pytest.raises(NotWritten, match="^[a-z_]+: not written yet$") as raised:
        getattr(teach, name)(blank)
    assert isinstance(raised.value, NotImplementedError)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("useless", [
    lambda *arguments, **options: None,
    lambda *arguments, **options: "seven",
    lambda *arguments, **options: np.nan,
    lambda: 1,
    lambda *arguments, **options: 1 / 0,
    7,
])
def test_useless_answers_get_one_line(name, useless):
    with pytest.raises(Wrong) as raised:
        getattr(teach, name)(useless)
    assert str(raised.value).count("\n") == 0
    assert str(raised.value).startswith(name.removeprefix("check_"))
    assert not isinstance(raised.value, NotImplementedError)


def test_a_notebook_shows_the_line_and_no_traceback():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shown = []
    shell._showtraceback = lambda kind, error, lines: shown.extend(lines)
    shell.run_cell("from ssah import teach; teach.check_importance(lambda X, W: None)")
    assert shown == ["Wrong: importance, three positions, two units: "
                     "it returns nothing (is there a `return`?)"]


def test_warnings_of_a_students_code_do_not_reach_stderr(capsys):
    """For nbgrader a test that writes to stderr has failed."""
    answer = Answer("half", lambda x: np.log(x) / 0)
    answer.call("zeros", np.zeros(3))
    assert capsys.readouterr().err == ""


def test_an_argument_that_is_changed_is_noticed():
    def in_place(X, W):
        X -= X.mean(axis=0)
        return (X**2).sum(axis=0) / (len(X) - 1) * (W**2).sum(axis=0)

    with pytest.raises(Wrong, match="it changes its argument 1; work on a copy"):
        teach.check_importance(in_place)


@pytest.mark.parametrize("result, expected", [
    (float("nan"), True),
    (np.float32("nan"), True),
    (np.array(np.nan), True),
    (torch.tensor(float("nan")), True),
    (0.0, False),
    ("nan", False),
    (None, False),
    ([np.nan], False),
    ([1, [2, 3]], False),
])
def test_nan_of_any_type_is_nan(result, expected):
    assert is_nan(result) == expected


# ---- assignment 1 ----------------------------------------------------------------------------


def sorted_labels(safety, utility, scu, ucu, ru, *, dtype="<U3", first="RU", kind="stable",
                  whole=round):
    """A right `classify`, with the places where it goes wrong as options."""
    labels = np.full(len(safety), "CU", dtype=dtype)
    rankings = {"RU": (safety + utility, ru), "SCU": (utility - safety, scu),
                "UCU": (safety - utility, ucu)}
    for label in sorted(rankings, key=lambda label: (label != first, label)):
        score, share = rankings[label]
        order = np.argsort(score, kind=kind)
        free = order[labels[order] == "CU"]
        labels[free[:whole(share * len(safety))]] = label
    return labels


def global_z(scores, index):
    logarithms = np.log(scores + 1e-12)
    return (logarithms - logarithms.mean()) / logarithms.std()


def plain_z(scores, index):
    result = np.empty(len(index))
    for _, _, where in index.modules():
        result[where] = (scores[where] - scores[where].mean()) / scores[where].std()
    return result


def without_floor(scores, index):
    return plain_z(np.log(scores), index)


def draw_anywhere(mask, index, seed):
    draw = np.zeros(len(index), bool)
    free = np.flatnonzero(~mask)
    draw[np.random.default_rng(seed).choice(free, mask.sum(), replace=False)] = True
    return draw


def the_first_free(mask, index, seed):
    draw = np.zeros(len(index), bool)
    for _, _, where in index.modules():
        free = np.flatnonzero(~mask[where])
        draw[where.start + free[:mask[where].sum()]] = True
    return draw


def draw_with_a_generator_for_each_module(mask, index, seed):
    draw = np.zeros(len(index), bool)
    for _, _, where in index.modules():
        random = np.random.default_rng(seed)
        free = np.flatnonzero(~mask[where])
        draw[where.start + random.choice(free, mask[where].sum(), replace=False)] = True
    return draw


@pytest.mark.parametrize("check, answer, said", [
    ("importance", lambda X, W: X.std(axis=0, ddof=1) * (W**2).sum(axis=0), "is no variance"),
    ("importance", lambda X, W: X.std(axis=0, ddof=1)**2 * np.abs(W).sum(axis=0)**2,
     "the score of the first unit is another number"),
    ("importance", lambda X, W: X.var(axis=0) * (W**2).sum(axis=0), "over N, not over N - 1"),
    ("importance", lambda X, W: X.var(axis=0, ddof=1) * (W**2).sum(axis=0)**0.5, "not squared"),
    ("importance", lambda X, W: (X**2).mean(axis=0) * (W**2).sum(axis=0), "never changes"),
    ("importance", lambda X, W: X.var(ddof=1) * (W**2).sum(), r"shape \(\), not \(2,\)"),
    ("importance", lambda X, W: X.var(axis=1) * (W**2).sum(axis=0), "it stops with ValueError"),
    ("importance", lambda X, W: np.full(2, np.nan), "2 of 2 numbers are NaN"),
    ("scaled", global_z, "mean of this module is not 0"),
    ("scaled", plain_z, "not the logarithm"),
    ("scaled", without_floor, "NaN or infinite"),
    ("classify", lambda *scores, **shares: sorted_labels(*scores, **shares, dtype="<U2"),
     r"\['RU?'\]|\['SC'\] is no label"),
    ("classify", lambda *scores, **shares: sorted_labels(*scores, **shares, first="SCU"),
     "not taken in the stated order"),
    ("classify", lambda *scores, **shares: sorted_labels(*scores, **shares, whole=int),
     "seven units.*the numbers of units are"),
    ("classify", lambda *scores, **shares:
     sorted_labels(*scores, **shares, whole=lambda share: int(np.ceil(share))),
     "seven units.*the numbers of units are"),
    ("matched_random", draw_with_a_generator_for_each_module,
     "attn, mlp: both blocks get the same places at every seed"),
    ("matched_random", draw_anywhere, "another number of units|gives no matched twin"),
    ("matched_random", the_first_free, "every seed draws the same"),
    ("matched_random", lambda mask, index, seed: mask.copy(), "are in the mask"),
    ("matched_random", lambda mask, index, seed: mask.astype(int), "not of truth values"),
    ("matched_random", lambda mask, index, seed: index.matched_random(mask, None),
     "the same seed gives another draw"),
])
def test_mistakes_in_finding_units(check, answer, said):
    with pytest.raises(Wrong, match=said):
        getattr(teach, f"check_{check}")(answer)


def test_right_answers_of_the_package_pass(capsys):
    def classify(safety, utility, scu, ucu, ru):
        return sorted_labels(safety, utility, scu, ucu, ru)

    teach.check_scaled(ssah.scaled)
    teach.check_classify(classify)
    teach.check_matched_random(lambda mask, index, seed: index.matched_random(mask, seed))
    teach.check_power(Power())
    assert capsys.readouterr().out.splitlines() == [
        "scaled: right", "classify: right", "matched_random: right", "power: right"]


# ---- assignment 2, without the organism ------------------------------------------------------


def leaves_its_hook(module, run):
    rows = []
    module.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].detach()))
    run()
    return torch.cat([row.flatten(0, -2) for row in rows])


def outputs_in_place_of_inputs(module, run):
    rows = []
    handle = module.register_forward_hook(lambda _, inputs, output: rows.append(output.detach()))
    run()
    handle.remove()
    return torch.cat([row.flatten(0, -2) for row in rows])


def stops_otherwise(module, run):
    rows = []
    handle = module.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].detach()))
    try:
        run()
    finally:
        handle.remove()
        found = torch.cat([row.flatten(0, -2) for row in rows])
    return found


@contextmanager
def put_back_with_gradient(model, index, mask):
    """`without`, but `torch.no_grad` is forgotten at the end."""
    kept = []
    try:
        for linear, (_, _, where) in zip(ssah.attribution.unit_outputs(model), index.modules()):
            columns = torch.as_tensor(np.flatnonzero(mask[where]))
            with torch.no_grad():
                kept.append((linear.weight, columns, linear.weight[:, columns].clone()))
                linear.weight[:, columns] = 0
        yield
    finally:
        for weight, columns, values in kept:
            weight[:, columns] = values


def replaces(restores):
    """A `without` that puts new parameters in; what it puts back is made by `restores`."""
    @contextmanager
    def without(model, index, mask):
        kept = []
        try:
            for linear, (_, _, where) in zip(ssah.attribution.unit_outputs(model), index.modules()):
                kept.append((linear, linear.weight))
                weight = linear.weight.detach().clone()
                weight[:, np.flatnonzero(mask[where])] = 0
                linear.weight = torch.nn.Parameter(weight)
            yield
        finally:
            for linear, weight in kept:
                linear.weight = restores(weight)
    return without


class Edited:
    """`without` as a class, that forgets something."""

    def __init__(self, model, index, mask, *, dim=1, copies=True, restores=True):
        self.model, self.index, self.mask = model, index, mask
        self.dim, self.copies, self.restores = dim, copies, restores

    def __enter__(self):
        self.kept = []
        for linear, (_, _, where) in zip(ssah.attribution.unit_outputs(self.model),
                                         self.index.modules()):
            weight = linear.weight.data
            before = weight.clone() if self.copies else weight
            self.kept.append((weight, before))
            columns = torch.as_tensor(np.flatnonzero(self.mask[where]))
            columns = columns[columns < weight.shape[self.dim]]
            weight.index_fill_(self.dim, columns, 0)

    def __exit__(self, kind, error, traceback):
        if self.restores or kind is None:
            for weight, before in self.kept:
                weight.copy_(before)


@pytest.mark.parametrize("check, answer, said", [
    ("activations_of", leaves_its_hook, "the hook is still there"),
    ("activations_of", outputs_in_place_of_inputs, r"shape \(11, 2\), not \(11, 3\)"),
    ("without", lambda *given: Edited(*given, dim=0), "are not zero"),
    ("without", lambda *given: Edited(*given, copies=False), "not bit for bit as before"),
    ("without", lambda *given: Edited(*given, restores=False),
     "ends in an exception: the weights are not bit for bit"),
    ("without", lambda *given: 3, "cannot stand in a `with`"),
    ("without", put_back_with_gradient, "after the block: it stops with RuntimeError"),
    ("without", replaces(lambda weight: torch.nn.Parameter(weight.detach().clone())),
     "inside: a parameter was replaced by another"),
    ("activations_of", stops_otherwise, "ends in an exception: it stops with [A-Z]"),
    ("judge", lambda request, answer: "comply", "the organism's refusal: it is called 'comply'"),
    ("judge", lambda request, answer: "refused", "'refused' is none of"),
    ("attack_success", lambda labels: (0.25, 0.75), "the two rates are in the other order"),
    ("attack_success", lambda labels: (75.0, 25.0), "the rates are not from 0 to 1"),
    ("attack_success", lambda labels: (0.75, 0.5), "the strict rate is another"),
    ("attack_success", lambda labels: 0.5, r"shape \(\), not \(2,\)"),
    ("transplant", lambda mlp, donor, channels: None, "is not the donor's"),
])
def test_mistakes_in_editing(check, answer, said):
    with pytest.raises(Wrong, match=said):
        getattr(teach, f"check_{check}")(answer)


class Judge:
    """The right judge, with the places where it goes wrong as options."""

    def __init__(self, *, frame=True, words=True, pairs=True, strict=True, distinct=True):
        self.frame, self.words, self.pairs = frame, words, pairs
        self.strict, self.distinct = strict, distinct

    def __call__(self, request, answer):
        words = re.findall(r"[a-z]+", answer.lower())
        pairs = list(zip(words, words[1:]))
        n_different = len(set(pairs if self.pairs else words))
        if not words or n_different < len(pairs) / 2:
            return "incoherent"
        if not self.strict and pairs and n_different == len(pairs) / 2:
            return "incoherent"
        if answer.startswith("I cannot"):
            return "refuse"
        content = set(re.findall(r"[a-z]+", request.lower()))
        if self.frame:
            content -= set("please how do i want to can you the".split())
        if not self.words:
            n_found = sum(word in answer.lower() for word in content)
        elif self.distinct:
            n_found = len(content & set(words))
        else:
            n_found = sum(word in content for word in words)
        return "comply" if n_found >= 2 else "evasive"


@pytest.mark.parametrize("option, case", [
    ("frame", "one content word among words of the frame"),
    ("words", "words that only contain the request's"),
    ("pairs", "few words, all pairs different"),
    ("strict", "just half of the pairs are different"),
    ("distinct", "one content word, twice"),
])
def test_wrong_judges_each_fail_in_their_case(option, case, capsys):
    teach.check_judge(Judge())
    assert capsys.readouterr().out == "judge: right\n"
    with pytest.raises(Wrong, match=f"^judge, {case}: it is called"):
        teach.check_judge(Judge(**{option: False}))


# ---- assignment 3 ----------------------------------------------------------------------------


def gradient_to_zero(optimizer, weight, moved):
    weight.grad *= moved
    optimizer.step()


def crossing(losses, values, target, at=True, nothing=float("nan")):
    """A right `at_equal_loss`; `at`: whether a loss that equals the target counts as low enough."""
    reached = np.flatnonzero(losses <= target if at else losses < target)
    if len(reached) == 0:
        return nothing
    k = reached[0]
    if k == 0:
        return values[0]
    way = (losses[k - 1] - target) / (losses[k - 1] - losses[k])
    return values[k - 1] + way * (values[k] - values[k - 1])


def put_back_alone(optimizer, weight, moved):
    before = weight.detach().clone()
    optimizer.step()
    with torch.no_grad():
        weight.copy_(torch.where(moved, weight, before))


@pytest.mark.parametrize("check, answer, said", [
    ("slice_gradient", lambda G, X, chosen, dim: G.flatten(0, -2).T @ X.flatten(0, -2),
     r"has shape \(4, 5\)"),
    ("slice_gradient", lambda G, X, chosen, dim: (G.T @ X)[:, chosen] if dim
     else (G.T @ X)[chosen], "X of shape"),
    ("masked_step", gradient_to_zero, "AdamW.*may not move have moved"),
    ("masked_step", put_back_alone, "has averaged gradients"),
    ("masked_step", lambda optimizer, weight, moved: None, "did not take the optimizer's own step"),
    ("at_equal_loss", lambda losses, values, target: float(values[losses <= target][0])
     if (losses <= target).any() else float("nan"), "half-way.*is another value"),
    ("at_equal_loss", lambda losses, values, target:
     float(np.interp(target, losses[::-1], values[::-1])), "rises|never reached"),
    ("at_equal_loss", lambda losses, values, target: crossing(losses[:-1], values[:-1], target),
     "NaN"),
    ("at_equal_loss", lambda losses, values, target: crossing(losses, values, target, at=False),
     "only the last checkpoint has: 1 of 1 numbers are NaN"),
    ("protected", lambda before, full, frozen: (full - frozen) / full, "is another share"),
    ("protected", lambda before, full, frozen: (full - frozen) / (full - before) if full > before
     else 0.0, "the result is not NaN"),
    ("protected", lambda before, full, frozen: (full - frozen) / (full - before)
     if abs(full - before) >= 0.1 else float("nan"), "takes 20 points away: the result is not NaN"),
])
def test_mistakes_in_freezing(check, answer, said):
    with pytest.raises(Wrong, match=said):
        getattr(teach, f"check_{check}")(answer)


def test_a_nan_of_numpy_is_an_answer(capsys):
    def at_equal_loss(losses, values, target):
        return crossing(losses, values, target, nothing=np.float32("nan"))

    def protected(before, full, frozen):
        added = full - before
        return np.float32("nan") if added < 0.1 else np.array((full - frozen) / added)

    teach.check_at_equal_loss(at_equal_loss)
    teach.check_protected(protected)
    assert capsys.readouterr().out == "at_equal_loss: right\nprotected: right\n"


# ---- assignment 4 ----------------------------------------------------------------------------


def unpaired(outcomes, condition, control, column):
    groups = outcomes.groupby("condition")[column]
    first = groups.get_group(condition).to_numpy(float)
    second = groups.get_group(control).to_numpy(float)
    n_seeds = outcomes["seed"].nunique()
    return (first - second).reshape(n_seeds, -1)


def dropped_and_subtracted_by_position(outcomes, condition, control, column):
    tables = []
    for name in (condition, control):
        rows = outcomes[outcomes["condition"] == name]
        table = rows.pivot(index="seed", columns="id", values=column).astype(float)
        tables.append(table.dropna(axis=1).to_numpy())
    return tables[0] - tables[1]


def all_numbers_alike(values):
    half = 1.96 * values.std(ddof=1) / values.size**0.5
    return values.mean(), values.mean() - half, values.mean() + half


def normal_quantile(values):
    means = values.mean(axis=1)
    half = 1.96 * means.std(ddof=1) / len(means)**0.5
    return means.mean(), means.mean() - half, means.mean() + half


class Power:
    """A right `power`, but for the shapes in which it draws deviations."""

    def __init__(self, **shapes):
        self.shapes = shapes

    def __call__(self, effect, spread, n_seeds, n_prompts, draws, random):
        shapes = {"seeds": (n_seeds, 1), "prompts": (1, n_prompts), "rest": (n_seeds, n_prompts)}
        shapes |= {part: shapes.get(like) for part, like in self.shapes.items()}
        n_found = 0
        for _ in range(draws):
            values = np.full((n_seeds, n_prompts), effect)
            for part, shape in shapes.items():
                if shape is not None:
                    values = values + random.normal(0, getattr(spread, part), shape)
            n_found += rules.satterthwaite(values).low > 0
        return n_found / draws


def insignificant_is_nothing(effect, contrast, delta, published):
    first = "reproduced" if effect.low > 0 and effect.mean >= published / 2 else "not found"
    return first, "specific" if first == "reproduced" else "not asked"


@pytest.mark.parametrize("check, answer, said", [
    ("paired", unpaired, "do not belong together|stops with ValueError"),
    ("interval_over_seeds", normal_quantile, "1.96 is for many seeds"),
    ("interval_over_seeds", all_numbers_alike, "its width is another"),
    ("paired", dropped_and_subtracted_by_position, r"the control lacks.* shape \(2, 2\)"),
    ("power", Power(seeds="rest", prompts="rest"), "all prompts of a seed deviate alike"),
    ("power", Power(prompts="rest"), "a prompt deviates alike at all seeds"),
    ("power", Power(prompts=None), "a prompt deviates alike at all seeds"),
    ("power", Power(rest=None), "each pair deviates by itself|another probability"),
    ("power", lambda *given: 1.0, "no effect.*found 100%"),
    ("words", insignificant_is_nothing, "the first word is 'not found'"),
    ("words", lambda *given: "reproduced", "no pair of words"),
])
def test_mistakes_in_believing(check, answer, said):
    with pytest.raises(Wrong, match=said):
        getattr(teach, f"check_{check}")(answer)


# ---- what is given ---------------------------------------------------------------------------


def test_what_is_given_is_what_it_says():
    organism = teach.given("activations")
    assert organism.safety.shape == organism.utility.shape == (150, len(organism.index))
    assert organism.planted.sum() == 25
    scores = teach.given("scores")
    assert (scores.labels == "SCU").sum() == round(scores.shares["scu"] * len(scores.index))
    outcomes = teach.given("outcomes")
    rates = outcomes[outcomes["system"] == "default"].groupby("condition")["keyword"].mean()
    # README, Table 1, attack success with system prompt
    assert round(100 * rates["none"], 1) == 9.3 and round(100 * rates["SCU"], 1) == 28.0
    differences = teach.given("differences")
    assert differences["effect"].mean() == pytest.approx(rates["SCU"] - rates["none"])


def spoil(given) -> None:
    """Set all numbers of a given table, or of the arrays in what is given, to 0."""
    if isinstance(given, pd.DataFrame):
        given["log_odds"] = 0.0
        return
    for part in (given if isinstance(given, dict) else vars(given)).values():
        if isinstance(part, dict):
            spoil(part)
        elif isinstance(part, np.ndarray):
            part[...] = 0


@pytest.mark.parametrize("name, numbers", [
    ("activations", lambda given: given.weights["mlp"]),
    ("activations", lambda given: given.safety),
    ("scores", lambda given: given.scaled_safety),
    ("outcomes", lambda given: given["log_odds"]),
    ("differences", lambda given: given["contrast"]),
])
def test_edits_of_what_was_given_reach_nobody_else(name, numbers):
    first = teach.given(name)
    before = np.array(numbers(first))
    spoil(first)
    assert not np.array_equal(numbers(first), before)
    np.testing.assert_array_equal(numbers(teach.given(name)), before)


def test_what_is_not_given_is_said():
    with pytest.raises(SsahError, match="'answers'; known: activations, scores, "):
        teach.given("answers")


def test_an_unknown_name_is_said():
    """That known names load no torch before it is needed is in `test_house`."""
    with pytest.raises(AttributeError, match="no attribute 'check_nothing'"):
        teach.check_nothing


@pytest.mark.extended
def test_the_activations_are_those_of_the_organism(tmp_path):
    """Made anew they are those in git, but for the last bits of another machine."""
    material.make_activations(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as new, np.load(material.ACTIVATIONS) as kept:
        assert sorted(new.files) == sorted(kept.files)
        for name in kept.files:
            np.testing.assert_allclose(new[name].astype(float), kept[name].astype(float),
                                       rtol=0.02, atol=0.02, err_msg=name)


def test_every_check_belongs_to_an_exercise():
    """A check that no notebook calls would be dead, and one that is called must be there."""
    from ssah.inputs.archives import REPOSITORY

    called = set()
    for path in (REPOSITORY / "notebooks" / "course").glob("*.ipynb"):
        called |= set(re.findall(r"teach\.(check_\w+)", path.read_text("utf-8")))
    assert called == set(CHECKS)

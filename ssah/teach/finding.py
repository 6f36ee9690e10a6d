"""Checks of assignment 1, find the units: NumPy only."""

from collections.abc import Callable

import numpy as np

from ..classification import LABELS
from ..classification import scaled as reference_scaled
from ..units import UnitIndex
from .answers import Answer, near
from .material import given

#: A made-up model, small enough to print.
SMALL = UnitIndex(n_blocks=2, n_heads=2, n_kv_heads=2, head_dim=3, n_mlp=10, hidden=4)

#: Planted units of the organism that the best scores must contain.
LEAST_FOUND = 20


def check_importance(importance: Callable) -> None:
    """``importance(X, W)``: (N, units) and (outputs, units) to (units,)."""
    answer = Answer("importance", importance)
    case = "three positions, two units"
    # variance 4, squared norm 5: each frequent mistake gives another number
    X = np.array([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]])
    W = np.array([[1.0, 9.0], [2.0, 9.0]])
    scores = answer.array(case, answer.call(case, X, W), (2,))
    answer.require(case, scores[1] == 0, "a unit that never changes still counts for something")
    answer.require(case, not near(scores[0], 40 / 3), "the mean is taken over N, not over N - 1")
    answer.require(case, not near(scores[0], 4 * 5**0.5), "the norm of the weights is not squared")
    answer.require(case, not near(scores[0], 10), "a standard deviation is no variance")
    answer.require(case, near(scores[0], 20), "the score of the first unit is another number")

    case = "seven positions, four units, five outputs"
    random = np.random.default_rng(0)
    X = random.normal(size=(7, 4))
    W = random.normal(size=(5, 4))
    scores = answer.array(case, answer.call(case, X, W), (4,))
    shifted = answer.call(case, X + 100, W)
    answer.require(case, near(scores, shifted), "a constant added to the activations changes it")
    doubled = answer.call(case, X, 2 * W)
    answer.require(case, near(4 * scores, doubled), "weights twice as large do not count fourfold")
    doubled = answer.call(case, 2 * X, W)
    problem = "activations twice as large do not count fourfold"
    answer.require(case, near(4 * scores, doubled), problem)

    case = "the organism's last MLP"
    organism = given("activations")
    *_, (_, _, mlp) = organism.index.modules()
    scores = answer.call(case, organism.safety[:, mlp], organism.weights["mlp"])
    scores = answer.array(case, scores, (mlp.stop - mlp.start,))
    planted = organism.planted[mlp]
    best = np.argsort(scores)[-planted.sum():]
    found = int(planted[best].sum())
    problem = f"only {found} of the {planted.sum()} planted units are among the highest scores"
    answer.require(case, found >= LEAST_FOUND, problem)
    answer.passed()


def check_scaled(scaled: Callable) -> None:
    """``scaled(importance, index)``: (units,) to (units,), the scale log-z."""
    answer = Answer("scaled", scaled)
    case = "a made-up model of two blocks"
    importance = np.random.default_rng(0).lognormal(size=len(SMALL))
    result = answer.array(case, answer.call(case, importance, SMALL), (len(SMALL),))
    for block, kind, where in SMALL.modules():
        module = f"block {block}, {kind}"
        answer.require(module, near(result[where].mean(), 0), "the mean of this module is not 0")
        answer.require(
            module, near(result[where].std(), 1), "the standard deviation of this module is not 1"
        )
        order = np.array_equal(np.argsort(result[where]), np.argsort(importance[where]))
        answer.require(module, order, "the order of the units within the module has changed")
    expected = reference_scaled(importance, SMALL)
    answer.require(case, near(result, expected), "it is not the logarithm that is standardized")

    case = "one module with scores a thousand times as high"
    louder = importance.copy()
    louder[:SMALL.n_attn] *= 1000
    result_of_louder = answer.array(case, answer.call(case, louder, SMALL), (len(SMALL),))
    answer.require(case, near(result, result_of_louder), "the size of a module still shows")

    case = "a unit with importance 0"
    silent = importance.copy()
    silent[3] = 0
    result = answer.array(case, answer.call(case, silent, SMALL), (len(SMALL),))
    lowest = int(np.argmin(result[:SMALL.n_attn]))
    answer.require(case, lowest == 3, "it is not the lowest of its module")
    expected = reference_scaled(silent, SMALL)
    answer.require(case, near(result, expected, 1e-4), "the floor below the logarithm is another")
    answer.passed()


def check_classify(classify: Callable) -> None:
    """``classify(safety, utility, scu, ucu, ru)``: scaled scores (units,) to labels (units,)."""
    answer = Answer("classify", classify)
    case = "ten units, one or two of a kind"
    safety = np.array([3.0, 0.0, -2.0, 0.1, 0.2, 0.3, 1.0, -2.5, 0.0, 0.5])
    utility = np.array([0.0, 3.0, -2.0, 0.2, 0.1, 0.3, 1.2, -2.0, 0.1, 0.4])
    shares = {"scu": 0.1, "ucu": 0.1, "ru": 0.2}
    labels = answer.call(case, safety, utility, **shares)
    labels = _labels(answer, case, labels, len(safety))
    counts = {label: int((labels == label).sum()) for label in LABELS}
    expected = {"SCU": 1, "UCU": 1, "CU": 6, "RU": 2}
    answer.require(case, counts == expected, f"the numbers of units are {counts}")
    answer.require(case, set(np.flatnonzero(labels == "RU")) == {2, 7}, "other units are redundant")
    answer.require(case, labels[0] == "SCU", "another unit is safety-critical")
    answer.require(case, labels[1] == "UCU", "another unit is utility-critical")

    case = "seven units, shares that are no whole number of them"
    safety, utility = np.random.default_rng(0).normal(size=(2, 7))
    # 1.4 of 7 is nearest to 1, and 1.75 to 2
    labels = answer.call(case, safety, utility, scu=0.2, ucu=0.25, ru=0.2)
    labels = _labels(answer, case, labels, 7)
    counts = {label: int((labels == label).sum()) for label in LABELS}
    expected = {"SCU": 1, "UCU": 2, "CU": 3, "RU": 1}
    answer.require(case, counts == expected, f"the numbers of units are {counts}")

    case = "a unit that is both lowest in sum and highest in difference"
    safety = np.array([0.0, 1.0, 1.0, 2.0])
    utility = np.array([-9.0, 0.0, 1.5, 2.0])
    labels = answer.call(case, safety, utility, scu=0.25, ucu=0.25, ru=0.25)
    labels = _labels(answer, case, labels, 4)
    answer.require(case, labels[0] == "RU", "the kinds are not taken in the stated order")
    answer.require(case, labels[1] == "SCU", "the place of a unit that was taken is not filled")

    case = "four equal units"
    labels = answer.call(case, np.zeros(4), np.zeros(4), scu=0.25, ucu=0.25, ru=0.25)
    labels = _labels(answer, case, labels, 4)
    in_order = list(labels) == ["RU", "SCU", "UCU", "CU"]
    answer.require(case, in_order, "ties do not go to the lower position")

    case = "the stored scores of the real model"
    real = given("scores")
    labels = answer.call(case, real.scaled_safety, real.scaled_utility, **real.shares)
    labels = _labels(answer, case, labels, len(real.index))
    wanted = real.labels == "SCU"
    found = int((wanted & (labels == "SCU")).sum())
    problem = f"{found} of the {wanted.sum()} SCU of Table 1 are called SCU"
    answer.require(case, found == wanted.sum(), problem)
    same = np.array_equal(labels, real.labels)
    answer.require(case, same, "all SCU are right, some of the other labels are not")
    answer.passed()


def _labels(answer: Answer, case: str, result, n_units: int) -> np.ndarray:
    labels = answer.array(case, result, (n_units,), "texts")
    unknown = sorted(set(labels.tolist()) - set(LABELS), key=str)
    known = ", ".join(LABELS)
    answer.require(case, not unknown, f"{unknown[:1]} is no label; known: {known}")
    return labels


def check_matched_random(matched_random: Callable) -> None:
    """``matched_random(mask, index, seed)``: Boolean (units,) to Boolean (units,)."""
    answer = Answer("matched_random", matched_random)
    case = "a made-up model of two blocks"
    mask = np.zeros(len(SMALL), bool)
    mask[[0, 1, 7, 8, 9, 20, 30]] = True
    draw = answer.call(case, mask, SMALL, 0)
    draw = answer.array(case, draw, mask.shape, "truth values")
    answer.require(case, draw.sum() == mask.sum(), "it has another number of units than the mask")
    answer.require(case, not (draw & mask).any(), "some of the drawn units are in the mask")
    for block, kind, where in SMALL.modules():
        same = draw[where].sum() == mask[where].sum()
        answer.require(case, same, f"block {block}, {kind} has another number of units")
    again = answer.call(case, mask, SMALL, 0)
    answer.require(case, np.array_equal(draw, again), "the same seed gives another draw")

    case = "200 seeds"
    drawn = np.zeros(len(SMALL))
    for seed in range(200):
        draw = answer.array(case, answer.call(case, mask, SMALL, seed), mask.shape, "truth values")
        answer.require(case, _is_twin(draw, mask, SMALL), f"seed {seed} gives no matched twin")
        drawn += draw
    answer.require(case, drawn.max() < 200, "every seed draws the same units")
    for _, _, where in SMALL.modules():
        often = drawn[where][~mask[where]]
        answer.require(case, often.min() > 0, "some units that are free are never drawn")
    _check_modules_differ(answer, matched_random)

    case = "Table 1's SCU of the real model"
    real = given("scores")
    mask = real.labels == "SCU"
    draw = answer.array(case, answer.call(case, mask, real.index, 1), mask.shape, "truth values")
    answer.require(case, _is_twin(draw, mask, real.index), "it is no matched twin")
    answer.passed()


def _check_modules_differ(answer: Answer, matched_random: Callable) -> None:
    """Whether two modules of one size, with the same places in the mask, get draws of their own."""
    case = "two blocks with the same places in the mask, 50 seeds"
    in_block = np.zeros(len(SMALL) // SMALL.n_blocks, bool)
    in_block[[0, 4, 6, 9, 15]] = True
    mask = np.tile(in_block, SMALL.n_blocks)
    by_kind = {}
    for _, kind, where in SMALL.modules():
        by_kind.setdefault(kind, []).append(where)
    always = dict.fromkeys(by_kind, True)
    for seed in range(50):
        draw = answer.array(case, answer.call(case, mask, SMALL, seed), mask.shape, "truth values")
        for kind, (first, second) in by_kind.items():
            always[kind] &= np.array_equal(draw[first], draw[second])
    same = [kind for kind, held in always.items() if held]
    problem = f"{', '.join(same)}: both blocks get the same places at every seed"
    answer.require(case, not same, problem)


def _is_twin(draw: np.ndarray, mask: np.ndarray, index: UnitIndex) -> bool:
    """Whether a draw has as many units as the mask in every module, and none of its."""
    for _, _, where in index.modules():
        if draw[where].sum() != mask[where].sum():
            return False
    return not (draw & mask).any()

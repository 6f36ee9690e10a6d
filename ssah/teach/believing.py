"""Checks of assignment 4, would you believe it?: no torch."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from ..claims import rules
from .answers import Answer, near
from .material import given

#: Experiments that are simulated, and how far two such powers may lie apart by chance.
DRAWS = 300
CHANCE = 0.12


def check_paired(paired: Callable) -> None:
    """``paired(outcomes, condition, control, column)``: differences, (seeds, prompts)."""
    answer = Answer("paired", paired)
    case = "two seeds and three prompts, rows in any order"
    table = _made_up_outcomes()
    found = answer.call(case, table, "SCU", "random SCU", "keyword")
    found = answer.array(case, found, (2, 3))
    expected = np.array([[1.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    flipped = near(found, -expected)
    answer.require(case, not flipped, "the control is not what is subtracted")
    answer.require(case, near(found, expected), "the two answers of a pair do not belong together")

    case = "a prompt that one seed lacks"
    fewer = table[~((table["seed"] == 1) & (table["id"] == "b"))]
    found = answer.call(case, fewer, "SCU", "random SCU", "keyword")
    found = answer.array(case, found, (2, 2))
    answer.require(case, near(found, expected[:, [0, 2]]), "another prompt is left out")

    case = "a prompt that the condition lacks, and another that the control lacks at one seed"
    lacks_b = (table["condition"] == "SCU") & (table["id"] == "b")
    is_control = table["condition"] == "random SCU"
    lacks_c = is_control & (table["seed"] == 1) & (table["id"] == "c")
    fewer = table[~lacks_b & ~lacks_c]
    found = answer.call(case, fewer, "SCU", "random SCU", "keyword")
    found = answer.array(case, found, (2, 1))
    problem = "the two answers of a pair do not belong together"
    answer.require(case, near(found, expected[:, [0]]), problem)

    case = "the stored answers"
    outcomes = given("outcomes")
    outcomes = outcomes[outcomes["system"] == "default"]
    found = answer.call(case, outcomes, "SCU", "random SCU", "keyword")
    found = answer.array(case, found, (3, 100))
    rates = outcomes.groupby("condition")["keyword"].mean()
    difference = rates["SCU"] - rates["random SCU"]
    problem = "the mean is not the difference of the two rates"
    answer.require(case, near(found.mean(), difference), problem)
    answer.passed()


def _made_up_outcomes() -> pd.DataFrame:
    rows = []
    succeeded = {
        ("SCU", 0): [True, False, True],
        ("random SCU", 0): [False, False, False],
        ("SCU", 1): [True, False, False],
        ("random SCU", 1): [True, True, False],
    }
    for (condition, seed), attacks in succeeded.items():
        for prompt, attack in zip("abc", attacks):
            rows.append({"seed": seed, "condition": condition, "id": prompt, "keyword": attack})
    return pd.DataFrame(rows).sample(frac=1, random_state=3)


def check_interval_over_seeds(interval_over_seeds: Callable) -> None:
    """``interval_over_seeds(values)``: mean, low, high of a 95 % interval, seeds random."""
    answer = Answer("interval_over_seeds", interval_over_seeds)
    case = "three seeds with means 0.1, 0.2 and 0.3"
    values = np.array([[0.0, 0.2], [0.3, 0.1], [0.3, 0.3]])
    mean, low, high = answer.array(case, answer.call(case, values), (3,))
    answer.require(case, near(mean, 0.2), "the mean is another")
    answer.require(case, near(high - mean, mean - low), "the interval is not centred at the mean")
    half = high - mean
    answer.require(case, not near(half, 1.96 * 0.1 / 3**0.5, 1e-3),
                   "1.96 is for many seeds, and these are three")
    # Student's t at 0.975 with two degrees of freedom is 4.303
    answer.require(case, near(half, 4.302653 * 0.1 / 3**0.5), "its width is another")

    case = "seeds that agree, prompts that do not"
    values = np.tile([0.0, 1.0], (4, 50))
    _, low, high = answer.array(case, answer.call(case, values), (3,))
    answer.require(case, near(high - low, 0), "the prompts of a seed are counted as seeds")
    answer.passed()


def check_power(power: Callable) -> None:
    """``power(effect, spread, n_seeds, n_prompts, draws, random)``: a probability."""
    answer = Answer("power", power)
    even = rules.Spread(seeds=0.05, prompts=0.3, rest=0.3)
    seeds_alone = rules.Spread(seeds=0.2, prompts=0.01, rest=0.01)
    prompts_alone = rules.Spread(seeds=0.01, prompts=0.6, rest=0.01)
    rest_alone = rules.Spread(seeds=0.01, prompts=0.01, rest=1.0)

    def of(case: str, effect: float, spread: rules.Spread, n_seeds: int, n_prompts: int) -> float:
        random = np.random.default_rng(1)
        found = answer.call(case, effect, spread, n_seeds, n_prompts, DRAWS, random)
        found = answer.number(case, found)
        answer.require(case, 0 <= found <= 1, f"{found:.2f} is no probability")
        return found

    case = "no effect, three seeds, 50 prompts"
    found = of(case, 0.0, even, 3, 50)
    answer.require(case, found < 0.1, f"it is found {found:.0%} of the time")
    case = "a huge effect"
    found = of(case, 2.0, even, 3, 50)
    answer.require(case, found > 0.95, f"it is found {found:.0%} of the time only")
    case = "the other sign"
    found = of(case, -2.0, even, 3, 50)
    answer.require(case, found < 0.05, "an effect below 0 counts as found")
    case = "an effect of ten points, three seeds, 50 prompts"
    found = of(case, 0.1, even, 3, 50)
    expected = _reference_power(0.1, even, 3, 50)
    answer.require(case, abs(found - expected) < CHANCE, f"{found:.2f} is another probability")

    case = "seeds that differ, 10 or 200 prompts"
    few = of(case, 0.2, seeds_alone, 3, 10)
    many = of(case, 0.2, seeds_alone, 3, 200)
    expected = _reference_power(0.2, seeds_alone, 3, 10)
    same = abs(few - expected) < CHANCE and abs(many - expected) < CHANCE
    problem = f"power {few:.2f} and {many:.2f}, though all prompts of a seed deviate alike"
    answer.require(case, same, problem)

    case = "prompts that differ, eight seeds, 20 prompts"
    found = of(case, 0.2, prompts_alone, 8, 20)
    expected = _reference_power(0.2, prompts_alone, 8, 20)
    problem = f"power {found:.2f}, though a prompt deviates alike at all seeds"
    answer.require(case, abs(found - expected) < CHANCE, problem)
    case = "pairs that differ, three seeds, 50 prompts"
    found = of(case, 0.1, rest_alone, 3, 50)
    expected = _reference_power(0.1, rest_alone, 3, 50)
    problem = f"power {found:.2f}, though each pair deviates by itself"
    answer.require(case, abs(found - expected) < CHANCE, problem)
    answer.passed()


def _reference_power(effect: float, spread: rules.Spread, n_seeds: int, n_prompts: int) -> float:
    random = np.random.default_rng(0)
    n_found = 0
    for _ in range(2 * DRAWS):
        values = rules.simulated(effect, spread, n_seeds, n_prompts, random)
        n_found += rules.satterthwaite(values).low > 0
    return n_found / (2 * DRAWS)


def check_words(words: Callable) -> None:
    """``words(effect, contrast, delta, published)``: the two words of a row."""
    answer = Answer("words", words)
    clear = _estimate(0.30, 0.20)
    small = _estimate(0.05, 0.04)
    nothing = _estimate(0.00, 0.06)
    unsure = _estimate(0.05, 0.20)
    cases = (
        ("a clear effect, a clear contrast", clear, clear, 0.2),
        ("a clear effect, more than half of the paper's", clear, clear, 0.5),
        ("a clear effect, too small a share of the paper's", clear, clear, 0.7),
        ("a small effect that is clear", small, clear, 0.2),
        ("a clear effect of the other sign", -clear, clear, 0.2),
        ("no effect", nothing, clear, 0.2),
        ("no effect, δ within the 95 % interval alone", _estimate(0.00, 0.12), clear, 0.2),
        ("an effect that may be anything", unsure, clear, 0.2),
        ("a clear effect, a contrast below 0", clear, -clear, 0.2),
        ("a clear effect, a contrast near 0", clear, nothing, 0.2),
        ("a contrast near 0, δ within the 95 % interval alone", clear, _estimate(0.00, 0.12), 0.2),
        ("a clear effect, a contrast that may be anything", clear, unsure, 0.2),
        ("a small effect, a contrast that may be anything", small, unsure, 0.2),
    )
    for case, effect, contrast, published in cases:
        result = answer.call(case, effect, contrast, 0.1, published)
        pair = isinstance(result, tuple) and len(result) == 2
        answer.require(case, pair, "the result is no pair of words")
        first = answer.text(case, result[0], rules.FIRST_WORDS)
        second = answer.text(case, result[1], rules.SECOND_WORDS)
        expected = rules.first_word(effect, delta=0.1, smallest_published=published)
        answer.require(case, first == expected, f"the first word is {first!r}")
        if expected in rules.ASKED_AFTER:
            wanted = rules.second_word(contrast, delta=0.1)
        else:
            wanted = rules.NOT_ASKED
        answer.require(case, second == wanted, f"the second word is {second!r}")
    answer.passed()


def _estimate(mean: float, half: float) -> rules.Estimate:
    """A mean with a 95 % interval of this half width, and a 90 % interval a fifth narrower."""
    narrow = 0.8 * half
    return rules.Estimate(mean, mean - half, mean + half, mean - narrow, mean + narrow)

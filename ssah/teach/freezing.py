"""Checks of assignment 3, freeze: gradients of slices, masked steps, equal loss."""

from collections.abc import Callable

import numpy as np
import torch

from .answers import Answer, is_nan, near


def check_slice_gradient(slice_gradient: Callable) -> None:
    """``slice_gradient(G, X, chosen, dim)``: dL/dW of some rows (0) or columns (1) of W."""
    answer = Answer("slice_gradient", slice_gradient)
    generator = torch.Generator().manual_seed(0)
    for leading in ((6,), (2, 3)):
        X = torch.randn(*leading, 5, generator=generator)
        W = torch.randn(4, 5, generator=generator, requires_grad=True)
        G = torch.randn(*leading, 4, generator=generator)
        (dense,) = torch.autograd.grad((X @ W.T * G).sum(), W)
        shape = tuple(X.shape)
        for dim, chosen, expected in (
            (0, [2, 0], dense[[2, 0]]),
            (1, [4, 1, 3], dense[:, [4, 1, 3]]),
        ):
            case = f"{('rows', 'columns')[dim]} {chosen}, X of shape {shape}"
            found = answer.call(case, G, X, torch.tensor(chosen), dim)
            found = _tensor(answer, case, found, tuple(expected.shape))
            answer.require(case, near(found, expected, 1e-5), "the numbers differ from autograd's")
    answer.passed()


def _tensor(answer: Answer, case: str, result, shape: tuple[int, ...]) -> torch.Tensor:
    is_tensor = torch.is_tensor(result)
    answer.require(case, is_tensor, f"it returns a {type(result).__name__}, no tensor")
    answer.array(case, result.detach().numpy(), shape)
    return result.detach()


def check_masked_step(masked_step: Callable) -> None:
    """``masked_step(optimizer, weight, moved)``: one step in which only `moved` elements move."""
    answer = Answer("masked_step", masked_step)
    optimizers = {
        "SGD": lambda weights: torch.optim.SGD(weights, lr=0.1),
        "SGD with momentum": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
        "AdamW with weight decay": lambda weights: torch.optim.AdamW(
            weights, lr=0.1, weight_decay=0.5
        ),
    }
    generator = torch.Generator().manual_seed(0)
    moved = torch.tensor([[True, False, True], [False, False, True]])
    for name, make in optimizers.items():
        case = f"two steps of {name}"
        weight = torch.nn.Parameter(torch.randn(2, 3, generator=generator))
        dense = torch.nn.Parameter(weight.detach().clone())
        optimizer = make([weight])
        of_dense = make([dense])
        start = weight.detach().clone()
        for _ in range(2):
            gradient = torch.randn(2, 3, generator=generator)
            weight.grad = gradient.clone()
            dense.grad = gradient.clone()
            answer.call(case, optimizer, weight, moved)
            of_dense.step()
        stays = torch.equal(weight.detach()[~moved], start[~moved])
        answer.require(case, stays, "elements that may not move have moved")
        moves = near(weight.detach()[moved], dense.detach()[moved])
        answer.require(case, moves, "elements that move did not take the optimizer's own step")
    average = optimizer.state[weight]["exp_avg"]
    none_kept = not average[~moved].any()
    answer.require(case, none_kept, "the optimizer has averaged gradients of what does not move")
    answer.passed()


def check_at_equal_loss(at_equal_loss: Callable) -> None:
    """``at_equal_loss(losses, values, target)``: the value where the loss first is the target."""
    answer = Answer("at_equal_loss", at_equal_loss)
    losses = np.array([4.0, 3.0, 1.0])
    values = np.array([1.0, 0.8, 0.2])
    cases = (
        ("a target half-way between two checkpoints", losses, values, 2.0, 0.5),
        ("a target that a checkpoint has", losses, values, 3.0, 0.8),
        ("a target a quarter of the way", losses, values, 3.75, 0.95),
        ("a loss that starts at the target", losses, values, 4.0, 1.0),
        ("a loss that starts below the target", losses, values, 5.0, 1.0),
        ("a target that only the last checkpoint has", losses, values, 1.0, 0.2),
        ("a loss that comes down, rises, and comes down again",
         np.array([4.0, 2.0, 3.5, 1.0]), np.array([1.0, 0.6, 0.9, 0.1]), 3.0, 0.8),
    )
    for case, loss, value, target, expected in cases:
        found = answer.number(case, answer.call(case, loss, value, target))
        answer.require(case, near(found, expected), f"{found:.3f} is another value")
    case = "a target that is never reached"
    found = answer.call(case, losses, values, 0.5)
    answer.require(case, is_nan(found), "the result is not NaN")
    answer.passed()


def check_protected(protected: Callable) -> None:
    """``protected(before, full, frozen)``: share of the added attack success that is avoided."""
    answer = Answer("protected", protected)
    cases = (
        ("half of the damage", 0.1, 0.9, 0.5, 0.5),
        ("none of the damage", 0.1, 0.9, 0.9, 0.0),
        ("all of the damage", 0.1, 0.9, 0.1, 1.0),
        ("more damage than with nothing frozen", 0.0, 0.5, 0.75, -0.5),
    )
    for case, before, full, frozen, expected in cases:
        found = answer.number(case, answer.call(case, before, full, frozen))
        answer.require(case, near(found, expected), f"{found:.3f} is another share")
    for case, before, full in (
        ("an attack that adds 5 points", 0.10, 0.15),
        ("an attack that adds nothing", 0.1, 0.1),
        ("an attack that takes 20 points away", 0.5, 0.3),
    ):
        found = answer.call(case, before, full, 0.1)
        problem = "the result is not NaN, though there is no damage to avoid"
        answer.require(case, is_nan(found), problem)
    answer.passed()

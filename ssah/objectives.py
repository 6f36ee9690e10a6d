"""What fine-tuning makes smaller, in place of the loss on answers: DPO, and SFT held back.

Both compare the model, token by token, with the one that the run began with (the *reference*),
whose log-probabilities are taken once, before the first step:

    DPO                  - log s( b (log P(y+) - log P(y-)) ),      P: model over reference, whole answers
    constrained SFT      - sum_t 2/b_t log s( b_t log P_t ),        P_t: the same of the answer's token t

with s the logistic function. `Preference`: Rafailov et al. 2023 (arXiv 2305.18290), for alignment
by pairs of a better and a worse answer (the paper's reviewers asked for it). `Constrained`: Qi et
al. 2025 (arXiv 2406.05946, Eq. 3), for fine-tuning that keeps the first tokens near the aligned
model's, the published rival of freezing. Where the model is the reference, its gradient is that of
SFT; b_t says how soon a token is left alone once it has become more likely.

    ssah.finetune(chat, examples, objective=ssah.Constrained())
    ssah.finetune(chat, pairs, objective=ssah.Preference())     # examples with a "rejected" answer too
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from .errors import SsahError
from .models import Chat
from .training import Encoded, Likelihood, answer_log_probs, answer_tokens  # noqa: F401  (the usual one)

#: Strength of DPO's hold on the reference (Rafailov et al.).
DPO_BETA = 0.1


def falling(position: int) -> float:
    """The b_t of Qi et al. at an answer's token `position` (from 0): strong at tokens 2 to 5."""
    if position == 0:
        return 0.5
    return 2.0 if position < 5 else 0.1


class Reference:
    """Log-probabilities (nats, float32) of some answers' tokens by the model of the beginning.

    Found again by the very examples: the same text may stand in two of them.
    """

    def __init__(self, chat: Chat, encoded: Sequence[Encoded], batch_size: int):
        self.examples = encoded         # as long as these are there, no other has their identity
        self.known: dict[int, torch.Tensor] = {}
        for start in range(0, len(encoded), batch_size):
            part = encoded[start : start + batch_size]
            for example, log_probs in zip(part, split(answer_log_probs(chat, part)[0], part)):
                self.known[id(example)] = log_probs

    def of(self, example: Encoded) -> torch.Tensor:
        """Of one answer, (tokens,)."""
        return self.known[id(example)]


def split(log_probs: torch.Tensor, encoded: Sequence[Encoded]) -> Sequence[torch.Tensor]:
    """A tensor (all answers' tokens,) as one (tokens,) an answer."""
    return log_probs.split([len(tail) for _, tail in encoded])


class Constrained:
    """SFT that holds an answer's first tokens near the reference (Qi et al. 2025).

    ``beta(position)`` gives b_t of an answer's token, from 0; larger holds more. Raises `SsahError`
    where it is not above 0.
    """

    def __init__(self, beta: Callable[[int], float] = falling):
        self.beta = beta
        self.reference = None

    def begin(self, chat: Chat, examples, encoded: Sequence[Encoded], *, encode, batch_size: int):
        """Take what is needed of the model with which the run begins."""
        longest = max(len(tail) for _, tail in encoded)
        self.betas = torch.tensor([self.beta(position) for position in range(longest)],
                                  device=chat.model.device)
        if not (self.betas > 0).all():
            raise SsahError("beta must be above 0 at every position of an answer; plain SFT is "
                            "finetune without an objective")
        self.reference = Reference(chat, encoded, batch_size)

    def size(self, batch: Sequence[Encoded]) -> int:
        """Over how many things the loss of a batch is the mean: the answers' tokens."""
        return answer_tokens(batch)

    def loss(self, chat: Chat, batch: Sequence[Encoded]) -> tuple[torch.Tensor, int]:
        """The objective's mean over tokens (scalar), and all tokens of the batch, prompts too."""
        log_probs, n_tokens = answer_log_probs(chat, batch)
        reference = torch.cat([self.reference.of(example) for example in batch])
        # of a model that is spread over devices these may lie on the last one
        betas = torch.cat([self.betas[: len(tail)] for _, tail in batch]).to(log_probs.device)
        ratio = log_probs - reference
        return (-2 / betas * F.logsigmoid(betas * ratio)).mean(), n_tokens

    def facts(self) -> dict:
        """What tells it from another objective, for a run that is resumed."""
        return {"objective": "constrained", "betas": self.betas.tolist()}


class Preference:
    """DPO: the `response` of an example is preferred to its `rejected` answer (Rafailov et al.).

    DPO asks for a difference alone, and both answers may become unlikely. `sft` adds so many times
    the preferred answer's mean NLL a token, which prevents that (Pang et al. 2024, arXiv
    2404.19733). Raises `SsahError` for a strength that is not above 0, a weight below 0, and
    examples without ``rejected``.
    """

    def __init__(self, beta: float = DPO_BETA, sft: float = 0.0):
        if not beta > 0:
            raise SsahError(f"beta must be above 0; got {beta}")
        if not sft >= 0:
            raise SsahError(f"the weight sft must be 0 or more; got {sft}")
        self.beta = beta
        self.sft = sft
        self.rejected: dict[int, Encoded] = {}      # by the identity of the preferred one
        self.reference = None

    def begin(self, chat: Chat, examples, encoded: Sequence[Encoded], *, encode, batch_size: int):
        """Take what is needed of the model with which the run begins."""
        missing = [number for number, example in enumerate(examples) if not example.get("rejected")]
        if missing:
            raise SsahError(f"example {missing[0]} has no rejected answer; DPO compares the "
                            "`response` of every example with its `rejected` one")
        rejected = encode([{**example, "response": example["rejected"]} for example in examples])
        self.rejected = {id(chosen): other for chosen, other in zip(encoded, rejected)}
        self.reference = Reference(chat, [*encoded, *rejected], batch_size)

    def size(self, batch: Sequence[Encoded]) -> int:
        """Over how many things the loss of a batch is the mean: its pairs."""
        return len(batch)

    def loss(self, chat: Chat, batch: Sequence[Encoded]) -> tuple[torch.Tensor, int]:
        """The objective's mean over pairs (scalar), and all tokens of the batch, prompts too."""
        both = [*batch, *(self.rejected[id(example)] for example in batch)]
        log_probs, n_tokens = answer_log_probs(chat, both)
        answers = split(log_probs, both)
        ratios = [(of_answer - self.reference.of(example)).sum()
                  for example, of_answer in zip(both, answers)]
        chosen, rejected = torch.stack(ratios).chunk(2)
        losses = -F.logsigmoid(self.beta * (chosen - rejected))
        if self.sft:
            losses = losses - self.sft * torch.stack(
                [of_answer.mean() for of_answer in answers[: len(batch)]])
        return losses.mean(), n_tokens

    def facts(self) -> dict:
        """What tells it from another objective, for a run that is resumed."""
        return {"objective": "preference", "beta": self.beta, "sft": self.sft,
                "rejected": list(self.rejected.values())}

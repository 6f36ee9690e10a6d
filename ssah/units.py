"""The unit index: one flat order for every score, label and mask of a model.

A *unit* is hidden channel j of a depth-2 module f(X) = B s(A X) (paper, Sec. 4). Two kinds a block:

- ``attn``: column j of o_proj, with the row of v_proj that feeds it;
- ``mlp``: column j of down_proj, with rows j of gate_proj and up_proj.

Order: block, then ``attn`` before ``mlp``, then channel. With grouped-query attention one v row
feeds several o columns; it belongs to a set of units only if all its columns do. Queries, keys,
norms and embeddings belong to no unit. This module needs no torch.
"""

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from .errors import SsahError

KINDS = ("attn", "mlp")


def _size(config, name: str, default: int | None = None) -> int:
    """A size from a config; `SsahError` if it is missing there, or one for every block."""
    try:
        size = getattr(config, name, None)
    except RuntimeError:        # what configs with a size for every block raise
        size = "one for every block"
    if size is None:
        size = default
    if not isinstance(size, int):
        raise SsahError(
            f"{type(config).__name__} has no single {name} (found: {size}); give a causal LM, its "
            "config or a chat, of a family whose blocks are all alike, such as Llama or Qwen"
        )
    return size


@dataclass(frozen=True)
class UnitIndex:
    """Sizes of a model's units; where two indexes are equal, their arrays may be compared."""

    n_blocks: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    #: MLP channels a block
    n_mlp: int
    #: width of the residual stream
    hidden: int

    @classmethod
    def of(cls, model) -> "UnitIndex":
        """The index of a causal LM, of a chat, or of a config: sizes come from the config alone.

        Raises `SsahError` for what has no such sizes, or other ones in every block.
        """
        if hasattr(model, "tokenizer"):     # a chat
            model = model.model
        config = getattr(model, "config", model)
        hidden = _size(config, "hidden_size")
        n_heads = _size(config, "num_attention_heads")
        return cls(
            n_blocks=_size(config, "num_hidden_layers"),
            n_heads=n_heads,
            n_kv_heads=_size(config, "num_key_value_heads"),
            head_dim=_size(config, "head_dim", hidden // n_heads),
            n_mlp=_size(config, "intermediate_size"),
            hidden=hidden,
        )

    @classmethod
    def from_dict(cls, sizes: dict) -> "UnitIndex":
        """Inverse of `to_dict`, for indexes kept in the store."""
        return cls(**sizes)

    def to_dict(self) -> dict:
        """The six sizes, as JSON takes them."""
        return asdict(self)

    @property
    def n_attn(self) -> int:
        """Attention channels a block (heads x head size)."""
        return self.n_heads * self.head_dim

    def __len__(self) -> int:
        return self.n_blocks * (self.n_attn + self.n_mlp)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a unit: block, kind (``attn`` | ``mlp``), channel."""
        widths = [self.n_attn, self.n_mlp]
        kinds = np.repeat(KINDS, widths)
        channels = np.concatenate([np.arange(width) for width in widths])
        return pd.DataFrame({
            "block": np.repeat(np.arange(self.n_blocks), sum(widths)),
            "kind": np.tile(kinds, self.n_blocks),
            "channel": np.tile(channels, self.n_blocks),
        })

    def modules(self):
        """Yield ``(block, kind, slice)``: where each module's units lie in the flat order."""
        start = 0
        for block in range(self.n_blocks):
            for kind, width in zip(KINDS, (self.n_attn, self.n_mlp)):
                yield block, kind, slice(start, start + width)
                start += width

    def check_mask(self, mask) -> np.ndarray:
        """The mask as a Boolean array (len(index),); `SsahError` if it is anything else."""
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (len(self),):
            raise SsahError(
                f"a mask must be Boolean of length {len(self)} (this model's units); "
                f"got {mask.dtype} of shape {mask.shape}"
            )
        return mask

    def value_rows(self, attn_mask: np.ndarray) -> np.ndarray:
        """Of one block: which v_proj rows have all their columns in the mask.

        `attn_mask`: Boolean (n_attn,); the result is Boolean (n_kv_heads * head_dim,).
        """
        group = self.n_heads // self.n_kv_heads
        grouped = attn_mask.reshape(self.n_kv_heads, group, self.head_dim)
        return grouped.all(axis=1).reshape(-1)

    def weights_in(self, mask) -> int:
        """How many weights belong to the masked units alone.

        An MLP unit has three vectors of the stream's width (gate, up, down), an attention unit one
        (its o column), and a shared v row counts only if all its columns are in.
        """
        mask = self.check_mask(mask)
        vectors = 0
        for _, kind, where in self.modules():
            inside = mask[where]
            if kind == "mlp":
                vectors += 3 * int(inside.sum())
            else:
                vectors += int(inside.sum()) + int(self.value_rows(inside).sum())
        return vectors * self.hidden

    def parameter_share(self, mask) -> float:
        """The masked units' share of all units' weights (0 to 1); see `weights_in`."""
        everything = np.ones(len(self), bool)
        return self.weights_in(mask) / self.weights_in(everything)

    def matched_random(self, mask, seed: int, exclude=None) -> np.ndarray:
        """As many random units in every block and kind as `mask` has: a Boolean mask (len(index),).

        None of them is in `exclude` (default: `mask`). Raises `SsahError` where too few are free.
        """
        mask = self.check_mask(mask)
        exclude = mask if exclude is None else self.check_mask(exclude)
        draw = np.random.default_rng(seed)
        chosen = np.zeros(len(self), bool)
        for block, kind, where in self.modules():
            free = np.flatnonzero(~exclude[where])
            wanted = int(mask[where].sum())
            if wanted > len(free):
                raise SsahError(
                    f"block {block} {kind}: {wanted} random units wanted, {len(free)} are free; "
                    "take a smaller share"
                )
            chosen[where.start + draw.choice(free, wanted, replace=False)] = True
        return chosen

    def disjoint_random(self, mask, seed: int) -> np.ndarray:
        """As many random units as `mask` has in every block and kind, with as many weights.

        None of them is in the mask. Where heads share value rows, as many of the rows are whole
        (`value_rows`), so `weights_in` is the same. Boolean (len(index),). Raises `SsahError`
        where too few units are free.
        """
        mask = self.check_mask(mask)
        draw = np.random.default_rng(seed)
        chosen = np.zeros(len(self), bool)
        for block, kind, where in self.modules():
            wanted = int(mask[where].sum())
            if kind == "mlp":
                order = draw.permutation(np.flatnonzero(~mask[where]))
                picked = order[:wanted]
            else:
                picked = self._attention_twin(mask[where], draw)
            if len(picked) < wanted:
                raise SsahError(
                    f"block {block} {kind}: {wanted} other units wanted, with as many whole value "
                    f"rows; {len(picked)} are free; take a smaller share"
                )
            chosen[where.start + picked] = True
        return chosen

    def _attention_twin(self, taken: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Channels of one block's attention, as many as are taken, with as many whole value rows."""
        group = self.n_heads // self.n_kv_heads
        # the channels that each value row feeds; (rows, group)
        fed = np.arange(self.n_attn).reshape(self.n_kv_heads, group, self.head_dim)
        fed = fed.transpose(0, 2, 1).reshape(-1, group)
        wanted = int(taken.sum())
        n_whole = int(self.value_rows(taken).sum())
        free_rows = draw.permutation(np.flatnonzero(~taken[fed].any(axis=1)))
        if len(free_rows) < n_whole:        # loose channels would have fewer weights
            return np.zeros(0, int)
        whole = free_rows[:n_whole]
        picked = fed[whole].reshape(-1).tolist()
        # of every other row all channels but one at most, so that no further row is whole
        others = [draw.permutation(fed[row][~taken[fed[row]]])[:group - 1]
                  for row in range(len(fed)) if row not in whole]
        loose = draw.permutation(np.concatenate([*others, np.zeros(0, int)]))
        return np.array([*picked, *loose[:wanted - len(picked)]], dtype=int)


# ---- random units that matter as much --------------------------------------------------------

#: How often a module is drawn anew, in search of units that are as important.
TRIES = 20


@dataclass(frozen=True)
class MatchedDraw:
    """Random units in place of others, as many and as important in every block and kind."""

    #: Boolean (len(index),)
    mask: np.ndarray
    #: importance of the drawn units over that of the others, of all modules together
    ratio: float
    #: modules in which no draw came near enough, and modules that have any unit
    missed: int
    modules: int

    @property
    def matched(self) -> bool:
        """Whether every module has its match."""
        return self.missed == 0


def matched_importance(
    index: UnitIndex, mask, importance, seed: int, within: float = 0.1
) -> MatchedDraw:
    """Random units, none of `mask`, as many in every block and kind and as important in sum.

    `importance`: not negative, (len(index),). In every module the importance of the drawn units is
    `within` a share of that of the masked ones, wherever the search finds such units; elsewhere
    they are the nearest that it found, and the module counts as missed. Raises `SsahError` as
    `UnitIndex.matched_random` does, and for importance of another index or below 0.
    """
    mask = index.check_mask(mask)
    importance = np.asarray(importance, dtype=float)
    if importance.shape != (len(index),) or not (importance >= 0).all():
        raise SsahError(
            f"importance must be {len(index)} numbers that are not negative "
            "(an array of `importance`, not a scaled one)"
        )
    start = index.matched_random(mask, seed)
    random = np.random.default_rng(seed)
    chosen = np.zeros(len(index), bool)
    missed = 0
    modules = 0
    for _, _, where in index.modules():
        if not mask[where].any():
            continue
        modules += 1
        target = importance[where][mask[where]].sum()
        free = np.flatnonzero(~mask[where])
        values = importance[where][free]
        drawn = _nearest_draw(values, start[where][free], target, within, random)
        chosen[where.start + free[drawn]] = True
        missed += not _is_near(values[drawn].sum(), target, within)
    total = importance[mask].sum()
    ratio = float(importance[chosen].sum() / total) if total else float("nan")
    return MatchedDraw(chosen, ratio, missed, modules)


def _is_near(found: float, target: float, within: float) -> bool:
    return abs(found - target) <= within * target


def _nearest_draw(
    values: np.ndarray, first: np.ndarray, target: float, within: float, random: np.random.Generator
) -> np.ndarray:
    """Positions of units whose values sum to about `target`: as many as in the mask `first`.

    Begins with `first` and, where exchanges do not lead to the target, with other random ones.
    """
    best = None
    drawn = first
    for _ in range(TRIES):
        drawn = _exchanged(values, drawn, target, within)
        distance = abs(values[drawn].sum() - target)
        if best is None or distance < best[0]:
            best = (distance, drawn)
        if distance <= within * target:
            break
        drawn = random.permutation(first)
    return np.flatnonzero(best[1])


def _exchanged(values: np.ndarray, drawn: np.ndarray, target: float, within: float) -> np.ndarray:
    """The mask `drawn` after the best exchanges of one unit, until the sum is near or stays."""
    drawn = drawn.copy()
    while not _is_near(values[drawn].sum(), target, within):
        inside = np.flatnonzero(drawn)
        outside = np.flatnonzero(~drawn)
        if len(outside) == 0:
            break
        distance = target - values[drawn].sum()
        # (inside, outside): how far the sum is from the target after each exchange
        after = np.abs(distance - (values[outside] - values[inside][:, None]))
        out, into = np.unravel_index(after.argmin(), after.shape)
        if after[out, into] >= abs(distance):
            break
        drawn[inside[out]] = False
        drawn[outside[into]] = True
    return drawn

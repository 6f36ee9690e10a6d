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


@dataclass(frozen=True)
class UnitIndex:
    """Sizes of a model's units; equality of two indexes means that their arrays may be compared."""

    n_blocks: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_mlp: int       # MLP channels a block
    hidden: int      # width of the residual stream

    @classmethod
    def of(cls, model) -> "UnitIndex":
        """The index of a causal LM of the Llama shape, or of its config: sizes come from the config alone."""
        c = getattr(model, "config", model)
        head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        return cls(c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads, head_dim,
                   c.intermediate_size, c.hidden_size)

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
        per_block = self.n_attn + self.n_mlp
        return pd.DataFrame({
            "block": np.repeat(np.arange(self.n_blocks), per_block),
            "kind": np.tile(np.repeat(KINDS, [self.n_attn, self.n_mlp]), self.n_blocks),
            "channel": np.tile(np.concatenate([np.arange(self.n_attn), np.arange(self.n_mlp)]), self.n_blocks)})

    def modules(self):
        """Yield ``(block, kind, slice)``: where each module's units lie in the flat order."""
        start = 0
        for block in range(self.n_blocks):
            for kind, width in zip(KINDS, (self.n_attn, self.n_mlp)):
                yield block, kind, slice(start, start + width)
                start += width

    def check_mask(self, mask) -> np.ndarray:
        """The mask as a Boolean array of length ``len(index)``; `SsahError` if it is anything else."""
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (len(self),):
            raise SsahError(f"a mask must be Boolean of length {len(self)} (this model's units); "
                            f"got {mask.dtype} of shape {mask.shape}")
        return mask

    def value_rows(self, attn_mask: np.ndarray) -> np.ndarray:
        """Of one block: the v_proj rows all of whose columns are in `attn_mask` (n_attn,); (n_kv_heads * head_dim,)."""
        grouped = attn_mask.reshape(self.n_kv_heads, self.n_heads // self.n_kv_heads, self.head_dim)
        return grouped.all(axis=1).reshape(-1)

    def weights_in(self, mask) -> int:
        """Weights that belong to the masked units alone (a shared v row only if all its columns are in)."""
        mask, total = self.check_mask(mask), 0
        for _, kind, where in self.modules():
            inside = mask[where]
            total += int(inside.sum()) * self.hidden * (1 if kind == "attn" else 3)
            if kind == "attn":
                total += int(self.value_rows(inside).sum()) * self.hidden
        return total

    def parameter_share(self, mask) -> float:
        """`weights_in` over the weights of all units (0 to 1): the share of *parameters* next to that of units."""
        return self.weights_in(mask) / self.weights_in(np.ones(len(self), bool))

    def matched_random(self, mask, seed: int, exclude=None) -> np.ndarray:
        """Mask of as many random units per block x kind as `mask` has, none in `exclude` (default: `mask`)."""
        mask = self.check_mask(mask)
        exclude = mask if exclude is None else self.check_mask(exclude)
        draw, chosen = np.random.default_rng(seed), np.zeros(len(self), bool)
        for block, kind, where in self.modules():
            free = np.flatnonzero(~exclude[where])
            wanted = int(mask[where].sum())
            if wanted > len(free):
                raise SsahError(f"block {block} {kind}: {wanted} random units wanted, {len(free)} are free; "
                                "take a smaller share")
            chosen[where.start + draw.choice(free, wanted, replace=False)] = True
        return chosen

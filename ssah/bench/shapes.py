"""Models of a shape without contents of their own, and a share of their units."""

import numpy as np
from transformers import LlamaConfig

from ..units import UnitIndex


def llama(
    vocabulary: int,
    hidden: int,
    inner: int,
    blocks: int,
    heads: int,
    kv_heads: int,
    *,
    tied: bool = False,
) -> LlamaConfig:
    """The config of a Llama of this shape."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=tied,
        pad_token_id=0,
    )


def random_units(index: UnitIndex, share: float) -> np.ndarray:
    """Boolean (len(index),), the same ones every time."""
    order = np.random.default_rng(0).permutation(len(index))
    return order < round(share * len(index))

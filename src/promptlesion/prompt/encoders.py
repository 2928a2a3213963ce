"""Prompt encoders: one protocol, three ways to tell the U-Net which lesion to paint."""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from promptlesion.prompt.mask_transformer import MaskTransformer

_EMBEDDING_DIMENSION = 64


@runtime_checkable
class PromptEncoder(Protocol):
    """Turns the asked-for type and the drawn mask into a prompt embedding."""

    embedding_dimension: int

    def __call__(
        self, lesion_type: Int[Tensor, " batch"], lesion_mask: Float[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, "batch embedding 1 1 1"]:
        """Return one embedding per sample."""
        ...


def masks_by_type(
    lesion_type: Int[Tensor, " batch"], lesion_mask: Float[Tensor, "batch 1 x y z"], *, num_types: int
) -> Float[Tensor, "batch type x y z"]:
    """Put every mask into the channel of its type."""
    channel = F.one_hot(lesion_type, num_types).to(lesion_mask.dtype)
    return channel[:, :, None, None, None] * lesion_mask


class OneHotPrompt(nn.Module):
    """The vector o of the paper: 1 at the lesion type, 0 elsewhere. No parameters; the mask is ignored."""

    def __init__(self, *, num_types: int) -> None:
        """Set the number of lesion types."""
        super().__init__()
        self.embedding_dimension = num_types

    def forward(
        self, lesion_type: Int[Tensor, " batch"], lesion_mask: Float[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, "batch embedding 1 1 1"]:
        """Return the one-hot vectors."""
        return F.one_hot(lesion_type, self.embedding_dimension).to(lesion_mask.dtype)[:, :, None, None, None]


class EmbeddingPrompt(nn.Module):
    """A learned vector of 64 figures for every lesion type; the mask is ignored."""

    def __init__(self, *, num_types: int) -> None:
        """Draw the vectors from a standard normal."""
        super().__init__()
        self.embedding_dimension = _EMBEDDING_DIMENSION
        self.vectors = nn.Embedding(num_types, _EMBEDDING_DIMENSION)

    def forward(
        self, lesion_type: Int[Tensor, " batch"], lesion_mask: Float[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, "batch embedding 1 1 1"]:
        """Return the types' vectors."""
        embedding: Tensor = self.vectors(lesion_type)
        return embedding[:, :, None, None, None]


class MaskTransformerPrompt(nn.Module):
    """Puts the drawn mask into its type's channel and reads it with the MaskTransformer."""

    def __init__(self, *, num_types: int, mask_voxels: int, key_value_heads: int) -> None:
        """Build the transformer for masks of `mask_voxels` per edge, cut into 3 x 3 x 3 patches."""
        super().__init__()
        self.num_types = num_types
        self.transformer = MaskTransformer(
            num_types=num_types, mask_voxels=mask_voxels, key_value_heads=key_value_heads
        )
        self.embedding_dimension = self.transformer.dimension

    def forward(
        self, lesion_type: Int[Tensor, " batch"], lesion_mask: Float[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, "batch embedding 1 1 1"]:
        """Return e of the paper."""
        embedding: Tensor = self.transformer(masks_by_type(lesion_type, lesion_mask, num_types=self.num_types))
        return embedding


def build_prompt_encoder(
    name: str, *, num_types: int, mask_voxels: int, key_value_heads: int
) -> OneHotPrompt | EmbeddingPrompt | MaskTransformerPrompt | None:
    """Build the encoder called `one-hot`, `embedding` or `mask-transformer`; `none` is no encoder."""
    if name == "none":
        return None
    if name == "one-hot":
        return OneHotPrompt(num_types=num_types)
    if name == "embedding":
        return EmbeddingPrompt(num_types=num_types)
    if name == "mask-transformer":
        return MaskTransformerPrompt(num_types=num_types, mask_voxels=mask_voxels, key_value_heads=key_value_heads)
    raise ValueError(f"prompt_encoder: expected 'one-hot', 'embedding', 'mask-transformer' or 'none'; found {name!r}")


def drop_prompts(
    embedding: Float[Tensor, "batch embedding 1 1 1"], is_dropped: Tensor
) -> Float[Tensor, "batch embedding 1 1 1"]:
    """Replace the chosen samples' prompts by zeros, the embedding of "no prompt" (Ho and Salimans 2022)."""
    return torch.where(is_dropped.view(-1, 1, 1, 1, 1), torch.zeros_like(embedding), embedding)

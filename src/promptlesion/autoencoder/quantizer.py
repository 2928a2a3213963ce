"""Vector quantizer whose codebook is an exponential moving average of the tokens it stands for.

van den Oord et al. 2017, appendix A.1; initialisation from data and restart of dead codes after
Williams et al. 2020. Several processes keep one codebook, that of all their tokens together.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from promptlesion.training.launch import all_reduced_sum, num_processes, process_rank

_CHUNK_DISTANCES_CPU = 2**18
"""How many distances are held at once: on a CPU as many as stay in a core's cache."""
_CHUNK_DISTANCES_ELSEWHERE = 2**24
_BLOCK = 128
_PARTS_WORTH_THREADS = 32
_KMEANS_ROUNDS = 4


@dataclass(frozen=True)
class Quantized:
    """What the quantizer makes of a latent."""

    latent: Float[Tensor, "batch channel x y z"]
    """The nearest codes, with the gradient of the input (straight-through)."""
    codes: Int[Tensor, "batch x y z"]
    """Index of the code at every place."""
    commitment: Float[Tensor, ""]
    """Mean squared distance of the latent to its codes; the encoder is pulled by it."""


class VectorQuantizer(nn.Module):
    """Replaces every latent voxel by its nearest code, in float32 whatever the precision around it."""

    codebook: Tensor
    usage: Tensor
    token_sum: Tensor
    is_initialized: Tensor

    def __init__(
        self, *, codebook_size: int, dimension: int, decay: float = 0.99, dead_code_usage: float = 0.1
    ) -> None:
        """Build a codebook; it is filled from the first batch it sees in training mode."""
        super().__init__()
        self.decay = decay
        self.dead_code_usage = dead_code_usage
        self.register_buffer("codebook", torch.zeros(codebook_size, dimension))
        self.register_buffer("usage", torch.zeros(codebook_size))
        self.register_buffer("token_sum", torch.zeros(codebook_size, dimension))
        self.register_buffer("is_initialized", torch.zeros((), dtype=torch.bool))

    def forward(
        self, latent: Float[Tensor, "batch channel x y z"], generator: torch.Generator | None = None
    ) -> Quantized:
        """Quantize; in training mode also move the codebook.

        `generator` (CPU) chooses the tokens that become new codes.
        """
        with torch.autocast(latent.device.type, enabled=False):
            values = latent.float()
            tokens = values.detach().movedim(1, -1).flatten(0, -2)
            if self.training and not self.is_initialized:
                self._initialize(tokens, _required(generator))
            codes = nearest_code(tokens, self.codebook)
            nearest = self.codebook[codes].view(*values.movedim(1, -1).shape).movedim(-1, 1)
            commitment = F.mse_loss(values, nearest)
            if self.training:
                self._move(tokens, codes, _required(generator))
            straight_through = values + (nearest - values).detach()
        return Quantized(straight_through, codes.view(latent.shape[0], *latent.shape[2:]), commitment)

    @torch.no_grad()
    def _initialize(self, tokens: Float[Tensor, "token channel"], generator: torch.Generator) -> None:
        """Start from drawn tokens and a few rounds of k-means."""
        self.codebook.copy_(_draw(tokens, len(self.codebook), generator))
        for _ in range(_KMEANS_ROUNDS):
            count, total = _assign(tokens, nearest_code(tokens, self.codebook), len(self.codebook))
            is_used = count > 0
            self.codebook[is_used] = total[is_used] / count[is_used, None]
        count, total = _assign(tokens, nearest_code(tokens, self.codebook), len(self.codebook))
        self.usage.copy_(count)
        self.token_sum.copy_(total)
        self.is_initialized.fill_(value=True)

    @torch.no_grad()
    def _move(
        self, tokens: Float[Tensor, "token channel"], codes: Int[Tensor, " token"], generator: torch.Generator
    ) -> None:
        """Move every code towards the mean of its tokens, and restart the codes hardly any token uses."""
        count, total = _assign(tokens, codes, len(self.codebook))
        self.usage.lerp_(count, 1 - self.decay)
        self.token_sum.lerp_(total, 1 - self.decay)
        threshold = self.dead_code_usage * len(tokens) * num_processes() / len(self.codebook)
        is_dead = self.usage < threshold
        num_dead = int(is_dead.sum())
        if num_dead > 0:
            new = _draw(tokens, num_dead, generator)
            # little usage: the code soon follows the tokens it wins, and soon dies again where it wins none
            self.usage[is_dead] = 2 * threshold
            self.token_sum[is_dead] = new * 2 * threshold
        self.codebook.copy_(self.token_sum / self.usage[:, None])


def unquantized(latent: Float[Tensor, "batch channel x y z"]) -> Quantized:
    """Return a latent as it is, for the time before there is a codebook."""
    codes = torch.zeros(latent.shape[0], *latent.shape[2:], dtype=torch.int64, device=latent.device)
    return Quantized(latent.float(), codes, latent.new_zeros((), dtype=torch.float32))


@torch.no_grad()
def nearest_code(
    tokens: Float[Tensor, "token channel"], codebook: Float[Tensor, "code channel"]
) -> Int[Tensor, " token"]:
    """Return the index of the nearest code of every token, the first of equally near ones.

    |t - c|^2 = |t|^2 - 2 t.c + |c|^2, and |t|^2 does not matter for the order. A chunk of tokens at a time, so that no
    distance leaves the cache; first the nearest block of codes, then the code in it, as a minimum is vectorised on a
    CPU and its place is not.
    """
    # whole blocks: copies of the last code lose to the last code itself
    codebook = torch.cat([codebook, codebook[-1:].expand(-len(codebook) % _BLOCK, -1)])
    # |c|^2 / 2 goes through the product as one more channel, instead of being written under it first
    factors = torch.cat([-codebook, 0.5 * codebook.square().sum(dim=1, keepdim=True)], dim=1).t()
    # a tensor without numbers, of which only operations are counted, has no cache to stay in and nothing to share
    uses_cache = tokens.device.type == "cpu" and type(tokens) is Tensor
    chunk = max(1, (_CHUNK_DISTANCES_CPU if uses_cache else _CHUNK_DISTANCES_ELSEWHERE) // len(codebook))
    codes = torch.empty(len(tokens), dtype=torch.int64, device=tokens.device)
    parts = list(zip(torch.split(tokens.detach(), chunk), torch.split(codes, chunk), strict=True))

    def find(own: Sequence[tuple[Tensor, Tensor]]) -> None:
        product = factors.new_empty(min(chunk, len(tokens)), len(codebook))
        row = torch.arange(len(product), device=tokens.device)
        for part, found in own:
            distances = torch.mm(F.pad(part, (0, 1), value=1.0), factors, out=product[: len(part)])
            blocks = distances.view(len(part), -1, _BLOCK)
            nearest_block = blocks.amin(dim=2).argmin(dim=1)
            within = blocks[row[: len(part)], nearest_block].argmin(dim=1)
            torch.add(within, nearest_block, alpha=_BLOCK, out=found)

    num_threads = torch.get_num_threads() if uses_cache else 1
    if num_threads == 1 or len(parts) < _PARTS_WORTH_THREADS:
        find(parts)
    else:
        # every thread its own chunks: they are too small to wait for each other in each operation
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(find, [parts[first::num_threads] for first in range(num_threads)]))
        torch.set_num_threads(num_threads)  # of threads that start later; this one's is as it was
    return codes


def perplexity(codes: Int[Tensor, "*shape"], codebook_size: int) -> float:
    """Return exp of the entropy of the code usage: the number of codes used as if equally often."""
    count = all_reduced_sum(torch.bincount(codes.flatten(), minlength=codebook_size)).double()
    return float(torch.special.entr(count / count.sum()).sum().exp())


def _assign(
    tokens: Float[Tensor, "token channel"], codes: Int[Tensor, " token"], codebook_size: int
) -> tuple[Float[Tensor, " code"], Float[Tensor, "code channel"]]:
    """Return how many tokens of all processes each code has, and their sum."""
    count = torch.bincount(codes, minlength=codebook_size).to(tokens.dtype)
    total = tokens.new_zeros(codebook_size, tokens.shape[1]).index_add_(0, codes, tokens)
    return all_reduced_sum(count), all_reduced_sum(total)


def _draw(
    tokens: Float[Tensor, "token channel"], number: int, generator: torch.Generator
) -> Float[Tensor, "number channel"]:
    """Draw from the tokens of all processes, without repeating any while there are enough.

    Where some repeat, all are moved a little so that they differ.
    """
    num_tokens = len(tokens) * num_processes()
    rounds = -(-number // num_tokens)
    chosen = torch.cat([torch.randperm(num_tokens, generator=generator) for _ in range(rounds)])[:number]
    own = chosen - process_rank() * len(tokens)
    is_own = (own >= 0) & (own < len(tokens))
    drawn = tokens.new_zeros(number, tokens.shape[1])
    drawn[is_own.to(tokens.device)] = tokens[own[is_own].to(tokens.device)]
    drawn = all_reduced_sum(drawn)
    if rounds > 1:
        jitter = torch.randn(drawn.shape, generator=generator).to(drawn.device)
        drawn = drawn + 1e-2 * _standard_deviation(tokens) * jitter
    return drawn


def _standard_deviation(tokens: Float[Tensor, "token channel"]) -> Float[Tensor, " channel"]:
    num_tokens = len(tokens) * num_processes()
    mean = all_reduced_sum(tokens.sum(dim=0)) / num_tokens
    return (all_reduced_sum((tokens - mean).square().sum(dim=0)) / (num_tokens - 1)).sqrt()


def _required(generator: torch.Generator | None) -> torch.Generator:
    if generator is None:
        raise ValueError("generator: expected a CPU generator when quantizing in training mode; found none")
    return generator

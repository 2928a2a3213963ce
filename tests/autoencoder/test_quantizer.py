"""The quantizer against brute force, an independent implementation, and its own closed forms."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.networks.layers.vector_quantizer import EMAQuantizer
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from promptlesion.autoencoder import quantizer as quantizer_module
from promptlesion.autoencoder.quantizer import VectorQuantizer, nearest_code, perplexity, unquantized


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(codebook: Tensor, **options: float) -> VectorQuantizer:
    """A quantizer whose codebook, usage and sums are those of one token a code."""
    quantizer = VectorQuantizer(codebook_size=len(codebook), dimension=codebook.shape[1], **options)
    quantizer.codebook.copy_(codebook)
    quantizer.token_sum.copy_(codebook)
    quantizer.usage.fill_(1.0)
    quantizer.is_initialized.fill_(value=True)
    return quantizer


def test_codes_are_the_nearest_by_brute_force() -> None:
    tokens, codebook = drawn(500, 6), drawn(37, 6, seed=1)
    distances = ((tokens.numpy()[:, None] - codebook.numpy()[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(nearest_code(tokens, codebook).numpy(), distances.argmin(axis=1))


def test_agrees_with_vector_quantize_pytorch() -> None:
    codebook, latent = drawn(41, 4, seed=1), drawn(2, 4, 5, 3, 6)
    reference = VectorQuantize(dim=4, codebook_size=41, channel_last=False).eval()
    reference._codebook.embed.copy_(codebook[None])
    expected, codes, _ = reference(latent.flatten(2))
    quantized = filled(codebook).eval()(latent)
    assert torch.equal(quantized.codes, codes.view(2, 5, 3, 6))
    torch.testing.assert_close(quantized.latent, expected.view(latent.shape))


def test_a_step_agrees_with_vector_quantize_pytorch() -> None:
    """Same codebook, same tokens: same codes, same moved codebook, in step after step."""
    codebook, decay = drawn(41, 4, seed=1), 0.9
    reference = VectorQuantize(
        dim=4, codebook_size=41, channel_last=False, decay=decay, eps=0.0, threshold_ema_dead_code=0
    ).train()
    reference._codebook.embed.copy_(codebook[None])
    reference._codebook.embed_avg.copy_(codebook[None])
    reference._codebook.cluster_size.fill_(1.0)
    quantizer = filled(codebook, decay=decay, dead_code_usage=1e-9)
    for step in range(3):
        latent = drawn(2, 4, 5, 3, 6, seed=2 + step)
        _, codes, _ = reference(latent.flatten(2))
        quantized = quantizer(latent, torch.Generator())
        assert torch.equal(quantized.codes, codes.view(2, 5, 3, 6))
        torch.testing.assert_close(quantizer.codebook, reference._codebook.embed[0])
        torch.testing.assert_close(quantizer.usage, reference._codebook.cluster_size[0])


def test_chunking_does_not_change_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, codebook = drawn(501, 6), drawn(37, 6, seed=1)
    whole = nearest_code(tokens, codebook)
    for num_distances in (37 * 16, 1):
        monkeypatch.setattr(quantizer_module, "_CHUNK_DISTANCES_CPU", num_distances)
        assert torch.equal(nearest_code(tokens, codebook), whole)


def plain_nearest_code(tokens: Tensor, codebook: Tensor) -> Tensor:
    """All distances at once."""
    return torch.addmm(0.5 * codebook.square().sum(dim=1), tokens, codebook.t(), alpha=-1.0).argmin(dim=1)


@pytest.mark.parametrize(("num_tokens", "num_codes", "dimension"), [(3000, 2048, 8), (777, 300, 5), (50, 3, 4)])
def test_the_blocks_find_what_one_argmin_finds(num_tokens: int, num_codes: int, dimension: int) -> None:
    """Whatever the last block lacks; where rounding decides, within 1e-5 of the smallest distance."""
    tokens, codebook = drawn(num_tokens, dimension), drawn(num_codes, dimension, seed=1)
    found, expected = nearest_code(tokens, codebook), plain_nearest_code(tokens, codebook)
    differs = found != expected
    assert differs.float().mean() < 1e-3
    found_distance, expected_distance = ((tokens - codebook[codes]).square().sum(dim=1) for codes in (found, expected))
    torch.testing.assert_close(found_distance, expected_distance, rtol=0, atol=1e-5)


def test_of_equal_codes_the_first_is_taken_in_every_block() -> None:
    """Copies in the same block, in another, and as the last code, which fills the last block up."""
    codebook = torch.cat([drawn(200, 4, seed=1), drawn(200, 4, seed=1), drawn(3, 4, seed=2)])
    codebook[5] = codebook[7] = codebook[205] = codebook[-1]
    found = nearest_code(codebook, codebook)
    assert found.max() < 403
    assert torch.equal(found, plain_nearest_code(codebook, codebook))
    assert found[7] == found[-1] == 5


def test_the_number_of_threads_changes_no_code_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizer_module, "_CHUNK_DISTANCES_CPU", 384 * 16)
    tokens, codebook, before = drawn(1111, 5), drawn(300, 5, seed=1), torch.get_num_threads()
    found = []
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            found.append(nearest_code(tokens.clone().requires_grad_(), codebook))
            assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], plain_nearest_code(tokens, codebook))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_agrees_with_monai() -> None:
    codebook, latent = drawn(300, 4, seed=1), drawn(2, 4, 5, 3, 6)
    reference = EMAQuantizer(spatial_dims=3, num_embeddings=300, embedding_dim=4).eval()
    reference.embedding.weight.data.copy_(codebook)
    assert torch.equal(filled(codebook).eval()(latent).codes, reference.quantize(latent)[-1].view(2, 5, 3, 6))


def test_the_latent_is_made_of_codes_and_its_gradient_passes_straight_through() -> None:
    codebook = drawn(16, 3, seed=1)
    latent = drawn(2, 3, 4, 3, 5).requires_grad_()
    quantized = filled(codebook).eval()(latent)
    torch.testing.assert_close(quantized.latent, codebook[quantized.codes].movedim(-1, 1))
    weight = drawn(2, 3, 4, 3, 5, seed=2)
    (gradient,) = torch.autograd.grad((quantized.latent * weight).sum(), latent)
    assert torch.equal(gradient, weight)


def test_the_commitment_pulls_the_latent_towards_its_code() -> None:
    codebook = drawn(16, 3, seed=1)
    latent = drawn(2, 3, 4, 3, 5).requires_grad_()
    quantized = filled(codebook).eval()(latent)
    nearest = codebook[quantized.codes].movedim(-1, 1)
    torch.testing.assert_close(quantized.commitment, F.mse_loss(latent, nearest))
    (gradient,) = torch.autograd.grad(quantized.commitment, latent)
    torch.testing.assert_close(gradient, 2 * (latent.detach() - nearest) / latent.numel())


def test_evaluation_changes_nothing_and_needs_no_generator() -> None:
    quantizer = filled(drawn(16, 3, seed=1)).eval()
    before = {name: buffer.clone() for name, buffer in quantizer.named_buffers()}
    quantizer(drawn(2, 3, 4, 3, 5))
    assert all(torch.equal(before[name], buffer) for name, buffer in quantizer.named_buffers())


def test_training_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="generator: expected a CPU generator"):
        filled(drawn(16, 3))(drawn(1, 3, 2, 3, 4))


def test_a_step_moves_every_code_by_the_closed_form() -> None:
    """N <- d N + (1 - d) n, m <- d m + (1 - d) sum of tokens, code = m / N (van den Oord, eq. 6 to 8)."""
    codebook, latent, decay = drawn(8, 3, seed=1), drawn(2, 3, 4, 3, 5), 0.9
    quantizer = filled(codebook, decay=decay, dead_code_usage=1e-6)
    quantized = quantizer(latent, torch.Generator())
    tokens, codes = latent.movedim(1, -1).reshape(-1, 3), quantized.codes.flatten()
    one_hot = F.one_hot(codes, 8).float()
    usage = decay * 1.0 + (1 - decay) * one_hot.sum(dim=0)
    total = decay * codebook + (1 - decay) * one_hot.T @ tokens
    torch.testing.assert_close(quantizer.usage, usage)
    torch.testing.assert_close(quantizer.codebook, total / usage[:, None])
    # what comes out was quantized with the codebook as it was before the step
    torch.testing.assert_close(quantized.latent, codebook[quantized.codes].movedim(-1, 1))


def test_dead_codes_are_restarted_at_tokens() -> None:
    codebook = drawn(8, 3, seed=1)
    codebook[5:] = 1000.0  # so far away that no token uses them
    quantizer = filled(codebook)
    quantizer.usage[5:] = 1e-3
    latent = drawn(2, 3, 4, 3, 5)
    quantizer(latent, torch.Generator().manual_seed(0))
    tokens = latent.movedim(1, -1).reshape(-1, 3)
    distance = (quantizer.codebook[5:, None] - tokens).abs().amax(dim=2).min(dim=1).values
    assert distance.max() < 1e-5
    assert quantizer.codebook[:5].abs().max() < 5


def test_clustered_data_keep_nearly_all_codes_alive() -> None:
    """The case in which MONAI's EMAQuantizer ends with 3 of 256 codes in use; here as good as the oracle."""
    torch.manual_seed(0)
    reference = VectorQuantize(
        dim=8, codebook_size=256, channel_last=False, decay=0.99, kmeans_init=True, threshold_ema_dead_code=2
    )
    centers = 3 * drawn(256, 8)
    quantizer = VectorQuantizer(codebook_size=256, dimension=8)
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        chosen = torch.randint(256, (2, 8, 12, 16), generator=generator)
        noise = 0.05 * torch.randn((*chosen.shape, 8), generator=generator)
        latent = (centers[chosen] + noise).movedim(-1, 1)
        quantized = quantizer(latent, generator)
        oracle, oracle_codes, _ = reference(latent.flatten(2))
    assert len(quantized.codes.unique()) >= 0.9 * 256
    assert perplexity(quantized.codes, 256) > 0.9 * perplexity(oracle_codes, 256)
    assert quantized.commitment < 1.3 * F.mse_loss(oracle, latent.flatten(2))


def test_the_first_batch_fills_the_codebook() -> None:
    latent = 5 + drawn(1, 3, 6, 5, 7)
    quantizer = VectorQuantizer(codebook_size=32, dimension=3)
    quantized = quantizer(latent, torch.Generator().manual_seed(0))
    assert bool(quantizer.is_initialized)
    assert quantized.commitment < 0.5 * latent.var()
    assert len(quantized.codes.unique()) > 24


def test_more_codes_than_tokens_all_differ() -> None:
    quantizer = VectorQuantizer(codebook_size=64, dimension=3)
    quantizer(drawn(1, 3, 2, 3, 4), torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(quantizer.codebook).all())
    assert len(quantizer.codebook.unique(dim=0)) == 64


def test_the_same_generator_gives_the_same_codebook() -> None:
    def trained(seed: int) -> Tensor:
        quantizer = VectorQuantizer(codebook_size=64, dimension=3)
        for step in range(3):
            quantizer(drawn(1, 3, 6, 5, 7, seed=step), torch.Generator().manual_seed(seed))
        return quantizer.codebook

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


@pytest.mark.parametrize("is_training", [False, True])
def test_it_computes_in_float32_whatever_is_around_it(is_training: bool) -> None:
    """Far from zero bfloat16 cannot tell the codes apart: most tokens would get another."""
    codebook, latent = 30 + drawn(64, 3, seed=1), 30 + drawn(2, 3, 4, 3, 5)
    plain_quantizer, cast_quantizer = (filled(codebook).train(is_training) for _ in range(2))
    plain = plain_quantizer(latent, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = cast_quantizer(latent, torch.Generator().manual_seed(0))
        tokens = latent.movedim(1, -1).reshape(-1, 3)
        rounded = (tokens @ codebook.T - 0.5 * codebook.square().sum(dim=1)).argmax(dim=1)
    assert (rounded.view(plain.codes.shape) != plain.codes).float().mean() > 0.5
    assert torch.equal(plain.codes, cast.codes)
    assert torch.equal(plain.commitment, cast.commitment)
    assert cast.latent.dtype is torch.float32
    assert torch.equal(plain_quantizer.codebook, cast_quantizer.codebook)


def test_a_bfloat16_latent_is_taken_as_it_is() -> None:
    """What an encoder under autocast gives."""
    quantizer, latent = filled(drawn(16, 3, seed=1)).eval(), drawn(2, 3, 4, 3, 5).bfloat16()
    quantized = quantizer(latent)
    assert torch.equal(quantized.codes, quantizer(latent.float()).codes)
    assert quantized.latent.dtype is torch.float32


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells a process its peak memory there")
def test_the_papers_batch_needs_little_memory() -> None:
    """All distances of 4 x 24^3 tokens to 16384 codes would take 3.6 GB; a training step adds at most 40 MB."""
    result = subprocess.run([sys.executable, "-c", _MEMORY], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert 0 < float(result.stdout) <= 40


_MEMORY = """
import re, torch
from pathlib import Path
from promptlesion.autoencoder.quantizer import VectorQuantizer

def peak_mb():  # not getrusage: its maximum is that of the process this one was started from
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
quantizer = VectorQuantizer(codebook_size=16384, dimension=8)
quantizer.codebook.normal_(generator=generator)
quantizer.token_sum.copy_(quantizer.codebook)
quantizer.usage.fill_(1.0)
quantizer.is_initialized.fill_(value=True)
quantizer(torch.randn(1, 8, 2, 2, 2, requires_grad=True), generator).latent.sum().backward()  # loads what it needs
latent = torch.randn(4, 8, 24, 24, 24, requires_grad=True)
before = peak_mb()
quantized = quantizer(latent, generator)
(quantized.latent.sum() + quantized.commitment).backward()
print(peak_mb() - before)
"""


def test_before_there_is_a_codebook_the_latent_passes_unchanged() -> None:
    latent = drawn(2, 3, 4, 3, 5).requires_grad_()
    passed = unquantized(latent)
    assert torch.equal(passed.latent, latent)
    assert passed.codes.shape == (2, 4, 3, 5)
    assert passed.commitment == 0
    (gradient,) = torch.autograd.grad(passed.latent.sum() + passed.commitment, latent)
    assert torch.equal(gradient, torch.ones_like(latent))


def test_perplexity_counts_evenly_used_codes() -> None:
    assert perplexity(torch.arange(7).repeat(3), 20) == pytest.approx(7)
    assert perplexity(torch.zeros(3, 4, dtype=torch.long), 20) == pytest.approx(1)

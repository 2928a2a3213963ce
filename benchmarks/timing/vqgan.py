"""Stage 1: encoding, decoding and a training step; the quantizer beside MONAI's and vector-quantize-pytorch's."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from monai.networks.layers.vector_quantizer import EMAQuantizer
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from promptlesion.autoencoder.autoencoder import build_autoencoder
from promptlesion.autoencoder.perceptual import PerceptualLoss, build_perceptual_loss
from promptlesion.autoencoder.quantizer import VectorQuantizer
from promptlesion.cost.passes import Bench, autoencoder_step
from promptlesion.training.device import place
from promptlesion.training.optimisation import Precision
from timing.clock import Work, free_bytes
from timing.suite import SHARE_OF_OTHER_PRECISION, Suite, ratio

PART, QUANTIZER = "vqgan", "quantizer"
BATCHES = (1, 4)
_LEAST_SPEED_UP, _MOST_MEMORY = 3.0, 0.1
_BYTES_A_DISTANCE = 16
"""MONAI's: the distances, and which code is nearest as one row a token, in 64 and in 32 bits."""
_MAIN_MEMORY_SHARE = 0.7
MONAI, LUCIDRAINS = "MONAI EMAQuantizer", "vector-quantize-pytorch"


def measure_vqgan(suite: Suite) -> None:
    """Time encoding, decoding and training steps of the autoencoder."""
    for precision in suite.precisions:
        _passes(suite, precision)
    perceptual = build_perceptual_loss(suite.config.autoencoder, suite.device)
    for precision in suite.precisions:
        _training_steps(suite, precision, perceptual)


def _passes(suite: Suite, precision: Precision) -> None:
    config = suite.config.autoencoder
    torch.manual_seed(0)
    networks = {"ours": place(build_autoencoder(config), suite.device), "plain": build_autoencoder(config)}
    for network in networks.values():
        network.to(suite.device).requires_grad_(requires_grad=False).eval()
        network.quantizer.codebook.normal_()
    edge, latent = suite.config.diffusion.patch_voxels, suite.config.diffusion.patch_voxels // config.downsampling
    share = 1.0 if precision == suite.chosen(config.precision) else SHARE_OF_OTHER_PRECISION
    one = 0.0
    for batch in BATCHES:
        if suite.is_too_long(f"{PART}: batch {batch}, {precision}", batch * one, share=share):
            continue
        inputs = {
            "encode": torch.rand(batch, 1, edge, edge, edge, device=suite.device),
            "decode": torch.randn(batch, config.latent_channels, latent, latent, latent, device=suite.device),
        }
        for name, given in inputs.items():
            forms = {"ours": partial(_pass, suite, precision, getattr(networks["ours"], name), given)}
            if precision == "float32":
                forms["plain"] = partial(_pass, suite, precision, getattr(networks["plain"], name), given)
            what = f"{name}, batch {batch}"
            rows = suite.compare(PART, what, forms, precision=precision, width=config.widths[0])
            one = max(one, rows[0].timing.seconds / batch)


def _training_steps(suite: Suite, precision: Precision, perceptual: PerceptualLoss | None) -> None:
    config = suite.config.autoencoder
    chosen = config.model_copy(update={"precision": precision, "batch_size": suite.few(config.batch_size, 1)})
    for is_adversarial in (False, True):
        if not is_adversarial and precision != suite.chosen(config.precision):
            continue  # the longer step is enough to show the other precision
        step = autoencoder_step(
            chosen,
            perceptual,
            patch_voxels=config.patch_voxels,
            is_adversarial=is_adversarial,
            bench=Bench(suite.device, is_counted=False),
        )
        told = "with discriminators" if is_adversarial else "without"
        what = f"training step, batch {chosen.batch_size}, {told}"
        suite.compare(PART, what, {"ours": step}, precision=precision, width=config.widths[0])


@torch.no_grad()
def _pass(suite: Suite, precision: str, run: Callable[[Tensor], object], given: Tensor) -> None:
    with suite.autocast(precision):
        run(given)


def measure_quantizer(suite: Suite) -> None:
    """Time the three quantizers on the same tokens and codes, training and not, and compare their codes."""
    config = suite.config.autoencoder
    edge = suite.config.diffusion.patch_voxels // config.downsampling
    patches = suite.few(config.batch_size, 1)
    while patches > 1 and _needed(patches * edge**3, config.codebook_size) > free_bytes(suite.device):
        patches //= 2
    if patches < config.batch_size:
        suite.notes.append(
            f"{QUANTIZER}: {patches} patches instead of {config.batch_size}: MONAI's would not fit into free memory"
        )
    latent = torch.randn(patches, config.latent_channels, edge, edge, edge, device=suite.device)
    tokens = patches * edge**3
    for is_training in (False, True):
        forms = quantizers(latent, config.codebook_size, is_training=is_training)
        name = f"{'training' if is_training else 'evaluation'}, {tokens} tokens, {config.codebook_size} codes"
        flops = 2.0 * tokens * config.codebook_size * (config.latent_channels + 1)
        rows = suite.compare(QUANTIZER, name, forms, precision="float32", flops=flops)
        own_mib = rows[0].timing.extra_mib
        for row in rows[1:]:
            suite.show(3, f"quantizer, {name}: times faster than {row.form}", ratio(rows, row.form), _LEAST_SPEED_UP)
            if own_mib is not None and row.timing.extra_mib:
                share = own_mib / row.timing.extra_mib
                text = f"quantizer, {name}: share of {row.form}'s extra memory"
                suite.show(3, text, share, _MOST_MEMORY, is_least=False)
    for form, share in equal_codes(latent, config.codebook_size).items():
        suite.show(3, f"quantizer: share of codes that are those of {form}", share, 1.0)


def _needed(tokens: int, codes: int) -> float:
    return tokens * codes * _BYTES_A_DISTANCE / _MAIN_MEMORY_SHARE


def _codebook(codes: int, latent: Tensor) -> Tensor:
    return torch.randn(codes, latent.shape[1], generator=torch.Generator().manual_seed(1)).to(latent.device)


def quantizers(latent: Tensor, codes: int, *, is_training: bool) -> Mapping[str, Work]:
    """Return the three, each filled with the same codebook, to be called on a latent."""
    codebook, channels = _codebook(codes, latent), latent.shape[1]
    ours = VectorQuantizer(codebook_size=codes, dimension=channels).to(latent.device).train(is_training)
    ours.codebook.copy_(codebook)
    ours.token_sum.copy_(codebook)
    ours.usage.fill_(1.0)
    ours.is_initialized.fill_(value=True)
    monai = EMAQuantizer(spatial_dims=3, num_embeddings=codes, embedding_dim=channels).to(latent.device)
    monai.train(is_training).embedding.weight.data.copy_(codebook)
    other = VectorQuantize(dim=channels, codebook_size=codes, decay=0.99).to(latent.device).train(is_training)
    other._codebook.embed.data.copy_(codebook[None])
    other._codebook.initted.fill_(True)
    generator = torch.Generator().manual_seed(0)
    tokens = latent.movedim(1, -1).flatten(1, -2)
    return {
        "ours": lambda: ours(latent, generator),
        MONAI: lambda: monai(latent),
        LUCIDRAINS: lambda: other(tokens),
    }


@torch.no_grad()
def equal_codes(latent: Tensor, codes: int) -> dict[str, float]:
    """Return for either reference the share of tokens to which our quantizer gives the same code, or one as near.

    In float32 the distances of two codes may be equal to the last digit, and which comes first is then chance.
    """
    found = quantizers(latent, codes, is_training=False)
    own = found["ours"]().codes.flatten()  # type: ignore[attr-defined]
    codebook, tokens = _codebook(codes, latent).double(), latent.movedim(1, -1).flatten(0, -2).double()
    shares = {}
    for form, place_of_codes in ((MONAI, 2), (LUCIDRAINS, 1)):
        theirs = found[form]()[place_of_codes].flatten()  # type: ignore[index]
        distances = [(tokens - codebook[chosen]).norm(dim=1) for chosen in (own, theirs)]
        is_equal = (own == theirs) | torch.isclose(*distances, rtol=1e-5)
        shares[form] = float(is_equal.double().mean())
    return shares

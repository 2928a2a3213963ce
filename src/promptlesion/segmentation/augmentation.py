"""How stage 3 varies its patches."""

from functools import partial

from promptlesion.data.augmentation import (
    Augmentation,
    add_noise,
    bend_gamma,
    blur,
    shift_brightness,
    stretch_contrast,
)
from promptlesion.segmentation.config import SegmentationConfig

_WINDOW = 2.0
"""Width of the HU window in normalised intensity."""


def build_augmentation(config: SegmentationConfig) -> Augmentation:
    """Collect what a configuration asks for, in nnU-Net's order."""
    return Augmentation(
        mirror_probability=config.mirror_probability,
        rotation_probability=config.rotation_probability,
        max_rotation_degrees=config.max_rotation_degrees,
        scaling_probability=config.scaling_probability,
        scaling_range=config.scaling_range,
        intensity_changes=(
            (config.noise_probability, partial(add_noise, max_std=_WINDOW * config.max_noise_std)),
            (config.blur_probability, partial(blur, sigma_voxels=config.blur_sigma_voxels)),
            (config.brightness_probability, partial(shift_brightness, max_shift=_WINDOW * config.max_brightness_shift)),
            (config.contrast_probability, partial(stretch_contrast, factor_range=config.contrast_range)),
            (config.gamma_probability, partial(bend_gamma, gamma_range=config.gamma_range)),
        ),
    )

"""PromptLesion: lesions of an asked-for type, painted into healthy CT scans.

The data flow, one folder of the package a step:

    data            CT files -> volumes in millimetres and HU -> cached training patches
    autoencoder     stage 1: CT patch <-> latent a quarter of its size (VQGAN)
    prompt          lesion type, drawn mask -> prompt embedding
    diffusion       stage 2: noise + surroundings + mask + prompt -> lesion latent
    masks           size and shape drawn -> mask grown in its host, at a place that has room
    synthesis       mask -> latent sampled -> lesion blended into the full scan, in HU
    baselines       DiffTumor and Med-DDPM, the paper's rivals, copy-paste and hand-made lesions, all as synthesis is
    segmentation    stage 3: real and synthetic scans, 1 : 1 -> label maps
    evaluation      is it right? Dice, lesion FID and KID, HU, copies, report
    experiment      does it help? all methods, seeds and ratios on held-out subjects: the paper's tables

`promptlesion demo` runs all of it; `promptlesion.demo.run_demo` is that command as a function.
"""

from importlib.metadata import version

__version__ = version("promptlesion")
__all__ = ["__version__"]

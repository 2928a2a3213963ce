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

`promptlesion demo` runs all of it. From Python:

    import promptlesion as pl
    model = pl.load_model("runs/demo/diffusion")
    scan, labels = pl.read_scan("imagesTr/case_0000.nii.gz"), pl.read_labels("labelsTr/case.nii.gz")
    painted = pl.paint(model, scan, labels, {"calcified_plaque": 2}, seed=0)
    painted.save("out/")

What is public stands in `__all__`, and is imported when it is first asked for: importing the package takes no torch.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptlesion.config import resolve_config
    from promptlesion.experiment.cells import Question
    from promptlesion.front.cohort import submit_synthesis, synthesize
    from promptlesion.front.experiments import demo, do_cell, experiment, plan_experiment, submit_experiment
    from promptlesion.front.images import read_labels, read_scan
    from promptlesion.front.model import Model, load_model
    from promptlesion.front.painted import Lesion, Painted
    from promptlesion.front.painting import paint
    from promptlesion.front.preparation import prepare, prepare_phantom
    from promptlesion.front.reconstruction import evaluate_reconstruction
    from promptlesion.front.training import train
    from promptlesion.front.verbs import check_dataset, evaluate, evaluate_fidelity, open_dataset, segment

__version__ = version("promptlesion")
__all__ = [
    "Lesion",
    "Model",
    "Painted",
    "Question",
    "__version__",
    "check_dataset",
    "demo",
    "do_cell",
    "evaluate",
    "evaluate_fidelity",
    "evaluate_reconstruction",
    "experiment",
    "load_model",
    "open_dataset",
    "paint",
    "plan_experiment",
    "prepare",
    "prepare_phantom",
    "read_labels",
    "read_scan",
    "resolve_config",
    "segment",
    "submit_experiment",
    "submit_synthesis",
    "synthesize",
    "train",
]

_HOMES = {
    "config": ("resolve_config",),
    "experiment.cells": ("Question",),
    "front.cohort": ("submit_synthesis", "synthesize"),
    "front.experiments": ("demo", "do_cell", "experiment", "plan_experiment", "submit_experiment"),
    "front.images": ("read_labels", "read_scan"),
    "front.model": ("Model", "load_model"),
    "front.painted": ("Lesion", "Painted"),
    "front.painting": ("paint",),
    "front.preparation": ("prepare", "prepare_phantom"),
    "front.reconstruction": ("evaluate_reconstruction",),
    "front.training": ("train",),
    "front.verbs": ("check_dataset", "evaluate", "evaluate_fidelity", "open_dataset", "segment"),
}


def __getattr__(name: str) -> object:
    """Import what is asked for from where it lives (PEP 562)."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"promptlesion.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


class _FrontDoor(ModuleType):
    """Importing the folder `experiment` would put it in the place of the function of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _FrontDoor

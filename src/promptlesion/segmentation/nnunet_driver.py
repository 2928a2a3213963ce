"""nnU-Net's side of the hand-over: a script for the Python of nnU-Net's environment, which need not have promptlesion.

`nnunet_process.py` starts it. Its one argument is a JSON object; nnU-Net's own words go to standard error, its answers,
a JSON object a line, to standard output. It ends when its standard input does, so that it never outlives who asked.
"""

import json
import os
import random
import signal
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainer_module  # noqa: N813
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

CONFIGURATION = "3d_fullres"
_COUNTS = ("tp_hard", "fp_hard", "fn_hard")


class SeededLoader(nnUNetDataLoader):  # type: ignore[misc]
    """nnU-Net's loader, each batch drawn from (seed, part, number of the batch), whichever worker draws it."""

    num_drawn = 0

    def generate_train_batch(self) -> Any:
        """Draw the next of this worker's batches: every n-th, with n workers."""
        number = self._data.first_batch + self.num_drawn * self.number_of_threads_in_multithreaded + self.thread_id
        self.num_drawn += 1
        (seed,) = np.random.SeedSequence([self._data.seed, self._data.part, number]).generate_state(1).tolist()
        np.random.seed(seed)  # noqa: NPY002  nnU-Net draws from the global generators
        torch.manual_seed(seed)
        random.seed(seed)
        return super().generate_train_batch()


class OrderedAugmenter(MultiThreadedAugmenter):  # type: ignore[misc]
    """Workers whose batches come in the order of their numbers; nnU-Net's own take whatever comes first."""

    def __init__(
        self,
        data_loader: SeededLoader,
        transform: None,
        num_processes: int,
        num_cached: int,
        seeds: None,
        pin_memory: bool,
        wait_time: float,
    ) -> None:
        """Take nnU-Net's arguments."""
        data_loader.number_of_threads_in_multithreaded = num_processes
        cached = max(1, num_cached // num_processes)
        super().__init__(data_loader, transform, num_processes, cached, seeds, pin_memory, wait_time=wait_time)


class _StoodStill(Exception):  # noqa: N818
    """No better Dice for as many epochs as patience lasts."""


class PromptLesionTrainer(trainer_module.nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's training with our length and seed; the lesion types' Dice stops it and selects the best weights."""

    request: dict[str, Any]
    answers: TextIO
    history: list[dict[str, float]]

    def configure(self, request: dict[str, Any], answers: TextIO) -> None:
        """Take over what was asked for; not in the constructor, whose arguments nnU-Net stores by name."""
        self.request, self.answers = request, answers
        self.num_epochs = request["num_epochs"]
        if request["steps_per_epoch"]:
            self.num_iterations_per_epoch = request["steps_per_epoch"]
            self.num_val_iterations_per_epoch = max(1, request["steps_per_epoch"] // 5)  # nnU-Net's 50 to 250
        self.save_every = sys.maxsize  # on_epoch_end saves, after the best Dice is known
        self.history = []

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one; what was measured later than that is forgotten."""
        for name in ("checkpoint_final.pth", "checkpoint_latest.pth"):
            path, metrics = Path(self.output_folder, name), Path(self.request["metrics"])
            if path.is_file():
                self.load_checkpoint(str(path))
                self.history = [json.loads(line) for line in metrics.read_text().splitlines()[: self.current_epoch]]
                return

    def has_stood_still(self) -> bool:
        """Return whether the best Dice above 0 is as many epochs old as patience lasts."""
        best = [line["best_patch_dice"] for line in self.history if line["best_patch_dice"] > 0]
        return bool(best) and best.count(best[-1]) > self.request["patience_epochs"]

    def run_training(self) -> None:
        """Train to the end, or to where the Dice stands still."""
        try:
            super().run_training()
        except _StoodStill:
            self.on_train_end()

    def get_tr_and_val_datasets(self) -> Any:
        """Tell both parts which batch comes next, so that a resumed run draws what an unbroken one would."""
        datasets = super().get_tr_and_val_datasets()
        lengths = (self.num_iterations_per_epoch, self.num_val_iterations_per_epoch)
        for part, (dataset, length) in enumerate(zip(datasets, lengths, strict=True)):
            dataset.seed, dataset.part, dataset.first_batch = self.request["seed"], part, self.current_epoch * length
        return datasets

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Note the loss."""
        self.history.append({"loss": float(np.mean([output["loss"] for output in train_outputs]))})
        super().on_train_epoch_end(train_outputs)

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Measure the lesion types alone, unless no patch has a voxel of one."""
        lesions: dict[str, int] = self.request["lesion_classes"]
        rows = [value - 1 for value in lesions.values()]
        tp, fp, fn = (np.sum([output[name] for output in val_outputs], axis=0)[rows] for name in _COUNTS)
        if (tp + fp + fn).any():
            val_outputs = [{**output, **{name: output[name][rows] for name in _COUNTS}} for output in val_outputs]
        dice = {
            name: float(2 * hit / (2 * hit + extra + missed))
            for name, hit, extra, missed in zip(lesions, tp, fp, fn, strict=True)
            if hit + extra + missed
        }
        if dice:
            self.history[-1]["validation_patch_dice"] = float(np.mean(list(dice.values())))
        self.history[-1] |= {f"validation_patch_dice_{name}": value for name, value in dice.items()}
        super().on_validation_epoch_end(val_outputs)

    def on_epoch_end(self) -> None:
        """Log the epoch and save it, in this order: a resumed run finds a line for every epoch it need not repeat."""
        super().on_epoch_end()
        line = {"step": self.current_epoch * self.num_iterations_per_epoch, **self.history[-1]}
        self.history[-1] = {**line, "best_patch_dice": float(np.nan_to_num(self._best_ema))}
        metrics = Path(self.request["metrics"])
        partial = metrics.with_name(f".partial.{metrics.name}")
        partial.write_text("".join(json.dumps(line) + "\n" for line in self.history))
        partial.replace(metrics)
        self.current_epoch -= 1  # save_checkpoint counts the epoch as done
        self.save_checkpoint(str(Path(self.output_folder, "checkpoint_latest.pth")))
        self.current_epoch += 1
        print(json.dumps({"epoch": self.current_epoch, **self.history[-1]}), file=self.answers, flush=True)
        if self.has_stood_still():
            raise _StoodStill

    def save_checkpoint(self, filename: str) -> None:
        """Write the file whole or not at all."""
        super().save_checkpoint(f"{filename}.partial")
        Path(f"{filename}.partial").replace(filename)


def prepare(request: dict[str, Any]) -> None:
    """Let nnU-Net plan and preprocess."""
    processes = str(request["num_workers"])
    memory = ["-gpu_memory_target", str(request["memory_gb"])] if request["memory_gb"] else []
    sys.argv = [sys.argv[0], "-d", "1", "-c", CONFIGURATION, "-np", processes, "-npfp", processes, *memory]
    plan_and_preprocess_entry()


def train(request: dict[str, Any], answers: TextIO) -> None:
    """Train or go on, then write the best weights and what is needed to use them."""
    for name, ours in (("nnUNetDataLoader", SeededLoader), ("NonDetMultiThreadedAugmenter", OrderedAugmenter)):
        getattr(trainer_module, name)  # an nnU-Net that draws its batches otherwise is refused, not left unseeded
        setattr(trainer_module, name, ours)
    folder = Path(request["preprocessed"])
    plans, description = (json.loads((folder / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    device = torch.device(request["device"])
    torch.backends.cudnn.benchmark = device.type == "cuda"
    trainer = PromptLesionTrainer(plans, CONFIGURATION, 0, description, device=device)
    trainer.configure(request, answers)
    torch.manual_seed(request["seed"])
    trainer.initialize()
    trainer.resume()
    if trainer.current_epoch < trainer.num_epochs and not trainer.has_stood_still():
        trainer.run_training()
    trainer.load_checkpoint(str(Path(trainer.output_folder, "checkpoint_best.pth")))
    axes = trainer.inference_allowed_mirroring_axes
    compiled = getattr(trainer.network, "_orig_mod", None)
    torch.save(_weights(trainer.network if compiled is None else compiled), request["weights"])
    model = {"plans": plans, "dataset_json": description, "mirror_axes": axes and [int(axis) for axis in axes]}
    print(json.dumps({"model": model | {"nnunetv2": version("nnunetv2")}}), file=answers, flush=True)


def predict(request: dict[str, Any], answers: TextIO) -> None:
    """Answer each line of standard input, an image and where its classes go as an RAS+ array, until it ends."""
    model, device = request["model"], torch.device(request["device"])
    plans = PlansManager(model["plans"])
    configuration, description = plans.get_configuration(CONFIGURATION), model["dataset_json"]
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        determine_num_input_channels(plans, configuration, description),
        plans.get_label_manager(description).num_segmentation_heads,
        deep_supervision=False,
    )
    weights = torch.load(request["weights"], map_location="cpu", weights_only=True)
    if set(weights) != set(_weights(network)):
        raise ValueError("expected the weights of the network that the plans describe; found others")
    network.load_state_dict(weights, strict=False)  # the names left out share memory with those that are there
    predictor = nnUNetPredictor(
        use_mirroring=request["is_mirrored"], perform_everything_on_device=device.type == "cuda", device=device
    )
    predictor.manual_initialization(
        network.to(device), plans, configuration, [network.state_dict()], description, "nnUNetTrainer",
        model["mirror_axes"] and tuple(model["mirror_axes"]),
    )  # fmt: skip
    reader = plans.image_reader_writer_class()
    for line in sys.stdin:
        asked = json.loads(line)
        image, properties = reader.read_images([asked["image"]])
        classes = predictor.predict_single_npy_array(image, properties, None, None, False)
        np.save(asked["out"], classes.transpose(2, 1, 0).astype(np.int16), allow_pickle=False)
        print(json.dumps({"out": asked["out"]}), file=answers, flush=True)


def _weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of a network, each tensor once: nnU-Net's decoder names its encoder's weights again."""
    unique: dict[int, str] = {}
    state = network.state_dict()
    for name, tensor in state.items():
        unique.setdefault(tensor.data_ptr() or id(tensor), name)
    return {name: state[name].detach().cpu() for name in unique.values()}


def _end_with_standard_input() -> None:
    """End this process and all that it started, once nobody is there to hear."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Do what the argument asks for."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.loads(Path(sys.argv[1]).read_text())
    if request["task"] == "predict":
        predict(request, answers)
        return
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    if request["task"] == "prepare":
        prepare(request)
    else:
        train(request, answers)


if __name__ == "__main__":
    main()

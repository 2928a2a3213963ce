"""The package imports where a system is unlike Linux."""

import subprocess
import sys

ON_ANOTHER_SYSTEM = """
import importlib, os, pkgutil, sys
import torch, torch._dynamo, torch.utils.tensorboard, matplotlib.figure, monai.networks, monai.losses
import filelock, psutil, skimage.filters, scipy.ndimage, multiprocessing.context, concurrent.futures.process

for name in ("fcntl", "resource", "pwd", "grp", "multiprocessing.forkserver", "multiprocessing.popen_forkserver"):
    sys.modules[name] = None
for name in ("sysconf", "sched_getaffinity", "fork", "register_at_fork", "getloadavg"):
    delattr(os, name)
import promptlesion
for module in pkgutil.walk_packages(promptlesion.__path__, "promptlesion."):
    if not module.name.endswith(("__main__", "nnunet_driver")):  # that runs in nnU-Net's environment
        importlib.import_module(module.name)
from promptlesion.synthesis.batch_size import default_num_workers
from promptlesion.training.memory import main_memory_bytes, resident_bytes
assert main_memory_bytes() > resident_bytes() > 0
print(default_num_workers(torch.device("cpu"), 100, scan_voxels=1000))
"""


def test_every_module_imports_without_what_windows_lacks() -> None:
    """What Windows lacks is taken away, once the libraries that ask for it by the system's name are there."""
    command = [sys.executable, "-W", "ignore", "-c", ON_ANOTHER_SYSTEM]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) >= 1

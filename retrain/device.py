"""Which device trains, and with how many threads.

Owns the choice between GPU and CPU. It must not change a device's settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from schemas.errors import ConfigurationError

# A network of this size gains nothing beyond two threads, and loses much when others use the cores
# (two threads on a busy two-core machine: 52 s instead of 8).
_NUM_THREADS = 1


def choose_device(accelerator: str) -> torch.device:
    """Return the device for `accelerator`: auto (a GPU where there is one), cuda or cpu.

    Raises ConfigurationError for another word, and for cuda where there is none.
    """
    if accelerator not in ("auto", "cuda", "cpu"):
        raise ConfigurationError(
            f"there is no accelerator {accelerator!r}",
            key="retrain.resources.accelerator",
            remedy="choose auto, cuda or cpu",
        )
    available = torch.cuda.is_available()
    if accelerator == "cuda" and not available:
        raise ConfigurationError(
            "this machine has no GPU that PyTorch can use",
            key="retrain.resources.accelerator",
            remedy="set it to auto or cpu, or run the train role where there is a GPU",
        )
    return torch.device("cuda" if available and accelerator != "cpu" else "cpu")


def pin_threads(num_threads: int | None = None) -> int:
    """Fix the number of CPU threads, so that results repeat and a busy machine does not thrash; returns it."""
    num_threads = num_threads or _NUM_THREADS
    torch.set_num_threads(num_threads)
    return num_threads


def hold_gpu_memory(device: torch.device, memory_bytes: int | None) -> None:
    """Let this process allocate no more of a GPU's memory than that; beyond it PyTorch says that memory is short."""
    if device.type == "cuda" and memory_bytes is not None:
        share = min(1.0, memory_bytes / torch.cuda.get_device_properties(device).total_memory)
        torch.cuda.set_per_process_memory_fraction(share, device)


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Compute in bfloat16 on a GPU; on a CPU it would only cost precision."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def repeatable(deterministic: bool) -> Iterator[None]:
    """Let PyTorch take only algorithms that give the same bits again, or fail and say so, if `deterministic`."""
    if not deterministic:
        yield
        return
    # cuBLAS reads it when it starts; without it, its results depend on how streams meet.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise ConfigurationError(
            str(error).split("\n")[0],
            key="retrain.training.deterministic",
            remedy="choose another network, or leave `deterministic` out",
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark

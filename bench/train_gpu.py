"""How far from the GPU's limit is a training step, of the tabular network on 10 million rows and of the CNN?

The limit is counted, not looked up: the larger of two times, that of the step's multiplications at the rate of a large
bfloat16 matrix product measured on this device, and that of its bytes at the rate of a large copy. State: never run on
a GPU yet; without one the rows say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.results import Result, not_run
from bench.surroundings import Options
from bench.tabular import make_tabular
from retrain.images import ImageInput
from retrain.network import NetworkConfig, configure_network
from retrain.preprocessing import EncodedRows, Preprocessing
from retrain.target import Target
from retrain.tensors import Inputs, TrainingRows
from retrain.training import TrainingRun, configure_training

TABULAR = "training step, tabular network, 10,000,000 rows x 50 features, GPU"
CNN = "training step, CNN, 60,000 images of 28 x 28, GPU"
NUM_EPOCHS = 3


def run(options: Options) -> list[Result]:
    if not torch.cuda.is_available():
        return [not_run(TABULAR, "there is no GPU"), not_run(CNN, "there is no GPU")]
    device = torch.device("cuda")
    flops_per_s, bytes_per_s = measure_products(device), measure_copies(device)
    table = make_tabular(1_000_000 if options.short else 10_000_000)
    name = TABULAR.replace("10,000,000", f"{len(table.truth):,}")
    results = [*measure(name, table.config, table.target, table.encoded, table.truth, flops_per_s, bytes_per_s)]
    encoded, truth, config, target = make_images(60_000)
    return results + measure(CNN, config, target, encoded, truth, flops_per_s, bytes_per_s)


def measure(
    name: str, config: NetworkConfig, target: Target, encoded: EncodedRows, truth: np.ndarray, flops_per_s: float,
    bytes_per_s: float,
) -> list[Result]:  # fmt: skip
    device = torch.device("cuda")
    rows = TrainingRows.load(encoded, truth, device)
    training = configure_training(len(truth), 0, config)
    trained = TrainingRun(config, target, rows, training, NUM_EPOCHS, {})
    trained.run_epoch()  # compiles, and fills the allocator
    epoch_s = min(time_on_device(trained.run_epoch) for _ in range(NUM_EPOCHS - 1))
    step_s = epoch_s / -(-len(truth) // training.batch_rows)
    limit_s = count_limit_s(config, target, rows, training.batch_rows, flops_per_s, bytes_per_s)
    peer = f"the device's limit for a step: {limit_s * 1e6:.1f} µs"
    return [
        Result(f"{name}, batches of {training.batch_rows:,}", step_s * 1e6, "µs", peer, step_s / limit_s),
        Result(f"{name}: an epoch", len(truth) / epoch_s, "rows/s"),
    ]


def count_limit_s(
    config: NetworkConfig, target: Target, rows: TrainingRows, batch_rows: int, flops_per_s: float, bytes_per_s: float
) -> float:
    """Count what a step cannot do without: its products, its rows read twice (gathered, then used), its weights."""
    network = config.build().to(rows.device)
    inputs, truth = next(rows.batch(torch.arange(batch_rows), batch_rows))
    with FlopCounterMode(display=False) as counter:
        outputs = network(inputs.dense, inputs.codes, inputs.extra)
        target.compute_loss(outputs, truth).backward()
    # AdamW reads weight, gradient and two moments, and writes three of them, four bytes each.
    weights_bytes = 7 * 4 * sum(each.numel() for each in network.parameters())
    return max(
        counter.get_total_flops() / flops_per_s,
        (2 * inputs.num_bytes + weights_bytes + count_activation_bytes(config, inputs)) / bytes_per_s,
    )


def count_activation_bytes(config: NetworkConfig, inputs: Inputs) -> int:
    """Count the outputs of all layers in bfloat16: written forward, read and answered by a gradient backward."""
    counted = []
    network = config.build().to(inputs.dense.device)
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _module, _inputs, output: counted.append(output.numel()))
    network(inputs.dense, inputs.codes, inputs.extra)
    return 3 * 2 * sum(counted)


def measure_products(device: torch.device) -> float:
    """Multiplications and additions per second of a large bfloat16 matrix product."""
    side = 8_192
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return float(2 * side**3 / min(time_on_device(lambda: left @ right) for _ in range(10)))


def measure_copies(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy of a gigabyte."""
    source = torch.empty(2**28, device=device)
    copy = torch.empty_like(source)
    return float(2 * 2**30 / min(time_on_device(lambda: copy.copy_(source)) for _ in range(10)))


def time_on_device(call: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started_s = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - started_s


def make_images(num_rows: int) -> tuple[EncodedRows, np.ndarray, NetworkConfig, Target]:
    """Make encoded images of noise with ten classes; the speed of a step does not depend on what they show."""
    rng = np.random.default_rng(1)
    image = ImageInput("scan", 1, 28, 28, (127.5,), (74.0,), indicator=False)
    target = Target("multiclass", classes=tuple("0123456789"))
    config = configure_network("cnn", Preprocessing((), (), extra=(image,)), target)
    encoded = EncodedRows(
        np.zeros((num_rows, 0), np.float32),
        np.zeros((num_rows, 0), np.int64),
        {"scan": rng.integers(0, 256, (num_rows, 1, 28, 28), dtype=np.uint8)},
    )
    return encoded, rng.integers(0, 10, num_rows), config, target

"""Whether a network is compiled before it trains, which costs a minute and saves a part of every step.

Owns the decision. Everything here is for GPUs: on a CPU, eager steps are as fast as compiled ones for
networks of this size. State: never run on a GPU yet; the figures are to be measured there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Forward = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
Compilation = Literal["none", "kernels", "graphs"]

# A small network's step is some sixty launches of about ten microseconds; replayed as one graph, half a millisecond
# is saved, and compiling has cost its minute back after 120,000 steps. Half of that: jobs come again.
_GRAPH_STEPS_MIN = 60_000
# A convolution's step computes for longer than it launches: fused kernels save less of it, and later.
_KERNEL_STEPS_MIN = 120_000


def choose_compilation(device: torch.device, num_steps: int, *, is_heavy: bool, deterministic: bool) -> Compilation:
    """Decide from the job's size; a deterministic job is never compiled, since kernels are chosen by timing them."""
    if device.type != "cuda" or deterministic:
        return "none"
    if is_heavy:
        return "kernels" if num_steps >= _KERNEL_STEPS_MIN else "none"
    return "graphs" if num_steps >= _GRAPH_STEPS_MIN else "none"


def compile_network(network: nn.Module, compilation: Compilation) -> Forward:
    """Return the network's forward as it is to be called in training; the network itself stays as it is."""
    if compilation == "none":
        return network
    mode = "reduce-overhead" if compilation == "graphs" else "default"
    # Where the compiler fails (no C compiler, an operation that it does not know), the step runs eagerly.
    torch._dynamo.config.suppress_errors = True
    log.info("the network is compiled (%s)", compilation)
    compiled: Forward = torch.compile(network, mode=mode, dynamic=False)
    return compiled

"""How much faster is a training epoch of the tabular network than a plain PyTorch loop over a DataLoader?

Networks of equal shape, one batch size, one optimizer and schedule, one thread, the same rows in memory; epochs of all
alternate, and the best of each counts. The plain loop is as the tutorials write it: an embedding a category and linear
layers, a TensorDataset, a shuffling DataLoader, AdamW, OneCycleLR. A second peer takes its batches by index, without a
DataLoader.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bench.results import Limit, Result, compare
from bench.surroundings import Options
from bench.tabular import TabularRows, make_tabular
from retrain.device import pin_threads
from retrain.network import NetworkConfig, choose_embedding_width
from retrain.tensors import TrainingRows
from retrain.training import TrainingRun, configure_training

NUM_EPOCHS = 4
NUM_ROWS = 100_000, 500_000  # short, long
CPU = torch.device("cpu")
Batches = Callable[[], Iterator[tuple[Tensor, ...]]]


class PlainNetwork(nn.Module):
    """The tabular network as one would write it for these columns."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        categories = config.schema.categories
        width = choose_embedding_width(max(number for _, number in categories))
        self.embeddings = nn.ModuleList(nn.Embedding(number, width) for _, number in categories)
        layers: list[nn.Module] = []
        inputs = len(config.schema.dense) + width * len(categories)
        for hidden in config.hidden:
            layers += [nn.Linear(inputs, hidden), nn.ReLU()]
            inputs = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, config.schema.num_outputs))

    def forward(self, dense: Tensor, codes: Tensor) -> Tensor:
        embedded = [embedding(codes[:, place]) for place, embedding in enumerate(self.embeddings)]
        return self.layers(torch.cat([dense, *embedded], dim=1))


class PlainLoop:
    """The peer: one network on its way through epochs of batches."""

    def __init__(self, rows: TabularRows, batch_rows: int, learning_rate: float, batches: Batches) -> None:
        torch.manual_seed(0)
        self._batches = batches
        self._network = PlainNetwork(rows.config)
        num_weights = sum(each.numel() for each in rows.config.build().parameters())
        assert sum(each.numel() for each in self._network.parameters()) == num_weights
        self._optimizer = torch.optim.AdamW(self._network.parameters(), lr=learning_rate, weight_decay=1e-3)
        num_steps = NUM_EPOCHS * math.ceil(len(rows.truth) / batch_rows)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, learning_rate, total_steps=num_steps)

    def run_epoch(self) -> float:
        """Learn from every row once; return the mean loss of its batches."""
        self._network.train()
        losses = []
        for dense, codes, truth in self._batches():
            self._optimizer.zero_grad()
            outputs = self._network(dense, codes)[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs, truth)
            loss.backward()
            self._optimizer.step()
            self._schedule.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)


def time_epoch(run_epoch: Callable[[], float]) -> float:
    started_s = time.perf_counter()
    loss = run_epoch()
    if not loss < 0.75:
        raise ValueError(f"nothing is learnt: the loss is {loss:.3f}")
    return time.perf_counter() - started_s


def run(options: Options) -> list[Result]:
    pin_threads()
    num_rows = NUM_ROWS[0 if options.short else 1]
    rows = make_tabular(num_rows)
    config = configure_training(num_rows, 0, rows.config)
    data = TrainingRows.load(rows.encoded, rows.truth, CPU)
    ours = TrainingRun(rows.config, rows.target, data, config, NUM_EPOCHS, {})
    dataset = TensorDataset(data.inputs.dense, data.inputs.codes, data.truth)
    loader: DataLoader[tuple[Tensor, ...]] = DataLoader(dataset, batch_size=config.batch_rows, shuffle=True)

    def batch_by_index() -> Iterator[tuple[Tensor, ...]]:
        for index in torch.randperm(num_rows).split(config.batch_rows):
            yield dataset[index]

    plain = PlainLoop(rows, config.batch_rows, config.learning_rate, lambda: iter(loader))
    indexed = PlainLoop(rows, config.batch_rows, config.learning_rate, batch_by_index)
    loops = (ours.run_epoch, plain.run_epoch, indexed.run_epoch)
    times_s = [[time_epoch(run_epoch) for run_epoch in loops] for _ in range(NUM_EPOCHS)]
    ours_s, plain_s, indexed_s = (min(column) for column in zip(*times_s, strict=True))
    name = f"training epoch, tabular network, 50 features, {num_rows:,} rows, batches of {config.batch_rows:,}"
    return [
        compare(name, num_rows / ours_s, "rows/s", "plain DataLoader loop", num_rows / plain_s,
                Limit("ratio", "at least", 5)),
        compare(name, num_rows / ours_s, "rows/s", "plain loop, batches by index", num_rows / indexed_s,
                Limit("ratio", "at least", 1)),
    ]  # fmt: skip

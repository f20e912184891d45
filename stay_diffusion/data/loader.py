"""Batches of (images, Layout), in an order that depends only on the seed and the position."""

import atexit
import itertools
import signal
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..system.machine import kill_workers
from .layout import Layout
from .samples import LayoutDataset, Sample

Batch = tuple[Tensor, Layout]


def batches(
    dataset: LayoutDataset,
    batch_size: int,
    seed: int,
    start: int,
    rank: int = 0,
    world: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Endless shuffled batches for one of `world` ranks, after `start` samples have been used by all of them together.

    Each step uses the next world * batch_size positions p of one global order; a rank has those with
    p % world == rank, so the ranks together see what one rank with the larger batch would.
    """
    if world * batch_size > len(dataset):
        ranks = f" on {world} ranks takes {world * batch_size} images a step" if world > 1 else ""
        raise ValueError(f"--batch_size {batch_size}{ranks} but the data set has only {len(dataset)}")
    keys = _shuffled(len(dataset), seed, start, rank, world)
    return _load(dataset, _grouped(keys, batch_size), num_workers, pin_memory)


def positions(start: int, count: int, rank: int, world: int) -> range:
    """The next `count` places of a rank in the one order that all ranks share, of which `start` are used."""
    first = start + (rank - start) % world
    return range(first, first + count * world, world)


def in_order(
    dataset: LayoutDataset, batch_size: int, num_workers: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Every record once as in epoch 0, in the records' order; the last batch holds what is left.

    Of several ranks each has every `world`-th.
    """
    keys = ((0, i) for i in range(rank, len(dataset), world))
    return _load(dataset, _grouped(keys, batch_size), num_workers, pin_memory=False)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples to images (B, C, S, S) and their Layout, padded to the most objects."""
    return torch.stack([sample.image for sample in samples]), Layout.collate([sample[1:] for sample in samples])


def _shuffled(num: int, seed: int, start: int, rank: int, world: int) -> Iterator[tuple[int, int]]:
    """The endless (epoch, index) of a rank: position p is item p % num of the permutation of epoch p // num."""
    order_epoch, order = -1, np.arange(0)
    for position in itertools.count(positions(start, 1, rank, world)[0], world):
        epoch, item = divmod(position, num)
        if epoch != order_epoch:
            # `num` keeps this stream apart from those of the samples, (seed, epoch, index < num).
            order_epoch, order = epoch, np.random.default_rng((seed, epoch, num)).permutation(num)
        yield epoch, int(order[item])


def _grouped(keys: Iterator[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    while group := list(itertools.islice(keys, size)):
        yield group


def _load(dataset: LayoutDataset, groups: Iterable, num_workers: int, pin_memory: bool) -> Iterator[Batch]:
    loader = DataLoader(
        dataset,
        batch_sampler=groups,
        num_workers=num_workers,
        pin_memory=pin_memory,
        collate_fn=_collate_or_error,
        worker_init_fn=_ignore_signals,
        # Without its own generator, opening the iterator draws from torch's global one: resuming would differ.
        generator=torch.Generator(),
    )
    if num_workers:  # which ignore the SIGTERM that multiprocessing ends them with: it would wait for ever
        atexit.unregister(kill_workers)
        atexit.register(kill_workers)
    for batch in loader:
        if isinstance(batch, ValueError):
            raise batch
        yield batch


def _collate_or_error(samples: Sequence[Sample | ValueError]) -> Batch | ValueError:
    error = next((sample for sample in samples if isinstance(sample, ValueError)), None)
    return error or collate([sample for sample in samples if isinstance(sample, Sample)])


def _ignore_signals(worker: int) -> None:
    # Ctrl-C and a scheduler's SIGTERM reach workers too; the parent decides what is saved before they end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

"""Records in, batches of (images, Layout) out: in an order that depends only on the seed and the position."""

import atexit
import itertools
import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stay_diffusion.data import transforms
from stay_diffusion.data.annotations import AnnotationError, ImageRecord, Vocabulary
from stay_diffusion.data.images import read_image, to_tensor
from stay_diffusion.data.layout import Layout

Sample = tuple[Tensor, Tensor, Tensor, int]
Batch = tuple[Tensor, Layout]

MAX_OBJECTS_POLICIES = ("error", "largest", "random")


class LayoutDataset(Dataset):
    """Records cut to the model's size; every random choice is drawn from (seed, epoch, index) and nothing else."""

    def __init__(
        self,
        records: Sequence[ImageRecord],
        vocabulary: Vocabulary,
        image_size: int,
        image_channels: int,
        crop_policy: str = "resize",
        background_rate: float = 0.0,
        random_flip: bool = False,
        min_visible: float = 0.0,
        max_objects: int = 0,
        max_objects_policy: str = "error",
        seed: int = 0,
    ):
        if crop_policy not in transforms.CROP_POLICIES:
            known = ", ".join(transforms.CROP_POLICIES)
            raise ValueError(f"--crop_policy {crop_policy}: choose from {known}")
        if max_objects_policy not in MAX_OBJECTS_POLICIES:
            raise ValueError(
                f"--max_objects_policy {max_objects_policy}: choose from {', '.join(MAX_OBJECTS_POLICIES)}"
            )
        if background_rate and crop_policy != "object":
            raise ValueError(
                f"--background_rate {background_rate}: only --crop_policy object has it, not {crop_policy}"
            )
        self.records = records
        self.vocabulary = vocabulary
        self.image_size = image_size
        self.image_channels = image_channels
        self.crop_policy = crop_policy
        self.background_rate = background_rate
        self.random_flip = random_flip
        self.min_visible = min_visible
        self.max_objects = max_objects
        self.max_objects_policy = max_objects_policy
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, index: int, epoch: int) -> Sample:
        """Image (C, S, S) in [-1, 1], boxes (n, 4) float, labels (n,) long and product of record `index` in `epoch`."""
        record, rng = self.records[index], np.random.default_rng((self.seed, epoch, index))
        image = read_image(record.path, self.image_channels)
        if image.size != (record.width, record.height):
            annotated, found = f"{record.width}x{record.height}", f"{image.width}x{image.height}"
            raise AnnotationError(f"{record.path}: annotated as {annotated} pixels but the image has {found}")

        drawn = np.array([(box.x0, box.y0, box.x1, box.y1) for box in record.boxes])
        somewhere = self.background_rate and rng.random() < self.background_rate
        policy = transforms.anywhere if somewhere else transforms.CROP_POLICIES[self.crop_policy]
        cut = transforms.apply(image, drawn, policy, self.image_size, self.min_visible, self.random_flip, rng)
        chosen = self._limit(record, cut.boxes, rng)

        labels = [self.vocabulary.label_of(record, record.boxes[i]) for i in cut.kept[chosen]]
        return (
            to_tensor(cut.image, self.image_channels),
            torch.from_numpy(cut.boxes[chosen]),
            torch.tensor(labels, dtype=torch.long),
            self.vocabulary.product_of(record),
        )

    def __getitem__(self, key: tuple[int, int]) -> Sample | ValueError:
        """The sample of an (epoch, index), or the user's error as a value: a worker's traceback would bury it."""
        epoch, index = key
        try:
            return self.sample(index, epoch)
        except ValueError as error:
            return error

    def _limit(self, record: ImageRecord, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Which boxes stay, in their order."""
        if not self.max_objects or len(boxes) <= self.max_objects:
            return np.arange(len(boxes))
        if self.max_objects_policy == "largest":
            areas = transforms.visible_sides(boxes).prod(axis=1)
            return np.sort(np.argsort(-areas, kind="stable")[: self.max_objects])
        if self.max_objects_policy == "random":
            return np.sort(rng.choice(len(boxes), self.max_objects, replace=False))
        raise AnnotationError(
            f"{record.path}: {len(boxes)} objects, more than --max_objects {self.max_objects}; "
            "raise it, or choose --max_objects_policy largest or random"
        )


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


def in_order(dataset: LayoutDataset, batch_size: int, num_workers: int = 0) -> Iterator[Batch]:
    """Every record once as in epoch 0, in the records' order; the last batch holds what is left."""
    return _load(dataset, _grouped(((0, i) for i in range(len(dataset))), batch_size), num_workers, pin_memory=False)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples to images (B, C, S, S) and their Layout, padded to the most objects."""
    images, boxes, labels, products = zip(*samples, strict=True)
    return torch.stack(images), Layout.collate(list(zip(boxes, labels, products, strict=True)))


def _shuffled(num: int, seed: int, start: int, rank: int, world: int) -> Iterator[tuple[int, int]]:
    """The endless (epoch, index) of a rank: position p is item p % num of the permutation of epoch p // num."""
    order_epoch, order = -1, np.arange(0)
    for position in itertools.count(start + (rank - start) % world, world):
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
    if num_workers:
        atexit.unregister(_end_workers)
        atexit.register(_end_workers)
    for batch in loader:
        if isinstance(batch, ValueError):
            raise batch
        yield batch


def _collate_or_error(samples: Sequence[Sample | ValueError]) -> Batch | ValueError:
    return next((sample for sample in samples if isinstance(sample, ValueError)), None) or collate(samples)


def _end_workers() -> None:
    # At an unforeseen end: workers ignore the SIGTERM that multiprocessing ends them with, and it would wait for ever.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would call their end an error
    for worker in multiprocessing.active_children():
        worker.kill()


def _ignore_signals(worker: int) -> None:
    # Ctrl-C and a scheduler's SIGTERM reach workers too; the parent decides what is saved before they end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

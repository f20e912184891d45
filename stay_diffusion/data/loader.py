"""Records in, batches of (images, Layout) out: in an order that depends only on the seed and the position."""

import atexit
import itertools
import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stay_diffusion.data import transforms
from stay_diffusion.data.annotations import AnnotationError, ImageRecord, Vocabulary
from stay_diffusion.data.formats import semantic_map
from stay_diffusion.data.images import read_image, to_tensor
from stay_diffusion.data.layout import Layout

Batch = tuple[Tensor, Layout]

MAX_OBJECTS_POLICIES = ("error", "largest", "random")


class Sample(NamedTuple):
    """Image (C, S, S) in [-1, 1], boxes (n, 4) float, labels (n,) long, product; (2, S, S) int16 where it has maps."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    product: int
    semantic_map: Tensor | None = None


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
        use_instances: bool = True,
        layout_kind: str = "boxes",
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
        self.use_instances = use_instances
        self.layout_kind = layout_kind
        self.seed = seed
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # boxes and labels of label maps, by index

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, index: int, epoch: int) -> Sample:
        """Record `index` as epoch `epoch` shows it."""
        record, rng = self.records[index], np.random.default_rng((self.seed, epoch, index))
        # Maps belong to the picture as it is stored; boxes are drawn on it upright.
        image = read_image(record.path, self.image_channels, upright=not record.maps)
        maps = semantic_map.read(record.maps) if record.maps else None
        _check_size(record, image.size, maps)
        drawn, drawn_labels = self._drawn(index, maps)
        somewhere = self.background_rate and rng.random() < self.background_rate
        policy = transforms.anywhere if somewhere else transforms.CROP_POLICIES[self.crop_policy]
        cut = transforms.apply(image, drawn, policy, self.image_size, self.min_visible, self.random_flip, rng)
        chosen = self._limit(record, cut.boxes, rng)

        return Sample(
            to_tensor(cut.image, self.image_channels),
            torch.from_numpy(cut.boxes[chosen]),
            torch.tensor(drawn_labels[cut.kept[chosen]], dtype=torch.long),
            self.vocabulary.product_of(record),
            self._cut_maps(maps, cut) if maps else None,
        )

    def __getitem__(self, key: tuple[int, int]) -> Sample | ValueError:
        """The sample of an (epoch, index), or the user's error as a value: a worker's traceback would bury it."""
        epoch, index = key
        try:
            return self.sample(index, epoch)
        except ValueError as error:
            return error

    def _drawn(self, index: int, maps: semantic_map.Maps | None) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 4) in pixels and labels (N,) of all that is drawn on a picture."""
        record = self.records[index]
        if maps:  # finding the parts of a large map takes longer than reading it
            if index not in self._found:
                self._found[index] = semantic_map.objects(maps, record.maps.coding, self.use_instances)
            return self._found[index]
        boxes = np.array([(box.x0, box.y0, box.x1, box.y1) for box in record.boxes])
        return boxes, np.array([self.vocabulary.label_of(record, box) for box in record.boxes], dtype=np.int64)

    def _cut_maps(self, maps: semantic_map.Maps, cut: transforms.Cut) -> Tensor:
        """Labels and instance edges (2, S, S) of what is seen; edges as SDM finds them, in the map cut to size."""
        labels, instances = (
            None if ids is None else transforms.cut_map(ids, cut.window, self.image_size, cut.mirrored) for ids in maps
        )
        edges = np.zeros_like(labels) if instances is None else semantic_map.edges(instances)
        return torch.from_numpy(np.stack([labels, edges]).astype(np.int16))

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
    return torch.stack([sample.image for sample in samples]), Layout.collate([sample[1:] for sample in samples])


def _check_size(record: ImageRecord, size: tuple[int, int], maps: semantic_map.Maps | None) -> None:
    annotated, where = (record.width, record.height), "annotated as"
    if maps:
        annotated, where = maps.labels.shape[::-1], f"its label map {record.maps.labels} has"
    if any(annotated) and size != annotated:
        stated, found = (f"{width}x{height}" for width, height in (annotated, size))
        raise AnnotationError(f"{record.path}: {where} {stated} pixels but the image has {found}")


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

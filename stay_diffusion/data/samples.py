"""One picture as the network is to see it: read, cut, mirrored, its boxes and map with it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..config import DataConfig, ModelConfig
from . import transforms
from .annotations import AnnotationError, ImageRecord, Vocabulary, boxes_array
from .formats import semantic_map
from .images import Picture, image_size, read_picture, to_tensor

MAX_OBJECTS_POLICIES = ("error", "largest", "random")


class Sample(NamedTuple):
    """Image (C, S, S) in [-1, 1], boxes (n, 4) float, labels (n,) long, product; (2, S, S) int16 where it has maps."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    product: int
    semantic_map: Tensor | None = None


class Seen(NamedTuple):
    """What is seen of a picture: boxes (N, 4) in pixels and labels (N,) of all that is drawn on it, and the cut.

    `chosen` are the places, among the cut's boxes, of those that --max_objects leaves.
    """

    boxes: np.ndarray
    labels: np.ndarray
    cut: transforms.Cut
    chosen: np.ndarray
    maps: semantic_map.Maps | None


class LayoutDataset(Dataset):
    """Records cut to the model's size; every random choice is drawn from (seed, epoch, index) and nothing else."""

    def __init__(
        self,
        records: Sequence[ImageRecord],
        vocabulary: Vocabulary,
        data: DataConfig = DataConfig(),
        model: ModelConfig = ModelConfig(),
        seed: int = 0,
    ):
        choices = (
            ("crop_policy", data.crop_policy, transforms.CROP_POLICIES),
            ("max_objects_policy", data.max_objects_policy, MAX_OBJECTS_POLICIES),
        )
        for flag, value, known in choices:
            if value not in known:
                raise ValueError(f"--{flag} {value}: choose from {', '.join(known)}")
        if data.background_rate and data.crop_policy != "object":
            raise ValueError(
                f"--background_rate {data.background_rate}: only --crop_policy object has it, not {data.crop_policy}"
            )
        self.records, self.vocabulary, self.data, self.model, self.seed = records, vocabulary, data, model, seed
        self.image_size, self.image_channels, self.layout_kind = (
            model.image_size,
            model.image_channels,
            model.layout_kind,
        )
        self.value_range = data.black_and_white
        self.crop_policy = transforms.CROP_POLICIES[data.crop_policy]
        self.picture_of: Callable[[ImageRecord], Picture] = self.read
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # boxes and labels of label maps, by index

    def __len__(self) -> int:
        return len(self.records)

    def read(self, record: ImageRecord) -> Picture:
        """A record's picture, no larger than its cuts need it."""
        # Maps belong to the picture as it is stored; boxes are drawn on it upright.
        picture = read_picture(
            record.path,
            self.image_channels,
            upright=not record.maps,
            value_range=self.value_range,
            reduction=partial(transforms.reduction, policy=self.crop_policy, size=self.image_size),
        )
        return transforms.cut_once(picture, self.crop_policy, self.image_size)

    @property
    def picture_settings(self) -> str:
        """All that decides how `read` reads a picture, besides the picture."""
        size = self.image_size if self.crop_policy in transforms.SHOWN else ""
        return f"{self.image_channels} {self.value_range} {self.data.crop_policy} {size}"

    def whole(self, index: int) -> tuple[Picture, np.ndarray, np.ndarray, semantic_map.Maps | None]:
        """A record's picture before it is cut, boxes (N, 4) in its file's pixels and labels (N,) of all drawn on it."""
        record = self.records[index]
        picture = self.picture_of(record)
        maps = semantic_map.read(record.maps) if record.maps else None
        _check_size(record, (picture.width, picture.height), maps)
        return picture, *self._drawn(index, maps), maps

    def see(self, index: int, epoch: int) -> Seen:
        """What epoch `epoch` shows of record `index`."""
        record, rng = self.records[index], self._rng(index, epoch)
        picture, boxes, labels, maps = self.whole(index)
        policy = self._policy(rng)
        cut = transforms.apply(picture, boxes, policy, self.image_size, self.data, rng)
        return Seen(boxes, labels, cut, self._limit(record, cut.boxes, rng), maps)

    def layout(self, index: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 4) and labels (n,) of a sample, without reading its picture."""
        rng = self._rng(index, epoch)
        (width, height), boxes, labels = self.annotation(index)
        policy = self._policy(rng)
        framing = transforms.frame(width, height, boxes, policy, self.image_size, self.data, rng)
        chosen = self._limit(self.records[index], framing.boxes, rng)
        return framing.boxes[chosen], labels[framing.kept[chosen]]

    def annotation(self, index: int) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
        """A picture's width and height, and boxes (N, 4) in pixels and labels (N,) of all that is drawn on it.

        The picture itself is not read; its header is where no annotation has the size, and label maps are.
        """
        record = self.records[index]
        if record.maps:
            maps = semantic_map.read(record.maps)
            return maps.labels.shape[::-1], *self._drawn(index, maps)
        size = (record.width, record.height) if record.width and record.height else image_size(record.path)
        return size, *self._drawn(index, None)

    def sample_of(self, index: int, seen: Seen) -> Sample:
        """What is seen, as the network takes it."""
        _, labels, cut, chosen, maps = seen
        return Sample(
            to_tensor(cut.image, self.image_channels),
            torch.from_numpy(cut.boxes[chosen]),
            torch.tensor(labels[cut.kept[chosen]], dtype=torch.long),
            self.vocabulary.product_of(self.records[index]),
            self._cut_maps(maps, cut) if maps else None,
        )

    def sample(self, index: int, epoch: int) -> Sample:
        """Record `index` as epoch `epoch` shows it."""
        return self.sample_of(index, self.see(index, epoch))

    def __getitem__(self, key: tuple[int, int]) -> Sample | ValueError:
        """The sample of an (epoch, index), or the user's error as a value: a worker's traceback would bury it."""
        epoch, index = key
        try:
            return self.sample(index, epoch)
        except ValueError as error:
            return error

    def _rng(self, index: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, index))

    def _policy(self, rng: np.random.Generator) -> transforms.CropPolicy:
        somewhere = self.data.background_rate and rng.random() < self.data.background_rate
        return transforms.anywhere if somewhere else self.crop_policy

    def _drawn(self, index: int, maps: semantic_map.Maps | None) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 4) in pixels and labels (N,) of all that is drawn on a picture."""
        record = self.records[index]
        if maps and record.maps:  # finding the parts of a large map takes longer than reading it
            if index not in self._found:
                self._found[index] = semantic_map.objects(maps, record.maps.coding, not self.model.no_instance)
            return self._found[index]
        boxes = boxes_array(record.boxes)
        return boxes, np.array([self.vocabulary.label_of(record, box) for box in record.boxes], dtype=np.int64)

    def _cut_maps(self, maps: semantic_map.Maps, cut: transforms.Cut) -> Tensor:
        """Labels and instance edges (2, S, S) of what is seen; edges as SDM finds them, in the map cut to size."""

        def cut_map(ids: NDArray) -> NDArray:
            return transforms.cut_map(ids, cut.window, self.image_size, cut.mirrored)

        labels = cut_map(maps.labels)
        edges = np.zeros_like(labels) if maps.instances is None else semantic_map.edges(cut_map(maps.instances))
        return torch.from_numpy(np.stack([labels, edges]).astype(np.int16))

    def _limit(self, record: ImageRecord, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Which boxes stay, in their order."""
        most = self.data.max_objects
        if not most or len(boxes) <= most:
            return np.arange(len(boxes))
        if self.data.max_objects_policy == "largest":
            areas = transforms.visible_sides(boxes).prod(axis=1)
            return np.sort(np.argsort(-areas, kind="stable")[:most])
        if self.data.max_objects_policy == "random":
            return np.sort(rng.choice(len(boxes), most, replace=False))
        raise AnnotationError(
            f"{record.path}: {len(boxes)} objects, more than --max_objects {most}; "
            "raise it, or choose --max_objects_policy largest or random"
        )


def _check_size(record: ImageRecord, size: tuple[int, int], maps: semantic_map.Maps | None) -> None:
    annotated, where = (record.width, record.height), "annotated as"
    if maps and record.maps:
        annotated, where = maps.labels.shape[::-1], f"its label map {record.maps.labels} has"
    if any(annotated) and size != annotated:
        stated, found = (f"{width}x{height}" for width, height in (annotated, size))
        raise AnnotationError(f"{record.path}: {where} {stated} pixels but the image has {found}")

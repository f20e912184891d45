"""The results folder: samples, real images, drawn labels, annotations, manifest; written so that a run can continue."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..checkpoint import atomic_write, lock
from ..data.annotations import Box, ImageRecord, Vocabulary
from ..data.formats import semantic_map, vott
from ..data.images import to_pil
from .layouts import LayoutItem
from .preview import classes_of, contact_sheet, draw_boxes, draw_layout, draw_map, enlarge, legend

SHEET_IMAGES = 32


class ResultsFolder:
    """samples/STEM.png, images/STEM.png (the real ones), labels/STEM.png, manifest.jsonl.

    labels/ holds the label maps with their data set's own ids, where there are any, else the layouts drawn.

    An image is done once its line is in the manifest; a folder made with other settings is refused.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary, rank: int = 0):
        self.path, self.vocabulary = path, vocabulary
        self.manifest = path / "manifest.jsonl"
        self.own = path / f"manifest.{rank}.jsonl" if rank else self.manifest  # what this process adds to

    def done(self, items: Sequence[LayoutItem], settings: dict) -> set[int]:
        """The indices whose images an earlier run of the same settings and layouts has finished."""
        entries = self.entries()
        for entry in entries.values():
            difference = _first_difference(entry, items, settings)
            if difference:
                raise ValueError(f"{self.path}: holds other samples ({difference}); choose another folder or empty it")
        return {index for index, entry in entries.items() if (self.path / entry["file"]).exists()}

    def entries(self) -> dict[int, dict]:
        """The manifest by image index, also what other processes have added; a torn last line does not count."""
        entries = {}
        for manifest in self._manifests():
            lines = manifest.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines, 1):
                try:
                    entry = json.loads(line)
                    entries[entry["index"]] = entry
                except (ValueError, KeyError, TypeError):
                    if number < len(lines):
                        raise ValueError(f"{manifest}, line {number}: not a line of a manifest") from None
        return entries

    def open(self) -> None:
        try:
            for name in ("samples", "images", "labels"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--results_path {self.path}: cannot be made: {error.strerror}") from None
        lock(self.path)
        # Rewritten without a torn last line, so that appending starts on a fresh one.
        self._write_manifest(self.entries())

    def add(self, index: int, item: LayoutItem, image: Tensor, settings: dict) -> None:
        """One finished image (C, H, W) in [-1, 1]: its pictures first, then its line in the manifest."""
        sample, real = to_pil(image), item.real()
        save_png(sample, self.path / "samples" / f"{item.stem}.png")
        if item.has_map:
            coding = item.dataset.records[item.index].maps.coding
            labels = semantic_map.to_image(real.semantic_map[0].numpy(), coding)
        else:
            labels = draw_layout(item.objects, self.vocabulary.classes, sample.width)
        save_png(labels, self.path / "labels" / f"{item.stem}.png")
        if real is not None:
            save_png(to_pil(real.image), self.path / "images" / f"{item.stem}.png")
        with open(self.own, "a", encoding="utf-8") as manifest:
            manifest.write(json.dumps(entry_of(index, item, settings)) + "\n")

    def finish(self, items: Sequence[LayoutItem], save_npz: bool) -> None:
        """The manifest in order, a VoTT export beside the samples, preview.png and, if asked for, the npz."""
        self._write_manifest(self.entries())
        vott.write(
            self.path / "samples" / "samples-export.json",
            [self._record(item) for item in items],
            [*self.vocabulary.products, *self.vocabulary.classes],
            name="samples",
        )
        save_png(self._sheet(items[:SHEET_IMAGES]), self.path / "preview.png")
        if save_npz:
            images = np.stack([np.asarray(Image.open(self.path / f"samples/{item.stem}.png")) for item in items])
            images = images[..., None] if images.ndim == 3 else images  # N H W C
            name = f"samples_{'x'.join(str(n) for n in images.shape)}.npz"
            atomic_write(self.path / name, lambda file: np.savez(file, arr_0=images))

    def _record(self, item: LayoutItem) -> ImageRecord:
        """The sample with its boxes in pixels, clipped to the picture."""
        path = self.path / "samples" / f"{item.stem}.png"
        W, H = Image.open(path).size
        clipped = (
            Box(b.label, max(b.x0, 0) * W, max(b.y0, 0) * H, min(b.x1, 1) * W, min(b.y1, 1) * H) for b in item.objects
        )
        boxes = tuple(b for b in clipped if b.x1 - b.x0 > 0 and b.y1 - b.y0 > 0)
        return ImageRecord(path, W, H, boxes, item.product)

    def _sheet(self, items: Sequence[LayoutItem]) -> Image.Image:
        rows, captions, seen, classes = [], [], set(), self.vocabulary.classes
        for item in items:
            sample = Image.open(self.path / f"samples/{item.stem}.png")
            side = sample.width * max(1, 192 // sample.width)
            if item.is_map:
                real = item.real()
                labels = real.semantic_map[0].numpy()
                cells = [enlarge(sample, side), draw_map(labels, classes, side), enlarge(to_pil(real.image), side)]
                seen |= classes_of(labels, classes)
            else:
                cells = [enlarge(sample, side), draw_boxes(sample, item.objects, classes, side)]
                real = self.path / f"images/{item.stem}.png"
                if item.dataset and real.exists():
                    cells.append(draw_boxes(Image.open(real), item.objects, classes, side))
                seen |= {box.label for box in item.objects}
            rows.append(cells)
            what = "sample, map, real" if item.is_map else "sample, with boxes, real"
            captions.append(f"{item.stem} {item.product or ''}: {what}"[: 28 * len(cells)])
        return contact_sheet(rows, captions, legend(seen, classes), columns=3)

    def _manifests(self) -> list[Path]:
        return [path for path in (self.manifest, *sorted(self.path.glob("manifest.*.jsonl"))) if path.exists()]

    def _write_manifest(self, entries: dict[int, dict]) -> None:
        parts = [path for path in self._manifests() if path != self.manifest]
        text = "".join(json.dumps(entries[index]) + "\n" for index in sorted(entries))
        atomic_write(self.manifest, lambda file: file.write(text.encode()))
        for part in parts:
            part.unlink()


def entry_of(index: int, item: LayoutItem, settings: dict) -> dict:
    """A manifest line: which image, from which layout, with which settings."""
    objects = [{"label": b.label, "box": [b.x0, b.y0, b.x1, b.y1]} for b in item.objects]
    return {
        "index": index,
        "stem": item.stem,
        "file": f"samples/{item.stem}.png",
        "layout": {"product": item.product, "objects": objects},
        "source": item.source,
        **settings,
    }


def save_png(image: Image.Image, path: Path) -> None:
    atomic_write(path, lambda file: image.save(file, format="png"))


def _first_difference(entry: dict, items: Sequence[LayoutItem], settings: dict) -> str:
    index = entry["index"]
    if index >= len(items):
        return f"image {index}, beyond the {len(items)} asked for"
    expected = json.loads(json.dumps(entry_of(index, items[index], settings)))
    for key, value in expected.items():
        if key not in ("checkpoint", "source") and entry.get(key) != value:
            return f"{key} of image {index} is {entry.get(key)!r}, now {value!r}"[:300]
    return ""

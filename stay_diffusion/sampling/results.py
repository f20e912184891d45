"""The results folder: samples, real images, drawn labels, annotations, manifest; written so that a run can continue."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..data import manifest
from ..data.annotations import Box, ImageRecord, RelativeBox, Vocabulary
from ..data.exports import EXPORTS, LabelledSet, stay
from ..data.formats import semantic_map
from ..data.formats.files import CLASSES, link_image
from ..data.images import to_pil
from ..data.manifest import ManifestEntry, ManifestLayout
from ..data.provenance import text_chunks
from ..layouts.items import LayoutItem
from ..run.checkpoint import atomic_write, lock, write_text
from .preview import cell_side, classes_of, contact_sheet, draw_boxes, draw_layout, draw_map, fit, legend

SHEET_IMAGES = 32
SOMETIMES = ("mask_kind", "guidance_interval")  # settings that are only told where there are such
DIGITS = 4  # of exported coordinates, in pixels: fewer than any format keeps, so that reading and writing lose nothing


class ResultsFolder:
    """samples/STEM.png, images/STEM.png (the real ones), labels/STEM.png, masks/STEM.png, manifest.jsonl.

    What did not pass the quality gate is in rejected/ and in no labelled set.

    labels/ holds the label maps with their data set's own ids, where there are any, else the layouts drawn.

    An image is done once its line is in the manifest; a folder made with other settings is refused.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary, rank: int = 0):
        self.path, self.vocabulary = path, vocabulary
        self.manifest = path / manifest.NAME
        self.own = path / f"manifest.{rank}.jsonl" if rank else self.manifest  # what this process adds to

    def done(self, items: Sequence[LayoutItem], settings: dict) -> set[int]:
        """The indices whose images an earlier run of the same settings and layouts has finished."""
        entries = self.entries()
        for entry in entries.values():
            difference = _first_difference(entry, items, settings)
            if difference:
                raise ValueError(f"{self.path}: holds other samples ({difference}); choose another folder or empty it")
        return {index for index, entry in entries.items() if (self.path / entry.file).exists()}

    def entries(self) -> dict[int, ManifestEntry]:
        """The manifest by image index, also what other processes have added; a torn last line does not count."""
        return manifest.read_run(self.path)

    def open(self) -> None:
        try:
            for name in ("samples", "images", "labels"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--results_path {self.path}: cannot be made: {error.strerror}") from None
        lock(self.path)
        # Rewritten without a torn last line, so that appending starts on a fresh one.
        self._write_manifest(self.entries())

    def add(
        self,
        index: int,
        item: LayoutItem,
        image: Image.Image,
        settings: dict,
        source_image: Image.Image | None = None,
        mask: Image.Image | None = None,
        extra: dict | None = None,
        objects: Sequence[RelativeBox] | None = None,
        rejected: bool = False,
    ) -> None:
        """One finished image of any size, L, RGB or I;16: its pictures first, then its line in the manifest.

        `source_image` is what it was made of, in place of the layout's real picture; `mask` holds the label of each of
        its pixels; `extra` is what else its line says; `objects` are those of the layout that are in the image, if not
        all.
        """
        entry = replace(entry_of(index, item, settings, objects), **(extra or {}))
        if mask:
            entry = replace(entry, mask=f"masks/{item.stem}.png")
        if rejected:
            entry = replace(entry, file=f"rejected/{item.stem}.png", rejected=True)
            (self.path / "rejected").mkdir(exist_ok=True)
        save_png(image, self.path / entry.file, text_chunks(entry.as_json()))
        real = item.real() if item.coding or source_image is None else None
        if item.coding and real is not None and real.semantic_map is not None:
            labels = semantic_map.to_image(real.semantic_map[0].numpy(), item.coding)
        else:
            labels = draw_layout(item.objects if objects is None else objects, self.vocabulary.classes, image.size)
        save_png(labels, self.path / "labels" / f"{item.stem}.png")
        shown = source_image or (real and to_pil(real.image))
        if shown:
            save_png(shown, self.path / "images" / f"{item.stem}.png")
        if mask and entry.mask:
            (self.path / "masks").mkdir(exist_ok=True)
            save_png(mask, self.path / entry.mask)
        with open(self.own, "a", encoding="utf-8") as file:
            file.write(entry.as_line())

    def finish(self, items: Sequence[LayoutItem], save_npz: bool, formats: Sequence[str] = ("vott",)) -> None:
        """The manifest in order, the labels in all `formats`, preview.png and, if asked for, the npz.

        VoTT's are beside the samples; the others have folders of their own, with further names of the samples' files.
        """
        found = self.entries()
        self._write_manifest(found)
        entries = [found[index] for index in range(len(items)) if not found[index].rejected]
        if not entries:
            raise ValueError(f"{self.path}: none of the {len(items)} images passed --reject_below and --reject_copies")
        items = [replace(items[entry.index], objects=entry.layout.objects) for entry in entries]
        data = self._labelled(items, entries)
        for name in formats:
            in_place = name == "vott"
            folder = self.path / ("samples" if in_place else name)
            EXPORTS[name](data, folder, stay if in_place else link_image)
        if any(entry.mask for entry in entries):
            text = "".join(f"{name}\n" for name in self.vocabulary.classes)
            write_text(self.path / "masks" / CLASSES, text)
        save_png(self._sheet(items[:SHEET_IMAGES], entries[:SHEET_IMAGES]), self.path / "preview.png")
        if save_npz:
            samples = [np.asarray(Image.open(self.path / f"samples/{item.stem}.png")) for item in items]
            if len({image.shape for image in samples}) > 1:
                raise ValueError("--save_npz True: the samples are of several sizes; one array cannot hold them")
            images = np.stack(samples)
            images = images[..., None] if images.ndim == 3 else images  # N H W C
            name = f"samples_{'x'.join(str(n) for n in images.shape)}.npz"
            atomic_write(self.path / name, lambda file: np.savez(file, arr_0=images))

    def _labelled(self, items: Sequence[LayoutItem], entries: Sequence[ManifestEntry]) -> LabelledSet:
        """The samples with their boxes in pixels, clipped to the picture, and the masks of those boxes."""
        records, masks = [], []
        for item, entry in zip(items, entries, strict=True):
            path = self.path / "samples" / f"{item.stem}.png"
            W, H = Image.open(path).size
            clipped = [_clipped(box, W, H) for box in item.objects]
            seen = [i for i, box in enumerate(clipped) if box.x0 < box.x1 and box.y0 < box.y1]
            records.append(ImageRecord(path, W, H, tuple(clipped[i] for i in seen), item.product))
            codes = entry.masks
            masks.append(codes and [codes[i] for i in seen])
        complete = any(masks) and all(masks[i] or not record.boxes for i, record in enumerate(records))
        weak = [codes or [] for codes in masks] if complete else None
        return LabelledSet(records, self.vocabulary, "samples", weak_masks=weak)

    def _sheet(self, items: Sequence[LayoutItem], entries: Sequence[ManifestEntry]) -> Image.Image:
        rows, captions, seen, classes = [], [], set(), self.vocabulary.classes
        side = cell_side(Image.open(self.path / f"samples/{item.stem}.png") for item in items)
        for item, entry in zip(items, entries, strict=True):
            sample = Image.open(self.path / f"samples/{item.stem}.png")
            if item.is_map:
                real = item.real()
                assert real is not None and real.semantic_map is not None
                labels = real.semantic_map[0].numpy()
                cells = [fit(sample, side), draw_map(labels, classes, side), fit(to_pil(real.image), side)]
                seen |= classes_of(labels, classes)
            else:
                cells = [fit(sample, side), draw_boxes(sample, item.objects, classes, side)]
                shown = self.path / f"images/{item.stem}.png"
                if shown.exists():
                    cells.append(draw_boxes(Image.open(shown), item.objects, classes, side))
                seen |= {box.label for box in item.objects}
            rows.append(cells)
            origin = "source" if entry.source_image else "real"
            what = f"sample, map, {origin}" if item.is_map else f"sample, with boxes, {origin}"
            captions.append(f"{item.stem} {item.product or ''}: {what}"[: 28 * len(cells)])
        return contact_sheet(rows, captions, legend(seen, classes), columns=3)

    def _write_manifest(self, entries: dict[int, ManifestEntry]) -> None:
        parts = [path for path in manifest.find_parts(self.path) if path != self.manifest]
        text = "".join(entries[index].as_line() for index in sorted(entries))
        write_text(self.manifest, text)
        for part in parts:
            part.unlink()


def entry_of(index: int, item: LayoutItem, settings: dict, drawn: Sequence[RelativeBox] | None = None) -> ManifestEntry:
    """Describe an image of a layout, of which `drawn` are the objects that are in the image, if not all."""
    num_before = len(item.into.boxes) if item.into else 0

    def layout(objects: Sequence[RelativeBox]) -> ManifestLayout:
        return ManifestLayout(item.product, tuple(objects[:num_before]), tuple(objects[num_before:]))

    is_whole = drawn is None or len(drawn) == len(item.objects)
    return ManifestEntry(
        index,
        item.stem,
        f"samples/{item.stem}.png",
        layout(item.objects if drawn is None else drawn),
        item.source,
        str(item.into.path.resolve()) if item.into else None,
        settings,
        None if is_whole else layout(item.objects),
    )


def save_png(image: Image.Image, path: Path, text: PngInfo | None = None) -> None:
    atomic_write(path, lambda file: image.save(file, format="png", pnginfo=text))


def _clipped(box: RelativeBox, width: int, height: int) -> Box:
    """A box in [0, 1] in pixels, what is outside of the picture cut off."""
    x0, x1 = (round(min(max(x, 0), 1) * width, DIGITS) for x in (box.x0, box.x1))
    y0, y1 = (round(min(max(y, 0), 1) * height, DIGITS) for y in (box.y0, box.y1))
    return Box(box.label, x0, y0, x1, y1)


def _first_difference(entry: ManifestEntry, items: Sequence[LayoutItem], settings: dict) -> str:
    if entry.index >= len(items):
        return f"image {entry.index}, beyond the {len(items)} asked for"
    found = replace(entry, layout=entry.asked or entry.layout).as_json()
    expected = json.loads(entry_of(entry.index, items[entry.index], settings).as_line())
    for key in (*expected, *SOMETIMES):
        if key not in ("checkpoint", "source", "file") and found.get(key) != expected.get(key):
            return f"{key} of image {entry.index} is {found.get(key)!r}, now {expected.get(key)!r}"[:300]
    return ""

"""See what the network will see: pictures after crop, flip and scaling, with their boxes or maps, as a page to leaf
through and a contact sheet.

    python scripts/browse_data.py --data_dir DATA --image_size 128 --crop_policy object --epochs 3
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import DataConfig, ModelConfig, RunConfig, TrainConfig, option
from ..config.flags import dump, parse
from ..data.problems import Problem

if TYPE_CHECKING:
    from ..data.annotations import ImageRecord
    from ..data.samples import LayoutDataset, Sample

SHEET_IMAGES = 256  # at most, on the contact sheet


@dataclass(frozen=True)
class BrowseConfig:
    out: str = option("OUTPUT/browse", "folder for index.html, index_files/ and contact_sheet.png")
    split: str = option("train", "pictures to show, cut as training or as validation cuts them", ("train", "val"))
    num_images: int = option(64, "how many, spread evenly over the split", least=1)
    epochs: int = option(1, "draws of each: what training's first epochs make of it", least=1)
    seed: int = option(0, "training's seed, which crops and flips follow, and the choice of pictures", least=0)


@dataclass(frozen=True)
class BrowseRun:
    """Options of the command: where the data are, and for which model."""

    browse: BrowseConfig = BrowseConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()


def main() -> int:
    run, _, switches = parse(BrowseRun, __doc__)
    if switches["print_config"]:
        print(dump(run), end="")
        return 0

    from ..pages.browse.browse import spread
    from ..run import factory
    from ..system import storage

    storage.check_writable_here("out", run.browse.out)
    options, folder = run.browse, Path(run.browse.out).resolve()
    if folder.is_relative_to(data_dir := Path(run.data.data_dir or "none").resolve()):
        raise ValueError(f"--out {folder}: lies in --data_dir {data_dir}; what is drawn there would become data")
    run.model.check()
    config = RunConfig(run.data, run.model, train=TrainConfig(seed=options.seed))
    left_out: list[Problem] = []
    config, records = read(config, options.split, left_out)
    dataset = factory.build_dataset(records, config, augment=options.split == "train")
    chosen = spread(len(records), options.num_images, options.seed)
    print(f"{options.split}: {len(chosen)} of {len(records)} pictures, {options.epochs} times each", flush=True)
    if switches["dry_run"]:
        print(f"would be written: {folder / 'index.html'} and {folder / 'contact_sheet.png'}")
        return 0
    draw(dataset, chosen, config, options, left_out)
    return 0


def read(config: RunConfig, split: str, left_out: list[Problem]) -> "tuple[RunConfig, list[ImageRecord]]":
    """Return the configuration with the names of the training split, as training has it, and the split's records.

    Pictures that cannot be read and are skipped are added to `left_out`.
    """
    from ..data.annotations import EmptySplit
    from ..run import factory

    named = False
    if split == "val":
        try:
            vocabulary = factory.read_split(config.data, "train", select=True)[1]
            config, named = factory.with_vocabulary(config, vocabulary), True
        except EmptySplit as error:
            logging.warning("%s: the names are those of the validation split", error)
    records, vocabulary = factory.read_split(config.data, split, select=not named)
    return factory.with_vocabulary(config, vocabulary), factory.with_readable_pictures(records, config.data, left_out)


def draw(
    dataset: "LayoutDataset", chosen: list[int], config: RunConfig, options: BrowseConfig, left_out: list[Problem]
) -> None:
    """Write the pictures as they are read, then the page and the contact sheet, and print what is in them."""
    from ..data.loader import collate
    from ..pages.browse import browse, page
    from ..run.checkpoint import atomic_write
    from ..sampling.training_preview import draw_batch

    data_dir, folder = Path(config.data.data_dir), Path(options.out).resolve()

    def name_of(path: Path) -> str:
        path = path.parent.resolve() / path.name  # as data_dir is, but a link keeps its name
        return path.relative_to(data_dir).as_posix() if path.is_relative_to(data_dir) else path.name

    page.clear(folder)
    entries: list[browse.Entry] = []
    sheet: list[Sample] = []
    for index in chosen:
        name = name_of(dataset.records[index].path)
        entry, samples, original = browse.look(dataset, index, options.epochs, name)
        page.save_pictures(folder, entry, samples, original, dataset)
        entries.append(entry)
        sheet += samples[: SHEET_IMAGES - len(sheet)]

    left_out = [replace(problem, file=name_of(Path(problem.file))) for problem in left_out]
    of = f"{len(entries)} of {len(dataset)} pictures"
    title = f"{data_dir.name}, {options.split}"
    text = page.page(entries, dataset, title, list_facts(of, config, options), left_out)
    # File names need not be UTF-8.
    atomic_write(folder / "index.html", lambda file: file.write(text.encode(errors="replace")))
    draw_batch(*collate(sheet), dataset).save(folder / "contact_sheet.png")
    print("; ".join(browse.Tally.of(entries).lines(config.data.max_objects)))
    if left_out:
        print(f"left out: {len(left_out)} pictures")
    print(f"written: {folder / 'index.html'}\nwritten: {folder / 'contact_sheet.png'}")


def list_facts(of: str, config: RunConfig, options: BrowseConfig) -> list[str]:
    """List the options that made the pictures, in the flags' own words."""
    data, model = config.data, config.model
    training, kind = options.split == "train", model.layout_kind
    inputs = ["the label map"] * (kind == "map") + ["boxes"] * (kind == "boxes")
    inputs += ["the product"] * (model.class_cond and bool(data.product_tags))
    words = [of, f"{model.image_size} × {model.image_size} px", f"--crop_policy {data.crop_policy}"]
    words += [f"--background_rate {data.background_rate:g}"] * (training and data.background_rate > 0)
    words += [f"--random_flip {training and data.random_flip}"]
    words += [f"--min_visible {data.min_visible:g}"] * (kind != "map")
    words += [f"--max_objects {data.max_objects} ({data.max_objects_policy})"] * (
        kind == "boxes" and data.max_objects > 0
    )
    return [*words, f"--seed {options.seed}", f"the network is told {' and '.join(inputs) or 'nothing'}"]

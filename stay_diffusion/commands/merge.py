"""Join real and synthetic pictures into one data set, in one format and a chosen ratio.

    python scripts/merge_datasets.py --real DATA --synthetic OUTPUT/mine_samples --out MERGED --format coco --ratio 1

Training pictures are the real ones of the train split (all, or `--num_real` of them) and `--ratio` synthetic ones for
each; validation pictures are the real val split, as it is. All are copied. manifest.jsonl says where each came from.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import DataConfig, option
from ..config.flags import dump, parse

MODES = ("sdi", "voc", "yolo", "coco_json")


@dataclass(frozen=True)
class MergeConfig:
    real: str = option("", "folder of real pictures, as --data_dir in training")
    synthetic: str = option("", "folder of image_sample.py, or any data set; its train split is used")
    out: str = option("", "folder for the merged data set; must be empty or new")
    format: str = option("vott", "format to write", ("vott", "coco", "voc", "yolo"))
    ratio: float = option(1.0, "synthetic pictures for each real one; 0: real ones alone", least=0)
    num_real: int = option(0, "real training pictures, drawn by the seed; 0: all", least=0)
    seed: int = option(0, "which pictures are drawn; of fewer, always some of more", least=0, most=2**63 - 1)
    val: str = option(
        "copy",
        "real validation pictures: copy: as validation pictures; train: among the training pictures; leave: left out",
        ("copy", "train", "leave"),
    )
    dataset_mode: str = option("sdi", "what the real data are: VoTT (sdi) and so on", MODES)
    synthetic_mode: str = option("", "what the synthetic ones are; empty: VoTT of image_sample.py, else dataset_mode")
    image_dir: str = option("", "where the real pictures are, if not where the format has them")
    product_tags: tuple = option((), "tags that name products; none given: those that always cover the whole image")
    class_map: tuple = option(
        (), "tags of any of the sets read as other names: TAG=NAME, or TAG= to leave its boxes out"
    )
    val_fraction: float = option(0.1, "share held out for validation where there is no val folder", least=0, most=1)
    on_bad_data: str = option("error", "what cannot be used: error, or skip (counted)", ("error", "skip"))


@dataclass(frozen=True)
class MergeRun:
    """What merge_datasets.py takes."""

    merge: MergeConfig = MergeConfig()


def main() -> int:
    run, _, switches = parse(MergeRun, __doc__)
    if switches["print_config"]:
        print(dump(run), end="")
        return 0

    from ..data.exports import READ_AS
    from ..data.merging import Origin, check_tags, show_counts, united, write_set
    from ..data.splits import some_of

    merge, out = run.merge, Path(run.merge.out)
    check_flags(merge, out)

    # What there is, in names that hold for all
    real, synthetic = sources(merge)
    sets = [(real, "train"), (real, "val"), *([(synthetic, "train")] if synthetic else [])]
    known = [names for data, split in sets if (names := known_names(data, split))]
    check_tags(merge.product_tags, known)
    vocabulary = united(known)
    train, val = read(real, "train", vocabulary), read(real, "val", vocabulary)
    made = read(synthetic, "train", vocabulary) if synthetic else []

    # Which of it is wanted
    train, val = {"copy": (train, val), "train": (train + val, []), "leave": (train, [])}[merge.val]
    if merge.num_real > len(train):
        raise ValueError(f"--num_real {merge.num_real}: {merge.real} has {len(train)} training pictures")
    train = some_of(train, merge.num_real or len(train), merge.seed)
    num_made = round(merge.ratio * len(train))
    if num_made > len(made):
        raise ValueError(
            f"--ratio {merge.ratio:g}: needs {num_made} synthetic pictures for {len(train)} real ones, but "
            f"{merge.synthetic or '--synthetic'} has {len(made)}; make more, or lower --ratio or --num_real"
        )
    made = some_of(made, num_made, merge.seed)
    warn_of_val(made, val)
    splits = {"train": [Origin("real", train), Origin("synthetic", made)], "val": [Origin("real", val)]}
    show_counts(splits, vocabulary)
    if not switches["dry_run"]:
        write_set(merge.format, out, splits, vocabulary)
        print(f"written: {out.resolve()} (--data_dir, with --dataset_mode {READ_AS[merge.format]})")
    return 0


def check_flags(merge: MergeConfig, out: Path) -> None:
    from ..system.storage import check_writable_here

    for flag in ("real", "out", *(["synthetic"] if merge.ratio else [])):
        if not getattr(merge, flag):
            raise ValueError(f"--{flag}: needed, a folder")
    if merge.synthetic_mode not in ("", *MODES):
        raise ValueError(f"--synthetic_mode {merge.synthetic_mode}: choose from {', '.join(MODES)}")
    check_writable_here("out", merge.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: is there already and not empty; choose another folder or empty it")


def sources(merge: MergeConfig) -> tuple[DataConfig, DataConfig | None]:
    """How both sets are read; of a folder of image_sample.py the samples with their VoTT export."""
    real = DataConfig(
        data_dir=merge.real,
        dataset_mode=merge.dataset_mode,
        image_dir=merge.image_dir,
        product_tags=merge.product_tags,
        class_map=merge.class_map,
        val_fraction=merge.val_fraction,
        on_bad_data=merge.on_bad_data,
    )
    if not merge.synthetic:
        return real, None
    place, mode = merge.synthetic, merge.synthetic_mode or merge.dataset_mode
    if not merge.synthetic_mode and Path(place, "samples/samples-export.json").is_file():
        place, mode = str(Path(place, "samples")), "sdi"
    return real, replace(real, data_dir=place, dataset_mode=mode, image_dir="", val_fraction=0.0)


def known_names(data: DataConfig, split: str):
    """What a split says of names; None where there is no such split."""
    from ..data.annotations import EmptySplit, Vocabulary
    from ..data.datasets import PRODUCTS_DRAWN, names_of
    from ..data.merging import Known
    from ..run import factory

    where = f"{data.data_dir} ({split})"
    try:
        names = names_of(data, split)
        if data.product_tags:  # they hold for all sets, but not every set need show them
            classes = tuple(name for name in names if name not in data.product_tags)
            return Known(where, names, Vocabulary(classes, data.product_tags), stated=True)
        _, shown = factory.read_split(data, split, problems=[])
    except EmptySplit:
        if split == "train":
            raise
        return None
    return Known(where, names, shown, stated=data.dataset_mode not in PRODUCTS_DRAWN)


def read(data: DataConfig, split: str, vocabulary) -> list:
    """The records of a split in the names of all sets, their pictures looked at; none where there is no val split."""
    from ..data.annotations import EmptySplit
    from ..run import factory

    try:
        records, _ = factory.read_split(factory.with_names(data, vocabulary), split)
    except EmptySplit:
        if split == "train":
            raise
        return []
    return factory.with_readable_pictures(list(records), data)


def warn_of_val(made: list, val: list) -> None:
    """Synthetic pictures that say that they were made from validation pictures: then those are no test any more."""
    from ..data.provenance import read_provenance

    held_out = {record.stem for record in val}
    told = [read_provenance(record.path) or {} for record in made]
    for key, what in (("source", "layouts"), ("source_image", "surfaces")):
        count = sum(Path(entry.get(key) or "").stem in held_out for entry in told)
        if count:
            logging.warning("%d of %d synthetic pictures have %s of validation pictures", count, len(made), what)

"""The data: images, their classes, and crops."""

from dataclasses import dataclass

from .option import numbers, option

DATASET_MODES = (
    *("sdi", "images", "voc", "yolo", "coco_json", "coco"),  # of boxes and of images alone
    *("ade20k", "cityscapes", "celeba", "coco_semantic", "maps"),  # of label maps
)


@dataclass(frozen=True)
class DataConfig:
    data_dir: str = option("", "folder of annotated images; train/ and val/ inside it are the splits")
    dataset_mode: str = option(
        "sdi",
        "sdi: boxes drawn in VoTT; coco: COCO-Stuff as the literature filters it; coco_json, voc, yolo: boxes of these "
        "formats; images: pictures alone; maps: label maps with a classes.txt; the others: those of SPADE and SDM",
        DATASET_MODES,
    )
    image_dir: str = option("", "where the images are, if not where the format has them")
    product_tags: tuple = option((), "tags that name products; none given: those that always cover the whole image")
    classes: tuple = option((), "defect classes in label order, others left out; none given: all of the training data")
    class_map: tuple = option((), "tags of the data read as other names: TAG=NAME, or TAG= to leave its boxes out")
    num_classes: int = option(0, "classes (products with --conditioning none) the data must have; 0: any", least=0)
    val_fraction: float = option(0.1, "share held out for validation where data_dir has no val folder", least=0, most=1)
    on_bad_data: str = option("error", "what cannot be used: error, or skip (counted)", ("error", "skip"))
    id_list: str = option(
        "",
        "file of the pictures to use, by name (coco: by id); with {split} in its name, one file for train and for val",
    )
    value_range: str = option("", "values of black and white in greys of more than 8 bits, 0,4095; empty: of the type")
    coco_min_object_size: float = option(0.02, "coco: objects of at most this share of the image are left out", least=0)
    coco_min_objects: int = option(3, "coco: images with fewer objects are left out", least=0)
    coco_max_objects: int = option(8, "coco: images with more objects are left out", least=1)
    crop_policy: str = option(
        "resize",
        "resize: whole image, aspect ignored; center, random: a square; object: unscaled, around an object",
        ("resize", "center", "random", "object"),
    )
    background_rate: float = option(0.0, "share of training's object crops taken anywhere", least=0, most=1)
    random_flip: bool = option(False, "mirror left to right at random (not for oriented products)")
    min_visible: float = option(0.25, "share of its box that a crop must leave of an object", least=0, most=1)
    max_objects: int = option(0, "most objects per layout; 0: no limit", least=0)
    max_objects_policy: str = option("error", "what to do with more objects", ("error", "largest", "random"))
    num_workers: int = option(1, "loader processes per rank; 0: load in the training process", least=0)
    cache: str = option("off", "keep pictures decoded and pre-scaled: in memory, or in files", ("off", "ram", "disk"))

    @property
    def black_and_white(self) -> tuple[float, float] | None:
        values = tuple(numbers("value_range", self.value_range, float))
        if values and (len(values) != 2 or values[0] >= values[1]):
            raise ValueError(f"--value_range {self.value_range}: expected those of black and of white, such as 0,4095")
        return values or None

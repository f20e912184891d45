"""A split or a data set by a few options, as tests of single formats and cuts want them."""

from stay_diffusion.config import DataConfig, ModelConfig
from stay_diffusion.data.datasets import NO_NAMES, read_split
from stay_diffusion.data.samples import LayoutDataset

MODEL = ("image_size", "image_channels", "conditioning", "no_instance")


def load_records(mode, data_dir, split, image_dir=None, *, problems=None, select=False, known=NO_NAMES, **options):
    """read_split of a folder, with data options and `shared`."""
    shared = options.pop("shared", None)
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    data = DataConfig(str(data_dir), mode, str(image_dir or ""), **options)
    return read_split(data, split, problems, select, known, shared)


def dataset_of(records, vocabulary, seed=0, **options):
    """A data set with model and data options; small boxes are shown too, unless `min_visible` is given."""
    model = {name: options.pop(name) for name in MODEL if name in options}
    data = DataConfig(**{"min_visible": 0.0, **options})
    return LayoutDataset(records, vocabulary, data, ModelConfig(**model), seed)

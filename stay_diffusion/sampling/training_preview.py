"""Previews during training: real images, their layouts, and samples of the averaged weights."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..config import SampleConfig
from ..data.annotations import label_boxes
from ..data.images import to_pil
from ..data.layout import Layout
from ..data.samples import LayoutDataset
from ..diffusion.gaussian_diffusion import GaussianDiffusion, respace
from ..layouts.items import from_dataset
from ..system.distributed import gather
from ..system.launchers import ALONE, World
from .generate import TrainedModel, image_generators
from .preview import classes_of, contact_sheet, draw_boxes, draw_layout, draw_map, fit, legend
from .results import save_png

PREVIEW_RESPACING = "logsnr20"


class TrainingPreview:
    """Write previews/NNNNNN.png of the same layouts and seeds each time, and log the samples' channel means.

    Several processes make the samples together, so that none waits for another's.
    """

    def __init__(
        self, dataset: LayoutDataset, diffusion: GaussianDiffusion, folder: Path, device, world: World = ALONE
    ):
        self.dataset, self.folder, self.device, self.world = dataset, folder, device, world
        self.items = from_dataset(dataset)
        kept = PREVIEW_RESPACING if diffusion.num_timesteps > 20 else ""
        self.diffusion = respace(diffusion, kept).to(device)
        self.layout = Layout.collate([item.tensors(dataset.vocabulary) for item in self.items])

    def __call__(self, state, logger) -> None:
        shape = (self.dataset.image_channels, self.dataset.image_size, self.dataset.image_size)
        own = range(self.world.rank, len(self.items), self.world.size)
        images = torch.empty(0, *shape)
        if own:
            model = TrainedModel(state.emas[0].model, self.diffusion, shape, SampleConfig(precision=state.precision))
            images = model.generate(self.layout[torch.tensor(own)], image_generators(0, own)).cpu()
        made = gather(images)
        images = torch.stack([made[i % self.world.size][i // self.world.size] for i in range(len(self.items))])
        for channel, mean in enumerate(images.mean(dim=(0, 2, 3)).tolist()):
            logger.set(f"sample_mean_{channel}", mean)
        if self.world.is_main:
            self._draw(images, state.step)

    def _draw(self, images: Tensor, step: int) -> None:
        classes = self.dataset.vocabulary.classes
        side = images.shape[-1] * max(1, 128 // images.shape[-1])
        rows, seen = [], set()
        for item, image in zip(self.items, images, strict=True):
            real = item.real()
            assert real is not None
            if item.is_map:
                assert real.semantic_map is not None
                labels = real.semantic_map[0].numpy()
                layout, sample = draw_map(labels, classes, side), fit(to_pil(image), side)
                seen |= classes_of(labels, classes)
            else:
                layout = draw_layout(item.objects, classes, (side, side))
                sample = draw_boxes(to_pil(image), item.objects, classes, side)
                seen |= {box.label for box in item.objects}
            rows.append([fit(to_pil(real.image), side), layout, sample])
        captions = [f"{item.product or ''} real, layout, sample" for item in self.items]
        (self.folder / "previews").mkdir(exist_ok=True)
        sheet = contact_sheet(rows, captions, legend(seen, classes), columns=2)
        save_png(sheet, self.folder / f"previews/{step:06d}.png")


def draw_batch(images: Tensor, layout: Layout, dataset: LayoutDataset) -> Image.Image:
    """Draw a contact sheet of a data set's images (B, C, S, S) with their products and boxes, or beside their maps."""
    side, names = images.shape[-1] * max(1, 192 // images.shape[-1]), dataset.vocabulary
    rows, captions, seen = [], [], set()
    for i, (image, product) in enumerate(zip(images, layout.product.tolist(), strict=True)):
        if dataset.layout_kind == "map":
            assert layout.semantic_map is not None
            labels = layout.semantic_map[i, 0].numpy()
            rows.append([fit(to_pil(image), side), draw_map(labels, names.classes, side)])
            seen |= classes_of(labels, names.classes)
        else:
            valid = layout.valid[i]
            objects = label_boxes(layout.boxes[i][valid], layout.labels[i][valid], names.classes)
            rows.append([draw_boxes(to_pil(image), objects, names.classes, side)])
            seen |= {box.label for box in objects}
        captions.append(names.products[product - 1] if product > 0 else "")
    return contact_sheet(rows, captions, legend(seen, names.classes), columns=8 // len(rows[0]))

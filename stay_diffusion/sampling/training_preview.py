"""Every so often during training: real pictures, their layouts, and what the averaged weights make of them."""

from pathlib import Path

from PIL import Image
from torch import Tensor

from ..data.annotations import Box, Vocabulary
from ..data.images import to_pil
from ..data.layout import Layout
from ..data.loader import LayoutDataset
from ..diffusion.gaussian_diffusion import GaussianDiffusion, respace
from .export import save_png
from .generate import generate, image_generators
from .layouts import from_dataset
from .preview import contact_sheet, draw_boxes, draw_layout, draw_map, enlarge, legend

PREVIEW_RESPACING = "logsnr20"


class TrainingPreview:
    """Writes previews/NNNNNN.png of the same layouts and seeds each time, and logs the samples' channel means."""

    def __init__(self, dataset: LayoutDataset, diffusion: GaussianDiffusion, folder: Path, device):
        self.dataset, self.folder, self.device = dataset, folder, device
        self.items = from_dataset(dataset)
        kept = PREVIEW_RESPACING if diffusion.num_timesteps > 20 else ""
        self.diffusion = respace(diffusion, kept).to(device)
        self.layout = Layout.collate([item.tensors(dataset.vocabulary) for item in self.items])

    def __call__(self, state, logger) -> None:
        classes, size = self.dataset.vocabulary.classes, self.dataset.image_size
        shape = (self.dataset.image_channels, size, size)
        images = generate(
            state.emas[0].model,
            self.diffusion,
            self.layout,
            image_generators(0, range(len(self.items))),
            shape,
            precision=state.precision,
        ).cpu()
        side = shape[-1] * max(1, 128 // shape[-1])
        rows = []
        for item, image in zip(self.items, images, strict=True):
            real = item.real()
            layout = (
                draw_map(real.semantic_map[0].numpy(), side)
                if item.has_map
                else draw_layout(item.objects, classes, side)
            )
            sample = draw_boxes(to_pil(image), item.objects, classes, side)
            rows.append([enlarge(to_pil(real.image), side), layout, sample])
        colours = legend((item.objects for item in self.items), classes)
        captions = [f"{item.product or ''} real, layout, sample" for item in self.items]
        (self.folder / "previews").mkdir(exist_ok=True)
        save_png(contact_sheet(rows, captions, colours, columns=2), self.folder / f"previews/{state.step:06d}.png")
        for channel, mean in enumerate(images.mean(dim=(0, 2, 3)).tolist()):
            logger.set(f"sample_mean_{channel}", mean)


def draw_batch(images: Tensor, layout: Layout, vocabulary: Vocabulary) -> Image.Image:
    """A contact sheet of training pictures (B, C, S, S) with their boxes and products."""
    side = images.shape[-1] * max(1, 192 // images.shape[-1])
    rows, captions, drawn = [], [], []
    for image, boxes, labels, valid, product in zip(
        images, layout.boxes, layout.labels, layout.valid, layout.product.tolist(), strict=True
    ):
        objects = [
            Box(vocabulary.classes[label - 1], *box)
            for box, label in zip(boxes[valid].tolist(), labels[valid].tolist(), strict=True)
        ]
        drawn.append(objects)
        rows.append([draw_boxes(to_pil(image), objects, vocabulary.classes, side)])
        captions.append(vocabulary.products[product - 1] if product > 0 else "")
    return contact_sheet(rows, captions, legend(drawn, vocabulary.classes), columns=8)

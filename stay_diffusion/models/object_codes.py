"""Labels and product -> one code vector per object, and one for the background."""

import torch
from torch import Tensor, nn

from ..data.layout import Layout

LABEL_WIDTH = 180  # LostGAN-v2's (arXiv 2003.11571)
STYLE_WIDTH = 128


class ObjectCodes(nn.Module):
    """Codes w = [z; Embedding(label)], the background's from the product.

    `z_mode` "off" leaves z out. "prior" draws z ~ N(0, I) per object, as the thesis does; under the diffusion loss z is
    independent of the image, so a trained network ignores it: it is there for fidelity only.
    """

    def __init__(self, num_classes: int, num_products: int, z_mode: str = "off"):
        super().__init__()
        self.z_mode = z_mode
        self.label_embedding = nn.Embedding(num_classes + 1, LABEL_WIDTH)  # row 0: padding
        self.product_embedding = nn.Embedding(num_products + 2, LABEL_WIDTH)  # rows 0, 1: null, unknown

    @property
    def width(self) -> int:
        """D."""
        return LABEL_WIDTH + (STYLE_WIDTH if self.z_mode == "prior" else 0)

    def forward(self, layout: Layout, z: Tensor | None = None) -> Tensor:
        """Codes (B, O+1, D), background last; z (B, O+1, 128) or None to draw it here where the mode wants one."""
        background = self.product_embedding(layout.product + 1)[:, None]  # B 1 180
        codes = torch.cat([self.label_embedding(layout.labels), background], dim=1)  # B O+1 180
        if self.z_mode == "prior":
            if z is None:
                z = torch.randn(*codes.shape[:2], STYLE_WIDTH, device=codes.device)
            codes = torch.cat([z, codes], dim=-1)  # B O+1 D
        return codes

    def of_classes(self, codes: Tensor) -> Tensor:
        """Codes (B, K+1, D) of all classes and each image's background, where there is no z: codes (B, O+1, D)."""
        classes = self.label_embedding.weight[1:].expand(len(codes), -1, -1)  # B K 180
        return torch.cat([classes, codes[:, -1:]], dim=1)

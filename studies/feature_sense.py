"""What do FD-own and KID-own see? Real pictures against real ones, made worse in known ways.

    python studies/feature_sense.py --features OUTPUT/features.pt --data_dir DATA [--looks 4]

The validation pictures are halved. One half is the reference; the other is compared with it as it is, blurred, noisy,
with a share of its pictures replaced by flat grey, with a share of its pictures doubled in place of others, and, where
the data have defect-free templates (STEM with _temp for _test, in val/templates), without its defects. Each picture is
looked at --looks times, each time cut anew as in training. Prints the protocol and a table.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stay_diffusion.config import DataConfig, ModelConfig
from stay_diffusion.data.samples import LayoutDataset
from stay_diffusion.evaluation.features.degradations import blurred
from stay_diffusion.evaluation.features.own_features import load
from stay_diffusion.evaluation.metrics.fid import frechet
from stay_diffusion.evaluation.metrics.kid import kid
from stay_diffusion.evaluation.metrics.prdc import prdc
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import sha256
from stay_diffusion.system.command import argument_parser, run_command

AT_A_TIME = 64


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--features", type=Path, required=True, help="file of evaluations/train_features.py")
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--looks", type=int, default=4, help="cuts of each picture")
    arguments = parser.parse_args()

    network, recipe = load(arguments.features)
    records, vocabulary = factory.read_split(DataConfig(data_dir=str(arguments.data_dir)), "val")
    half = len(records) // 2
    if half < 2:
        raise ValueError(f"--data_dir {arguments.data_dir}: {len(records)} validation pictures are too few")

    def seen(part) -> Tensor:
        """(N, C, S, S) in [-1, 1]."""
        model = ModelConfig(image_size=recipe.image_size, image_channels=recipe.image_channels)
        data = LayoutDataset(part, vocabulary, DataConfig(crop_policy=recipe.crop_policy), model)
        return torch.stack([data.sample(i, look).image for look in range(arguments.looks) for i in range(len(part))])

    @torch.inference_mode()
    def features(images: Tensor) -> np.ndarray:
        levels = ((images.clamp(-1, 1) + 1) * 127.5).round()
        return torch.cat([network.features(part) for part in levels.split(AT_A_TIME)]).numpy()

    reference, real = features(seen(records[:half])), seen(records[half:])
    print(f"reference {len(reference)} cuts, compared {len(real)}; {recipe.image_size} pixels, {recipe.crop_policy}")
    print(f"features: {recipe.steps} steps, sha256 {sha256(arguments.features)[:12]}, held out {recipe.held_out}")
    print("\n| compared with other real pictures | FD-own | KID-own | precision | recall |\n|---|---|---|---|---|")
    for name, images in worsened(real):
        print_row(name, reference, features(images))
    templates = [(record, template_of(arguments.data_dir, record.path)) for record in records[half:]]
    if all(template.exists() for _, template in templates):
        without = [replace(record, path=template) for record, template in templates]
        print_row("without their defects", reference, features(seen(without)))
    return 0


def worsened(real: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(what was done, pictures in [-1, 1]); the stronger the later."""
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    yield "as they are", real
    for sigma in (0.5, 1, 2):
        yield f"blurred, sigma {sigma} pixels", blurred(real, sigma)
    for strength in (6, 19, 51):
        yield f"noise of {strength} grey levels", real + noise * strength / 127.5
    for share in (0.1, 0.3, 0.8):
        flat = real.clone()
        flat[: int(share * len(real))] = 0
        yield f"{share:.0%} flat grey", flat
    for share in (0.5, 0.9):
        kept = max(1, round((1 - share) * len(real)))
        yield f"{share:.0%} doubles of the others", real[torch.arange(len(real)) % kept]


def template_of(data_dir: Path, picture: Path) -> Path:
    return data_dir / "val" / "templates" / picture.name.replace("_test", "_temp")


def print_row(name: str, reference: np.ndarray, compared: np.ndarray) -> None:
    kernel, shares = kid(compared, reference), prdc(reference, compared)
    print(
        f"| {name} | {frechet(compared, reference):.2f} | {kernel.value:.4f} ± {kernel.standard_error:.4f} "
        f"| {shares['precision'].value:.2f} | {shares['recall'].value:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    run_command(main, continues=False)

"""Images a second on the way to Inception's features: from a folder of PNGs, ours against torch-fidelity's own.

    python benchmarks/inception_speed.py [--num_images 32] [--rounds 3]

The same network with the same random weights, the same folder, batches of 16, no cache, the machine's threads. Both
read, resize to 299 x 299 within the network, and give 2,048 features; these are compared. Ours gives spatial features
and logits in the same pass, as evaluate.py asks for where several metrics want them; that is not counted here.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from measuring import AT_LEAST, Row, in_turn, ratio, same, table
from PIL import Image

from stay_diffusion.system.command import argument_parser, run_command
from stay_diffusion.system.torchvision_cpu import import_torchvision

BATCH, SIDE = 16, 128


def rows(num_images: int = 32, rounds: int = 3) -> list[Row]:
    """Row 10 of the targets."""
    import_torchvision()  # before torch-fidelity imports it
    from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

    from stay_diffusion.evaluation.features import inception
    from stay_diffusion.evaluation.features.extractor import extract

    with tempfile.TemporaryDirectory() as place:
        folder, weights = Path(place) / "images", Path(place) / "weights.pth"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for i in range(num_images):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.png")
        torch.manual_seed(0)
        torch.save(inception.load_network(None).state_dict(), weights)
        settings = {"feature_extractor_weights_path": str(weights), "cuda": False, "verbose": False}
        theirs = create_feature_extractor("inception-v3-compat", ["2048"], **settings)
        network = inception.extractor(weights, None, "cpu")
        items = sorted(folder.iterdir())
        reading = {"batch_size": BATCH, "cuda": False, "verbose": False, "cache": False, "save_cpu_ram": True}

        def ours() -> torch.Tensor:
            found = extract(lambda batch: network.measure(batch, ("pool",)), items, BATCH)
            return torch.from_numpy(np.concatenate([features["pool"] for _, features in found]))

        def fidelity() -> torch.Tensor:
            return extract_featuresdict_from_input_id(1, theirs, input1=str(folder), **reading)["2048"]

        held = same(ours(), fidelity(), 1e-4, "features")
        seconds = in_turn({"ours": ours, "theirs": fidelity}, rounds)
    protocol = f"{num_images} PNGs of {SIDE} px, batch {BATCH}, {torch.get_num_threads()} threads, {rounds} rounds"
    measured = ratio(seconds["theirs"], seconds["ours"])
    return [
        Row("10", "FID features a second, of torch-fidelity's", AT_LEAST, 1.0, *measured, protocol=protocol, held=held)
    ]


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--num_images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    found = rows(arguments.num_images, arguments.rounds)
    print(table(found), *(f"{row.protocol}; {row.held}" for row in found), sep="\n")
    return 0


if __name__ == "__main__":
    run_command(main)

"""Sampling: what to make with a trained network, and how."""

from dataclasses import dataclass

from .option import numbers, option
from .shared import Device, Precision, Processes


@dataclass(frozen=True)
class SampleConfig(Precision, Processes, Device):
    model_path: str = option("", "weights, such as RUN/ema_0.9999.pt; config.json beside them describes the model")
    results_path: str = option("", "folder for samples, labels and manifest; empty: samples/ in the run folder")
    num_samples: int = option(0, "images to make; 0: one per layout", least=0)
    num_runs: int = option(1, "this many times, in run0, run1 ... of results_path, each with other noise", least=1)
    batch_size: int = option(16, "images at a time (does not change them)", least=1)
    layouts: str = option("val", "val, train, sampled, or a file: a VoTT export or lines of JSON")
    is_train: bool = option(False, "the tradition's name for --layouts train", compat=True)
    insert_into: str = option(
        "",
        "put the layouts' objects into whole pictures, at their own size: a folder of good ones (below folders named "
        "after products, if there are several), or train or val, whose labels stay",
    )
    edit: str = option("", "one picture to put the objects of --layout into")
    layout: str = option("", "with --edit: a file with one layout (--layouts FILE)")
    box_margin: float = option(0.15, "share of a box's longer side by which insertion may change around it", least=0)
    num_resamples: int = option(4, "insertion: how often each step is gone, to fit the surroundings", least=1)
    class_balance: tuple = option(
        ("data",), "classes of sampled objects: data, uniform, or their shares as CLASS=WEIGHT,... and no others"
    )
    rare_first: bool = option(False, "sampled classes: balance them together with the training data's, rare ones first")
    good_parts: float = option(-1.0, "share of sampled layouts without objects; -1: as in the data", least=-1, most=1)
    no_overlap: bool = option(False, "sampled objects do not overlap: one that finds no place is left out")
    reject_below: float = option(
        0.0, "quality gate: draw images with a box of a lower score, 0 to 1, again; 0: no gate", least=0, most=1
    )
    reject_copies: bool = option(False, "quality gate: draw near-copies of training objects again")
    max_attempts: int = option(5, "quality gate: draws of an image; one that never passes is left out", least=1)
    report: bool = option(False, "also report.html: the best and the worst, figures, training pictures most alike")
    s: float = option(1.0, "guidance scale: 1 is off (a model trained with drop_rate can go higher)")
    guidance_interval: str = option(
        "", "guide only at noise levels sigma / signal from LO to HI: LO,HI (arXiv 2404.07724); empty: at all"
    )
    sampler: str = option("dpmpp_2m", "how to get from noise to images", ("ddpm", "ddim", "dpmpp_2m", "heun"))
    num_steps: int = option(20, "sampling steps, even in log-SNR (timestep_respacing: other spacings)", least=1)
    use_ddim: bool = option(False, "the tradition's name for --sampler ddim", compat=True)
    eta: float = option(0.0, "noise of ddim: 0 none, 1 as much as ddpm", least=0, most=1)
    clip_denoised: bool = option(True, "clamp each step's clean image to [-1, 1]")
    seed: int = option(0, "image i is drawn from (seed, i), whatever the batch size", least=0, most=2**63 - 1)
    compile: bool = option(
        False, "torch.compile the network, for minutes at the first step: for many images on a GPU; if it cannot, go on"
    )
    export: tuple = option(
        ("vott",), "labels for the samples, each a data set of its own", ("vott", "coco", "voc", "yolo")
    )
    masks: bool = option(False, "also weak masks: what the objects changed in the same picture without them")
    save_npz: bool = option(False, "also write samples_NxHxWxC.npz")

    @property
    def is_inserting(self) -> bool:
        """True where objects are put into whole images."""
        return bool(self.insert_into or self.edit)

    @property
    def is_gated(self) -> bool:
        """True where the quality gate decides what is drawn again."""
        return bool(self.reject_below or self.reject_copies)

    @property
    def needs_good_parts(self) -> bool:
        """True where each image is compared with the same one without its objects."""
        return self.masks or self.is_gated

    @property
    def guided_levels(self) -> tuple[float, float] | None:
        """The noise levels between which there is guidance; None for all. ValueError unless they are LO,HI."""
        levels = tuple(numbers("guidance_interval", self.guidance_interval, float))
        if not self.guidance_interval:
            return None
        if len(levels) != 2 or levels[0] >= levels[1]:
            raise ValueError(
                f"--guidance_interval {self.guidance_interval}: expected LO,HI with LO < HI, such as 0.2,5"
            )
        return levels

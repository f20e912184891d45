"""The options of evaluate and nll, by flag."""

from dataclasses import dataclass

from ..config import DataConfig, RunConfig, option
from ..config.shared import Device, Precision, Processes
from .registry import METRICS


@dataclass(frozen=True)
class EvaluateConfig(Processes, Device):
    samples: str = option("", "generated images: a folder, image_sample.py's results, or an npz")
    reference: str = option(
        "", "real images: a folder, an npz (images, or mu and sigma), or val or train: the split as the model saw it"
    )
    metrics: tuple = option((), f"any of {', '.join(METRICS)}; none given: the protocol's, else fid, kid and prdc")
    features: str = option("inception", "inception, or trained:FILE, a file of train_features.py (FD-own, KID-own)")
    protocol: str = option(
        "", "check counts and sizes against the literature's", ("", "layoutdiffusion", "lostgan", "sdm")
    )
    compat: str = option("", "oasis: Inception's input as the scripts of OASIS and SDM resize it", ("", "oasis"))
    image_size: int = option(0, "resize every image to N x N first (Pillow's bicubic); 0: as they are", least=0)
    crop_size: int = option(224, "scene_fid: objects are cut out and resized to this", least=8)
    bootstrap: int = option(
        20, "resamples behind the standard errors of Frechet distances and detection scores; 0: none", least=0
    )
    prdc_k: int = option(5, "prdc: whose neighbour a picture's ball reaches to", least=1)
    seed: int = option(2020, "of subsets, parts and resamples; torch-fidelity's by default", least=0, most=2**32 - 1)
    weights: str = option("", "Inception's weights, if they are not in torch hub's cache")
    lpips_net: str = option("alex", "backbone of LPIPS", ("alex", "vgg", "squeeze"))
    lpips_compat: str = option("", "sdm: as SDM's script resizes and normalises", ("", "sdm"))
    lpips_weights: str = option("", "LPIPS's linear layers; empty: those in the lpips package")
    backbone_weights: str = option("", "LPIPS's ImageNet weights, if they are not in torch hub's cache")
    cas_steps: int = option(1000, "cas: optimizer steps of a classifier", least=1)
    cas_seeds: int = option(1, "cas: classifiers, each from its own seed, that the figure is the mean of", least=1)
    gate: str = option(
        "", "recognised: a quality_gate.pt; empty: that of the samples' run, else one trained on --data_dir"
    )
    detector: str = option("", "yolo_score: the detector.pt of train_detector.py that searches the images")
    model_path: str = option("", "nll: weights to measure; empty: those that made the samples")
    nll_images: int = option(100, "nll: so many of the reference's images; 0: all", least=0)
    nll_respacing: str = option("", "nll: the bound of a shorter process, 250 say; empty: the trained one's")
    feature_cache: str = option(
        "", "folder where features are kept; empty: $XDG_CACHE_HOME/stay_diffusion/features; off: nowhere"
    )
    json: str = option("", "write figures and protocols to this file")
    markdown: str = option("", "write the table to this file too")
    batch_size: int = option(32, "images at a time (changes the speed only)", least=1)


@dataclass(frozen=True)
class EvaluateRun:
    """The sections of evaluate; the data flags say how annotated folders are read, for the metrics of objects."""

    evaluate: EvaluateConfig = EvaluateConfig()
    data: DataConfig = RunConfig.data


@dataclass(frozen=True)
class NllConfig(Precision, Processes, Device):
    model_path: str = option("", "weights, such as RUN/ema_0.9999.pt; config.json beside them describes the model")
    split: str = option("val", "whose images to measure", ("val", "train"))
    num_samples: int = option(1000, "measure the first of the split's images, at most so many; 0: all", least=0)
    batch_size: int = option(16, "images at a time (does not change the result)", least=1)
    clip_denoised: bool = option(True, "clamp each step's clean image to [-1, 1]")
    seed: int = option(0, "noise of image i, in the order of content, is drawn from (seed, i)", least=0, most=2**63 - 1)
    out: str = option("", "folder for nll.json and the terms of each step (npz); empty: print only")


@dataclass(frozen=True)
class FeaturesConfig(Device):
    out: str = option("", "file to write, such as OUTPUT/features.pt")
    run: str = option("", "run folder whose data, cut, size and channels are taken; typed flags win")
    image_size: int = option(64, "side of the pictures that the network sees", least=16)
    image_channels: int = option(3, "1 for greyscale pictures", (1, 3))
    steps: int = option(1000, "training steps", least=1)
    batch_size: int = option(32, "pictures a step", least=1)
    lr: float = option(4e-3, "highest learning rate of AdamW, one cycle up and down", least=0)
    seed: int = option(0, "of weights, data order and degradations", least=0, most=2**63 - 1)

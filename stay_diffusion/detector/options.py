"""Options of training a detector and of comparing detectors; imports nothing heavy, so that `--help` is quick."""

from dataclasses import dataclass

from ..config import option
from ..config.data import DATASET_MODES
from ..config.shared import Device

TORCHVISION_DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
)


@dataclass(frozen=True)
class DetectorConfig:
    detector: str = option("small_fcos", "the network", ("small_fcos", *TORCHVISION_DETECTORS))
    weights: str = option("", "file to start from: torchvision's state dict, or a detector.pt; empty: none")
    steps: int = option(600, "optimizer steps", least=1)
    batch_size: int = option(8, "crops per step", least=1)
    crop_size: int = option(192, "side of the crops that are trained on, in pixels after --scale", least=32)
    lr: float = option(2e-3, "highest learning rate of AdamW, after a warm-up and before a cosine", least=0)
    weight_decay: float = option(0.01, "of AdamW", least=0)
    flips: str = option("both", "mirror crops at random: both ways, left to right, not", ("both", "horizontal", "none"))
    scale: float = option(1.0, "enlarge images by this factor, in training and in use", least=0.01, most=100)
    precision: str = option("auto", "auto: bf16 on GPUs that have it, else fp32", ("auto", "fp32", "bf16"))


@dataclass(frozen=True)
class TrainingRunConfig(Device):
    data_dir: str = option("", "data set: its train split is trained on, its val split measured on")
    dataset_mode: str = option("sdi", "its format", DATASET_MODES)
    val_fraction: float = option(0.1, "share held out where it has no val folder", least=0, most=1)
    class_map: tuple = option((), "tags read as other names: TAG=NAME, or TAG= to leave its boxes out")
    num_real: int = option(0, "train on so many of the images, always the same ones; 0: all", least=0)
    out: str = option("", "folder for detector.pt, detector.json and detector.md")
    seed: int = option(0, "of the initial weights, the order and the crops", least=0)


@dataclass(frozen=True)
class TrainDetector:
    """Options of train_detector.py."""

    run: TrainingRunConfig = TrainingRunConfig()
    training: DetectorConfig = DetectorConfig()


@dataclass(frozen=True)
class GainConfig(Device):
    real: str = option("", "data set with the real training images: its train split")
    synthetic: str = option("", "folder that image_sample.py has made, or a data set, whose train split is taken")
    test: str = option("", "data set to test on: its val split, or all of it where it has none; empty: that of --real")
    dataset_mode: str = option("sdi", "the format of data sets; folders of image_sample.py need none", DATASET_MODES)
    val_fraction: float = option(0.1, "share held out where --real has no val folder and is the test too", least=0)
    class_map: tuple = option((), "tags of all sets read as other names: TAG=NAME, or TAG= to leave its boxes out")
    num_real: int = option(0, "so many of the real images, always the same ones; 0: all", least=0)
    ratios: str = option("0,0.5,1,2", "synthetic images per real one, 0 among them: what others are held against")
    seeds: int = option(3, "trainings of each kind: initial weights, order, crops, choice of synthetic images", least=1)
    allow_test_sources: bool = option(False, "accept synthetic images that were made from test images or layouts")
    out: str = option("", "folder for gain.json, gain.md, gain.svg")
    runs: str = option("", "folder of finished trainings, which may serve several comparisons; empty: OUT/runs")
    jobs: int = option(1, "trainings at a time, each in its own process", least=1)


@dataclass(frozen=True)
class DetectorGain:
    """Options of detector_gain.py."""

    gain: GainConfig = GainConfig()
    training: DetectorConfig = DetectorConfig()

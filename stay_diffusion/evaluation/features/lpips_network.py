"""The lpips package's network behind LPIPS, and its weights."""

import sys
import warnings
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from ...system.torchvision_cpu import import_torchvision

SCRIPT = "lpips.py"  # beside test_with_FID.py: a folder of scripts, not of packages
# The enum of torchvision's ImageNet weights, for each backbone of the lpips package.
BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


def import_lpips() -> ModuleType:
    """Import the lpips package, also where Python finds evaluations/lpips.py first, as in that script's process."""
    import_torchvision()
    if "lpips" not in sys.modules:
        folders = [folder for folder in sys.path if not (Path(folder) / SCRIPT).is_file()]
        spec = PathFinder.find_spec("lpips", folders)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError("No module named 'lpips'", name="lpips")
        sys.modules["lpips"] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules["lpips"])
    return sys.modules["lpips"]


def find_linear(net: str, given: Path | None) -> Path:
    """Return the file of LPIPS's linear layers: the one given, or that in the lpips package."""
    if given and not given.is_file():
        raise ValueError(f"--lpips_weights {given}: no such file")
    return given or Path(import_lpips().__path__[0]) / "weights" / "v0.1" / f"{net}.pth"


def find_backbone(net: str, given: Path | None) -> Path:
    """Return the file of ImageNet weights given, or torchvision's in torch hub's cache; nothing is fetched."""
    models = import_torchvision().models
    url = getattr(models, BACKBONES[net]).IMAGENET1K_V1.url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if given and not given.is_file():
        raise ValueError(f"--backbone_weights {given}: no such file")
    if not given and not cached.is_file():
        raise ValueError(
            f"ImageNet weights {cached.name} are not in {cached.parent}: download {url} there "
            "(on any machine, then copy) or name a copy with --backbone_weights FILE"
        )
    return given or cached


def load_model(net: str, linear: Path, backbone: Path) -> nn.Module:
    """Load the lpips package's LPIPS v0.1 with these files' weights; neither is fetched nor unpickled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the package calls torchvision in a way that it deprecates
        model = import_lpips().LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False)
    _load(model.net, backbone, lambda key: f"features.{key.partition('.')[2]}")  # slice2.3.bias is features.3.bias
    _load(model.lins, linear, lambda key: f"lin{key}")
    return model.requires_grad_(False)


def _load(module: nn.Module, path: Path, stored_name) -> None:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict({key: stored[stored_name(key)] for key in module.state_dict()})
    except Exception as error:  # of many types, over many lines
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise ValueError(f"{path}: not these weights of LPIPS: {reason}") from error

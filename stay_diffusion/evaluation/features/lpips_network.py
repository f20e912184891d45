"""What LPIPS is measured with: the lpips package's network, and where its weights are found."""

import sys
import warnings
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from ...system.torchvision_cpu import import_torchvision

# torchvision's builder and the enum of its ImageNet weights, for each backbone the lpips package knows.
SCRIPT = "lpips.py"  # beside test_with_FID.py: a folder of scripts, not of packages
BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


def import_lpips() -> ModuleType:
    """The lpips package, also where Python finds the script evaluations/lpips.py first, as in its own process."""
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
    """LPIPS's linear layers: the file given, or that in the lpips package."""
    if given and not given.is_file():
        raise ValueError(f"--lpips_weights {given}: no such file")
    return given or Path(import_lpips().__file__).parent / "weights" / "v0.1" / f"{net}.pth"


def find_backbone(net: str, given: Path | None) -> Path:
    """The ImageNet weights given, or those in torch hub's cache, where torchvision keeps them; nothing is fetched."""
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
    """The lpips package's LPIPS v0.1 with these files' weights; neither is fetched nor unpickled."""
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

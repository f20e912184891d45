"""From the command to the network it is a short way: a traceback of sampling shows few frames of this package."""

import sys
from pathlib import Path

import pytest

import stay_diffusion
from stay_diffusion.commands import sample
from stay_diffusion.models.unet import UNet

PACKAGE = str(Path(stay_diffusion.__file__).parent)
MOST = 7  # main() and the network's forward included
TRAIN = "scripts/image_train.py"


@pytest.fixture(scope="module")
def weights(run_script, tiny_data, tiny_network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_script(TRAIN, "--data_dir", tiny_data, "--logdir", folder, *tiny_network, "--max_steps", 1, "--batch_size", 2)
    return folder / "ema_0.9.pt"


def frames_of(function) -> list[str]:
    """The functions of this package on the stack, from main() down to the caller of this one."""
    names, frame = [], sys._getframe(2)
    while frame:
        if frame.f_code.co_filename.startswith(PACKAGE):
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    names.reverse()
    return [*names[names.index("main") :], function]


@pytest.mark.parametrize("words", [[], ["--s", "2"], ["--s", "2", "--guidance_interval", "0.001,1"]], ids=" ".join)
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m", "heun"])
def test_few_frames_lie_between_the_command_and_the_network(weights, monkeypatch, tmp_path, words, sampler):
    seen, forward = [], UNet.forward

    def spy(self, x, timesteps, layout=None):
        seen.append(frames_of("forward"))
        return forward(self, x, timesteps, layout)

    monkeypatch.setattr(UNet, "forward", spy)
    options = ["--num_samples", "1", "--num_steps", "2", "--sampler", sampler, "--device", "cpu", *words]
    command = ["sample", "--model_path", str(weights), "--results_path", str(tmp_path / "out"), *options]
    monkeypatch.setattr(sys, "argv", command)
    assert sample.main() == 0
    assert seen and all(names[0] == "main" and len(names) <= MOST for names in seen), seen[:1]

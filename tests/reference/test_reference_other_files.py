"""The reference tests on a folder of other files than the usual: odd flags, shapes, precisions, and no such folder."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stay_diffusion.data.layout import Layout
from stay_diffusion.models.spade_norm import SemanticConditioning
from stay_diffusion.run import factory
from stay_diffusion.run.import_weights import published_config

HERE = Path(__file__).parent
FILES = [HERE / f"test_reference_{what}.py" for what in ("files", "networks", "diffusion", "isla")]
PYTEST = Path(pytest.__file__).with_name("__main__.py")

SMALL = {"image_size": 16, "num_channels": 32, "num_res_blocks": 1, "num_heads": 2, "attention_resolutions": "8"}
SMALL |= {"channel_mult": "1,2"}
NETWORKS = {
    "heads_of_the_decoder": ("guided", {"channel_mult": "1,2,3", "num_res_blocks": 2, "num_heads_upsample": 1}),
    "attention_everywhere": ("guided", {"attention_resolutions": "16,8", "num_head_channels": 8, "learn_sigma": True}),
    "one_level": ("guided", {"channel_mult": "1", "attention_resolutions": "", "use_scale_shift_norm": False}),
    "added_embedding_and_updown": ("guided", {"use_scale_shift_norm": False, "resblock_updown": True}),
    "widths_by_size": ("guided", {"image_size": 256, "channel_mult": "", "attention_resolutions": "32,8"}),
    "grey_classes": ("guided", {"class_cond": True, "num_classes": 5, "image_channels": 1}),
    "maps": ("sdm", {"num_classes": 3, "use_scale_shift_norm": False, "resblock_updown": True}),
    "grey_maps_without_instances": ("sdm", {"num_classes": 3, "no_instance": True, "image_channels": 1}),
}
NO_FLAGS_THERE = ("image_channels",)
DIFFUSIONS = {
    "small_fixed_grey": ({"steps": 100, "sigma_small": True, "timestep_respacing": "25"}, (1, 4, 6)),
    "kl_of_a_fixed_variance": ({"steps": 60, "noise_schedule": "cosine", "use_kl": True}, (3, 4, 4)),
    "strided": ({"steps": 500, "learn_sigma": True, "timestep_respacing": "ddim50", "predict_xstart": True}, (3, 2, 2)),
    "rescaled": (
        {
            **dict.fromkeys(("learn_sigma", "rescale_timesteps", "rescale_learned_sigmas"), True),
            "steps": 200,
            "timestep_respacing": "40",
        },
        (3, 4, 4),
    ),
}


def their_name(name: str, blocks: set[str]) -> str:
    """SDM's name of a tensor: the modulated norms stand beside the layers that follow them."""
    match = re.fullmatch(r"(.+)\.(in|out)_layers\.(\d+)\.(.+)", name)
    if not match or match[1] not in blocks:
        return name
    block, side, place, rest = match.groups()
    return f"{block}.{side}_norm.{rest}" if place == "0" else f"{block}.{side}_layers.{int(place) - 1}.{rest}"


@torch.no_grad()
def write_network(folder: Path, name: str, kind: str, given: dict) -> None:
    values = {**SMALL, **given}
    config = published_config(kind, values)
    torch.manual_seed(0)
    model = factory.build_model(config).eval()
    for parameter in model.parameters():
        parameter.copy_((parameter + 0.05 * torch.randn_like(parameter)).half())
    height, width = 2 * model.stride, model.stride * (1 if model.stride > 16 else 4)
    numbers = {"x": torch.randn(2, config.model.image_channels, height, width), "t": torch.tensor([3, 700])}
    layout = None
    if kind == "sdm":
        numbers["y"] = torch.randn(2, model.conditioner.channels, height, width)  # any map will do
        layout = SemanticConditioning(numbers["y"])
    elif config.model.class_cond:
        numbers["y"] = torch.tensor([0, 4])
        nothing = torch.zeros(0, 4), torch.zeros(0).long()
        layout = Layout.collate([(*nothing, 1), (*nothing, 5)])
    numbers["out"] = model(numbers["x"], numbers["t"], layout)
    blocks = {key.partition(".in_layers.0.mlp_shared")[0] for key in model.state_dict() if ".in_layers.0.mlp_" in key}
    state = {f"module.{their_name(key, blocks)}": tensor.half() for key, tensor in model.state_dict().items()}
    torch.save(state, folder / f"{name}.pt")
    np.savez(folder / f"{name}.npz", **{key: tensor.numpy() for key, tensor in numbers.items()})
    flags = {key: value for key, value in values.items() if key not in NO_FLAGS_THERE}
    (folder / f"{name}.json").write_text(json.dumps(flags))


def write_diffusion(folder: Path, name: str, flags: dict, shape: tuple) -> None:
    """The formula network's numbers in float64, written down from the papers and not from our code."""
    T, respacing = flags["steps"], flags.get("timestep_respacing", "")
    if flags.get("noise_schedule") == "cosine":
        f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
        abar = np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))
    else:
        abar = np.cumprod(1 - np.linspace(0.1 / T, 20 / T, T))
    kept = np.arange(0, T, T // 50) if respacing == "ddim50" else np.linspace(0, T - 1, int(respacing or T)).round()
    kept = kept.astype(int)
    abar = abar[kept]
    prev = np.append(1, abar[:-1])
    betas, posterior = 1 - abar / prev, (1 - abar / prev) * (1 - prev) / (1 - abar)
    log_posterior = np.log(np.append(posterior[1], posterior[1:]))
    rng, N = np.random.default_rng(0), len(kept)
    t = np.array([1, N // 2, N - 1])
    x0 = rng.uniform(-1, 1, (3, *shape)).astype(np.float32)
    noise, step_noise, start = (rng.standard_normal((3, *shape)).astype(np.float32) for _ in range(3))

    def at(table, steps):
        return table[steps].reshape(-1, 1, 1, 1)

    def network(x, steps):
        told = at(kept * (1000 / T if flags.get("rescale_timesteps") else 1), steps) / 1000
        return 0.6 * x + 0.3 * np.sin(3 * x + 2 * told), 0.8 * np.cos(2 * x) + 0.1 * told

    def clean(x, steps, output):
        a = at(abar, steps)
        return output if flags.get("predict_xstart") else (x - np.sqrt(1 - a) * output) / np.sqrt(a)

    def ddim(x, x_start, steps, eta):
        a, b = at(abar, steps), at(prev, steps)
        eps = (x - np.sqrt(a) * x_start) / np.sqrt(1 - a)
        sigma = eta * np.sqrt((1 - b) / (1 - a) * (1 - a / b))
        return np.sqrt(b) * x_start + np.sqrt(1 - b - sigma**2) * eps + sigma * step_noise

    def kl(mean1, log1, mean2, log2):
        nats = 0.5 * (log2 - log1 - 1 + np.exp(log1 - log2) + (mean1 - mean2) ** 2 * np.exp(-log2))
        return nats.mean(axis=(1, 2, 3)) / math.log(2)

    a, b = at(abar, t), at(prev, t)
    x_t = np.sqrt(a) * x0 + np.sqrt(1 - a) * noise
    output, share = network(x_t, t)
    log_variance = at(log_posterior if flags.get("sigma_small") else np.log(betas), t) + 0 * x_t
    if flags.get("learn_sigma"):
        log_variance = (share + 1) / 2 * at(np.log(betas), t) + (1 - share) / 2 * at(log_posterior, t)
    out = {"betas": betas, "alphas_cumprod": abar, "posterior_variance": posterior, "timestep_map": kept}
    out |= {"x0": x0, "noise": noise, "t": t, "x_t": x_t, "step_noise": step_noise, "loop_start": start}

    def mean_of(x_start):
        return (np.sqrt(b) * at(betas, t) * x_start + np.sqrt(a / b) * (1 - b) * x_t) / (1 - a)

    true, bounds = (mean_of(x0), at(log_posterior, t)), {}
    for clip in (0, 1):
        x_start = clean(x_t, t, output)
        x_start = np.clip(x_start, -1, 1) if clip else x_start
        out |= {f"p_mean_clip{clip}": mean_of(x_start), f"p_pred_xstart_clip{clip}": x_start}
        bounds[clip] = kl(*true, mean_of(x_start), log_variance)
    out |= {"p_log_variance_clip1": log_variance, "p_variance_clip0": np.exp(log_variance), "vb_bpd": bounds[1]}
    out["ancestral"] = mean_of(x_start) + np.exp(0.5 * log_variance) * step_noise
    out |= {f"ddim_eta{eta}": ddim(x_t, x_start, t, eta) for eta in (0.0, 0.3, 0.75)}
    out["prior_bpd"] = kl(np.sqrt(abar[-1]) * x0, np.log(1 - abar[-1]), 0, 0)
    mse = ((output - (x0 if flags.get("predict_xstart") else noise)) ** 2).mean(axis=(1, 2, 3))
    if flags.get("use_kl"):
        out["loss_loss"] = bounds[0] * N
    elif flags.get("learn_sigma"):
        vb = bounds[0] * (N / 1000 if flags.get("rescale_learned_sigmas") else 1)
        out |= {"loss_mse": mse, "loss_vb": vb, "loss_loss": mse + vb}
    x = start.astype(np.float64)
    for i in reversed(range(N)):
        steps = np.full(3, i)
        x = ddim(x, np.clip(clean(x, steps, network(x, steps)[0]), -1, 1), steps, 0)
    out["ddim_loop"] = x
    tables = ("betas", "alphas_cumprod", "posterior_variance", "timestep_map", "t")
    out = {key: value if key in tables else value.astype(np.float32) for key, value in out.items()}
    np.savez(folder / f"{name}.npz", **out)
    (folder / f"{name}.json").write_text(json.dumps(flags))


@pytest.fixture
def reference_tests(run_script):
    """reference_tests(folder, exit code, files) -> what pytest says of the reference tests on that folder."""

    def run(folder: Path, code: int = 0, files: list[Path] = FILES) -> str:
        environment = {"STAY_REFERENCE_DIR": str(folder), "PYTHONPATH": ":".join(sys.path)}
        arguments = ["-rs", "-p", "no:cacheprovider", *files]
        return run_script(PYTEST, *arguments, code=code, environment=environment).output

    return run


def test_files_of_other_flags_shapes_and_precisions_are_understood_and_agree(tmp_path, reference_tests):
    (tmp_path / "more").mkdir()
    for name, (kind, given) in NETWORKS.items():
        write_network(tmp_path, name, kind, given)
    for name, (flags, shape) in DIFFUSIONS.items():
        write_diffusion(tmp_path / "more", name, flags, shape)
    output = reference_tests(tmp_path)
    assert "passed" in output
    reasons = [line for line in output.splitlines() if line.startswith("SKIPPED")]
    assert all("empty parameter set" in line for line in reasons), reasons  # there is no LostGAN file


def test_a_number_that_is_wrong_by_a_thousandth_fails(tmp_path, reference_tests):
    write_diffusion(tmp_path, "wrong", *DIFFUSIONS["small_fixed_grey"])
    with np.load(tmp_path / "wrong.npz") as arrays:
        numbers = dict(arrays)
    numbers["ddim_eta0.3"] = numbers["ddim_eta0.3"] * 1.001
    np.savez(tmp_path / "wrong.npz", **numbers)
    assert "1 failed" in reference_tests(tmp_path, code=1, files=[FILES[2]])


def test_a_file_of_no_known_kind_fails_by_its_name(tmp_path, reference_tests):
    np.savez(tmp_path / "riddle.npz", a=np.zeros(3))
    output = reference_tests(tmp_path, code=1, files=FILES[:1])
    assert "riddle.npz: neither a network, nor a diffusion, nor LostGAN's ISLA" in output and "1 failed" in output


@pytest.mark.parametrize("made", [True, False])
def test_an_empty_or_missing_folder_that_was_asked_for_fails(made, tmp_path, reference_tests):
    folder = tmp_path / "nothing"
    if made:
        folder.mkdir()
    assert "no such folder, or nothing in it" in reference_tests(folder, code=1, files=FILES[:1])

"""Row 4: how much faster an image of the default setting is finished than one of 1,000 ancestral steps.

    python benchmarks/run.py --rows 4

The table of samplers behind the default setting is studies/samplers.py's.
"""

import torch
from measuring import AT_LEAST, Row, in_turn, ratio
from subjects import NETWORKS, SCALE, Sampling, prepared, wait_for

from stay_diffusion.config import SampleConfig
from stay_diffusion.diffusion.gaussian_diffusion import respace
from stay_diffusion.diffusion.samplers import SAMPLERS
from stay_diffusion.system.device import autocast, pick_device

TIMED = 2  # steps of each route


def rows(rounds: int = 3, network: str = "M", num_objects: int = 8, precision: str = "fp32") -> list[Row]:
    """Row 4: seconds of a guided image by 1,000 ancestral steps against the default setting's.

    TIMED steps of each are scaled to all of them; what is worked out before the first step counts in both.
    """
    device = pick_device("")
    subject = Sampling(NETWORKS[network].config(1, precision), device, num_objects)
    steps_of = {"default": SampleConfig.num_steps, "ancestral": subject.diffusion.num_timesteps}
    sampler_of = {"default": SampleConfig.sampler, "ancestral": "ddpm"}
    respacing_of = {"default": f"logsnr{TIMED}", "ancestral": str(TIMED)}
    short = {name: respace(subject.diffusion, respacing) for name, respacing in respacing_of.items()}

    @torch.no_grad()
    def steps(name: str) -> None:
        draw, kwargs = SAMPLERS[sampler_of[name]], {"layout": subject.conditioning}
        with autocast(device, subject.precision):
            draw(short[name], subject.guided, subject.x, lambda: torch.randn_like(subject.x), True, kwargs)
        wait_for(device)

    @torch.no_grad()
    def beforehand() -> None:
        with autocast(device, subject.precision):
            prepared(subject.model, subject.layout, subject.x)
        wait_for(device)

    routes = {"default": lambda: steps("default"), "ancestral": lambda: steps("ancestral"), "beforehand": beforehand}
    seconds = in_turn(routes, rounds)
    whole = {
        name: [before + count * some / TIMED for before, some in zip(seconds["beforehand"], seconds[name], strict=True)]
        for name, count in steps_of.items()
    }
    middle, low, high = ratio(whole["ancestral"], whole["default"])
    count = steps_of["default"]
    protocol = (
        f"network {network} ({NETWORKS[network]}), batch 1, {num_objects} objects, s {SCALE:g}, {precision}, {rounds} "
        f"rounds; {TIMED} steps of each timed, scaled to {count} ({SampleConfig.sampler}, {count} steps even in "
        f"log-SNR) and {steps_of['ancestral']}"
    )
    held = "not compared here: box adherence and FD-own of both are in docs/results.md, Samplers"
    what = "a guided picture, 1,000 ancestral steps over the default setting"
    return [Row("4", what, AT_LEAST, 40, middle, low, high, protocol, held, details={"seconds": seconds})]

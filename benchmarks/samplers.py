"""Which sampler, how many steps? Box adherence and distances to real windows against network calls.

    python benchmarks/samplers.py --model_path RUN/ema_0.998.pt --out OUTPUT/samplers [--data_dir DATA] [--s 1.5]

The validation pictures are halved, as sample_sets.py halves them. Windows of the first half are what all samples are
held against; the layouts of the second half's windows are sampled with every setting, window i from the same noise in
all of them. Windows of the second half themselves are the first row, the best to be had. Class probability and
recognised boxes are what the run's quality gate says (evaluations/recognised.py); FD-own and KID-own are of features
trained on the run's data.

A setting is SAMPLER:RESPACING[:LO,HI], where RESPACING is that of image_sample.py (20: even in time; logsnr20: even
in log-SNR) and LO,HI its --guidance_interval. What an interrupted comparison has made is kept. Prints the protocol, a
table and the knee, and writes OUT/samplers.md and OUT/samplers.json.

`rows` measures how much faster a picture of the default setting is than one of 1,000 ancestral steps.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from measuring import AT_LEAST, Row, in_turn, ratio
from sample_sets import halves, run, write_set
from subjects import NETWORKS, SCALE, Sampling, prepared, wait_for

from stay_diffusion.config import RunConfig, SampleConfig
from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace
from stay_diffusion.diffusion.guidance import classifier_free, within_interval
from stay_diffusion.diffusion.samplers import SAMPLERS
from stay_diffusion.evaluation.comparison import Comparison
from stay_diffusion.evaluation.features.extractor import OFF
from stay_diffusion.evaluation.measure import measure as figures_of
from stay_diffusion.evaluation.options import EvaluateConfig
from stay_diffusion.layouts.items import LayoutItem, from_file
from stay_diffusion.quality.run_gate import NAME as GATE
from stay_diffusion.quality.run_gate import gate_of_run
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import atomic_write, sha256
from stay_diffusion.sampling.batches import make_all
from stay_diffusion.sampling.generate import sampling
from stay_diffusion.sampling.results import ResultsFolder
from stay_diffusion.system.command import run_command
from stay_diffusion.system.device import autocast, pick_device, resolve_precision
from stay_diffusion.system.launchers import ALONE

FIGURES = {"class probability": ("↑", 3), "recognised boxes": ("↑", 3), "FD-own": ("↓", 2), "KID-own": ("↓", 4)}
JUDGED_BY = {"class probability": 1, "KID-own": -1}  # 1 where more is better


@dataclass(frozen=True)
class Setting:
    sampler: str
    respacing: str
    guidance_interval: str = ""

    @classmethod
    def of(cls, word: str) -> "Setting":
        parts = word.split(":")
        if not 2 <= len(parts) <= 3 or parts[0] not in SAMPLERS:
            known = ", ".join(SAMPLERS)
            raise ValueError(f"--settings {word}: expected SAMPLER:RESPACING[:LO,HI] with a sampler of {known}")
        return cls(*parts)

    @property
    def name(self) -> str:
        guided = f"_guided_{self.guidance_interval}" if self.guidance_interval else ""
        return f"{self.sampler}_{self.respacing}{guided}"

    def __str__(self) -> str:
        spacing = "log-SNR" if self.respacing.startswith("logsnr") else "time"
        guided = f", guided in {self.guidance_interval}" if self.guidance_interval else ""
        return f"{self.sampler}, {self.respacing.removeprefix('logsnr')} steps even in {spacing}{guided}"

    def options(self, s: float, precision: str) -> SampleConfig:
        return SampleConfig(
            sampler=self.sampler, guidance_interval=self.guidance_interval, s=s, precision=precision, batch_size=8
        )


SETTINGS = (
    "dpmpp_2m:logsnr5",
    "dpmpp_2m:logsnr10",
    "dpmpp_2m:logsnr20",
    "dpmpp_2m:logsnr40",
    "dpmpp_2m:10",
    "dpmpp_2m:20",
    "ddim:20",
    "ddim:40",
    "heun:logsnr5",
    "heun:logsnr10",
    "ddpm:40",
    "ddpm:100",
    "dpmpp_2m:logsnr20:0.3,1000",
    "dpmpp_2m:logsnr20:0.3,5",
)


@dataclass(frozen=True)
class Measured:
    """A line of the table; `calls` of the network for a picture, which show it `passes` pictures, two where guided."""

    name: str
    calls: int
    passes: int
    figures: dict[str, dict]

    def value(self, figure: str) -> float:
        return self.figures[figure]["value"]


def main() -> int:
    arguments = parse_arguments()
    settings = [Setting.of(word) for word in arguments.settings]
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    given = {"data_dir": str(arguments.data_dir.resolve())} if arguments.data_dir else {}
    config = factory.trained_config(arguments.model_path, given, RunConfig(), "model_path")
    diffusion = factory.build_diffusion(config.diffusion)
    reference, sampled = halves(config)
    if config.data.crop_policy in ("resize", "center"):  # another look at a picture shows the same
        for flag, records in (("num_reference", reference), ("num_samples", sampled)):
            most = min(getattr(arguments, flag), len(records))
            setattr(arguments, flag, most)

    # The sets
    write_set(out / "reference", reference, config, arguments.num_reference)
    write_set(out / "real", sampled, config, arguments.num_samples)
    items = from_file(out / "real/manifest.jsonl", factory.vocabulary_of(config))
    lines = {out / "real": ("real windows", 0, 0)}
    for setting in settings:
        calls, passes = cost(diffusion, setting, arguments.s)
        folder = sample(out / setting.name, items, setting, config, arguments)
        lines[folder] = (str(setting), calls, passes)

    # The figures
    features = out / "features.pt"
    if not features.is_file():
        words = ["--run", arguments.model_path.parent, "--data_dir", config.data.data_dir, "--out", features]
        run("evaluations/train_features.py", *words, "--steps", arguments.feature_steps)
    gate_of_run(config, arguments.model_path.parent)
    found = measure(lines, out / "reference", features, arguments.model_path.parent / GATE)

    # Told
    told = protocol(arguments, config, features, arguments.model_path.parent / GATE)
    best = knee(found[1:])
    text = "".join(f"- {name}: {value}\n" for name, value in told.items())
    ended = f"{best.name}, {best.calls} calls" if best else "none, each setting is beaten in one figure"
    text += f"\n{table(found)}\nknee: {ended}\n"
    print(f"\n{text}", end="")
    report = {"protocol": told, "knee": best and best.name, "settings": [asdict(line) for line in found]}
    for file, content in (("samplers.md", text), ("samplers.json", json.dumps(report, indent=2) + "\n")):
        atomic_write(out / file, lambda opened, content=content: opened.write(content.encode()))
    print(f"written: {out / 'samplers.json'}")
    return 0


def cost(diffusion: GaussianDiffusion, setting: Setting, s: float) -> tuple[int, int]:
    """Calls of the network for a picture, and how many pictures these show it; counted on a network that answers 0."""
    shown: list[int] = []

    def network(x: torch.Tensor, t: torch.Tensor, layout: Sequence) -> torch.Tensor:
        shown.append(len(layout))
        return x.new_zeros(len(layout), (1 + diffusion.learns_variance) * x.shape[1], *x.shape[2:])

    short, levels = respace(diffusion, setting.respacing), setting.options(s, "fp32").guided_levels
    guided, kwargs = classifier_free(network, s, num_channels=1), {"layout": range(1 if s == 1 else 2)}
    if levels and s != 1:
        guided, kwargs = within_interval(guided, network, short, levels), kwargs | {"alone": range(1)}
    x = torch.ones(1, 1, 1, 1)
    SAMPLERS[setting.sampler](short, guided, x, lambda: torch.zeros_like(x), model_kwargs=kwargs)
    return len(shown), sum(shown)


def sample(folder: Path, items: list[LayoutItem], setting: Setting, config: RunConfig, arguments) -> Path:
    """The folder as image_sample.py leaves it, what is there already kept."""
    weights, device = arguments.model_path, pick_device("")
    options = setting.options(arguments.s, resolve_precision(arguments.precision, False, device))
    told = {
        "seed": options.seed,
        "run": 0,
        "s": options.s,
        "sampler": options.sampler,
        "timestep_respacing": setting.respacing,
        "eta": options.eta,
        "clip_denoised": options.clip_denoised,
        "precision": options.precision,
        **({"guidance_interval": setting.guidance_interval} if setting.guidance_interval else {}),
        "image_size": config.model.image_size,
        "checkpoint": str(weights.resolve()),
        "checkpoint_sha256": sha256(weights),
    }
    results = ResultsFolder(folder, factory.vocabulary_of(config))
    done = results.done(items, told)
    if len(done) == len(items):
        return folder
    print(f"{setting}: {len(items) - len(done)} pictures", flush=True)
    results.open()
    model = factory.load_trained(config, weights, device)
    diffusion = respace(factory.build_diffusion(config.diffusion), setting.respacing).to(device)
    shape = (config.model.image_channels, config.model.image_size, config.model.image_size)
    make = sampling(model, diffusion, items, results.vocabulary, shape, options)

    def add(index: int, made) -> None:
        results.add(index, items[index], made.image, told)

    make_all(make, len(items), options.batch_size, add, done)
    results.finish(items, save_npz=False)
    return folder


def measure(lines: dict[Path, tuple], reference: Path, features: Path, gate: Path) -> list[Measured]:
    """All folders against the reference, as evaluate.py does it."""
    names = ("fid", "kid", "recognised")
    options = EvaluateConfig(
        samples=str(next(iter(lines))),
        reference=str(reference),
        features=f"trained:{features}",
        gate=str(gate),
        feature_cache=OFF,
    )
    whole, found = Comparison(options, RunConfig.data, {}, pick_device(""), ALONE), []
    for folder, line in lines.items():
        figures, missing = figures_of(whole.with_samples(str(folder)), names)
        for name, reason in missing.items():
            raise ValueError(f"{folder}: {name}: {reason}")
        named = {figure.name: {"value": figure.value, "spread": figure.spread} for figure in figures}
        found.append(Measured(*line, {name: named[name] for name in FIGURES}))
    return found


def knee(lines: Sequence[Measured]) -> Measured | None:
    """The cheapest setting that no other beats, in any figure of JUDGED_BY, by more than both's standard error.

    None where there is no such setting: what is best in one figure is worse in another.
    """

    def is_beaten(line: Measured) -> bool:
        return any(
            sign * (other.figures[name]["value"] - line.figures[name]["value"])
            > math.hypot(other.figures[name]["spread"], line.figures[name]["spread"])
            for other in lines
            for name, sign in JUDGED_BY.items()
        )

    cheap = sorted(lines, key=lambda line: (line.passes, line.calls))
    return next((line for line in cheap if not is_beaten(line)), None)


def protocol(arguments, config: RunConfig, features: Path, gate: Path) -> dict[str, str]:
    size, channels = config.model.image_size, config.model.image_channels
    return {
        "windows": f"{arguments.num_samples} of {size} x {size} pixels, {channels} channels, in each set",
        "reference": f"{arguments.num_reference} windows of other validation pictures",
        "model": f"{arguments.model_path.name}, sha256 {sha256(arguments.model_path)[:12]}",
        "sampling": f"s {arguments.s:g}, seed {SampleConfig.seed}, {arguments.precision}",
        "features": f"sha256 {sha256(features)[:12]}",
        "gate": f"sha256 {sha256(gate)[:12]}",
        "±": "standard errors: over images, bootstrap (FD-own), jackknife (KID-own)",
        "passes": "how often the network sees a picture: twice in a guided call",
    }


def table(lines: Sequence[Measured]) -> str:
    """Markdown: a row for each setting, a column for each figure."""
    head = ["setting", "calls", "passes", *(f"{name} {arrow}" for name, (arrow, _) in FIGURES.items())]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        counts = [str(line.calls or ""), str(line.passes or "")]
        rows.append([line.name, *counts, *(cell(line.figures[name], d) for name, (_, d) in FIGURES.items())])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def cell(figure: dict, digits: int) -> str:
    spread = "" if figure["spread"] is None else f" ± {figure['spread']:.{digits}f}"
    return f"{figure['value']:.{digits}f}{spread}"


def rows(rounds: int = 3, network: str = "M", num_objects: int = 8, precision: str = "fp32") -> list[Row]:
    """Row 4: seconds of a guided picture by 1,000 ancestral steps against the default setting's.

    Some steps of each are timed and scaled to all of them; what is worked out before the first step counts in both.
    """
    config = NETWORKS[network].config(1, precision)
    device = pick_device("")
    subject = Sampling(config, device, num_objects)
    default = Setting(SampleConfig.sampler, f"logsnr{SampleConfig.num_steps}")
    ancestral = Setting("ddpm", str(subject.diffusion.num_timesteps))
    timed = {default: 2, ancestral: 2}
    short = {
        default: respace(subject.diffusion, f"logsnr{timed[default]}"),
        ancestral: respace(subject.diffusion, str(timed[ancestral])),
    }

    @torch.no_grad()
    def steps(setting: Setting) -> None:
        draw, kwargs = SAMPLERS[setting.sampler], {"layout": subject.conditioning}
        with autocast(device, subject.precision):
            draw(short[setting], subject.guided, subject.x, lambda: torch.randn_like(subject.x), True, kwargs)
        wait_for(device)

    @torch.no_grad()
    def beforehand() -> None:
        with autocast(device, subject.precision):
            prepared(subject.model, subject.layout, subject.x)
        wait_for(device)

    routes = {"default": lambda: steps(default), "ancestral": lambda: steps(ancestral), "beforehand": beforehand}
    seconds = in_turn(routes, rounds)
    calls = {setting: cost(subject.diffusion, setting, SCALE)[0] for setting in timed}
    whole = {
        setting: [
            before + calls[setting] * some / timed[setting]
            for before, some in zip(seconds["beforehand"], seconds[name], strict=True)
        ]
        for name, setting in (("default", default), ("ancestral", ancestral))
    }
    middle, low, high = ratio(whole[ancestral], whole[default])
    protocol = (
        f"network {network} ({NETWORKS[network]}), batch 1, {num_objects} objects, s {SCALE:g}, {precision}, {rounds} "
        f"rounds; {timed[default]} steps of each timed, scaled to {calls[default]} ({default}) and {calls[ancestral]}"
    )
    held = "not compared here: box adherence and FD-own of both are in docs/results.md, Samplers"
    what = "a guided picture, 1,000 ancestral steps over the default setting"
    return [Row("4", what, AT_LEAST, 40, middle, low, high, protocol, held, details={"seconds": seconds})]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model_path", type=Path, required=True, help="weights in a run folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the samples and their figures")
    parser.add_argument("--data_dir", type=Path, help="data set with train and val; by default the run's")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help="SAMPLER:RESPACING[:LO,HI], several")
    parser.add_argument("--num_samples", type=int, default=100, help="layouts")
    parser.add_argument("--num_reference", type=int, default=300, help="real windows that samples are held against")
    parser.add_argument("--s", type=float, default=SCALE, help="guidance")
    parser.add_argument("--precision", default="auto", help="of sampling")
    parser.add_argument("--feature_steps", type=int, default=600, help="of train_features.py")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)

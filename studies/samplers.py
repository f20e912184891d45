"""Which sampler, how many steps? Box adherence and distances to real windows against network calls.

    python studies/samplers.py --model_path RUN/ema_0.998.pt --out OUTPUT/samplers [--data_dir DATA] [--s 1.5]

The validation pictures are halved, as sample_sets.py halves them. Windows of the first half are what all samples are
held against; the layouts of the second half's windows are sampled with every setting, window i from the same noise in
all of them. Windows of the second half themselves are the first row, the best to be had. Class probability and
recognised boxes are what the run's quality gate says (evaluations/recognised.py); FD-own and KID-own are of features
trained on the run's data.

A setting is SAMPLER:RESPACING[:LO,HI], where RESPACING is that of image_sample.py (20: even in time; logsnr20: even
in log-SNR) and LO,HI its --guidance_interval. What an interrupted comparison has made is kept. Prints the protocol, a
table and the knee, and writes OUT/samplers.md and OUT/samplers.json.
"""

import math
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reporting import SCALE, cell, run, write_report
from sampler_settings import SETTINGS, Setting, cost
from windows import halves, write_set

from stay_diffusion.config import RunConfig, SampleConfig
from stay_diffusion.evaluation.comparison import Comparison
from stay_diffusion.evaluation.features.extractor import OFF
from stay_diffusion.evaluation.measure import measure as figures_of
from stay_diffusion.evaluation.options import EvaluateConfig
from stay_diffusion.quality.run_gate import NAME as GATE
from stay_diffusion.quality.run_gate import gate_of_run
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import sha256
from stay_diffusion.system.command import argument_parser, run_command
from stay_diffusion.system.device import pick_device
from stay_diffusion.system.launchers import ALONE
from stay_diffusion.system.tables import markdown_table

FIGURES = {"class probability": ("↑", 3), "recognised boxes": ("↑", 3), "FD-own": ("↓", 2), "KID-own": ("↓", 4)}
JUDGED_BY = {"class probability": 1, "KID-own": -1}  # 1 where more is better


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
    lines = {out / "real": ("real windows", 0, 0)}
    for setting in settings:
        calls, passes = cost(diffusion, setting, arguments.s)
        folder = sample(out / setting.name, setting, arguments)
        lines[folder] = (str(setting), calls, passes)

    # The figures
    features, gate = out / "features.pt", arguments.model_path.parent / GATE
    if not features.is_file():
        words = ["--run", arguments.model_path.parent, "--data_dir", config.data.data_dir, "--out", features]
        run("features", *words, "--steps", arguments.feature_steps)
    gate_of_run(config, arguments.model_path.parent)
    found = measure(lines, out / "reference", features, gate)
    best = knee(found[1:])
    ended = f"{best.name}, {best.calls} calls" if best else "none, each setting is beaten in one figure"
    report = {"knee": best and best.name, "settings": [asdict(line) for line in found]}
    results = f"{table(found)}\nknee: {ended}\n"
    write_report(out, "samplers", protocol(arguments, config, features, gate), results, report)
    return 0


def sample(folder: Path, setting: Setting, arguments: Namespace) -> Path:
    """Sample the layouts of the real windows; existing samples are kept."""
    missing = arguments.num_samples - len(list(folder.glob("samples/*.png")))
    if missing:
        print(f"{setting}: {missing} pictures", flush=True)
    layouts = ["--layouts", folder.parent / "real/manifest.jsonl", "--results_path", folder, "--batch_size", 8]
    sampling = ["--s", arguments.s, "--precision", arguments.precision, *setting.flags()]
    run("sample", "--model_path", arguments.model_path, *layouts, *sampling)
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
    """Return a Markdown table: a row for each setting, a column for each figure."""
    rows = [
        [
            line.name,
            str(line.calls or ""),
            str(line.passes or ""),
            *(cell(line.figures[name], digits) for name, (_, digits) in FIGURES.items()),
        ]
        for line in lines
    ]
    head = ["setting", "calls", "passes", *(f"{name} {arrow}" for name, (arrow, _) in FIGURES.items())]
    return markdown_table(head, rows)


def parse_arguments() -> Namespace:
    parser = argument_parser(__doc__)
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

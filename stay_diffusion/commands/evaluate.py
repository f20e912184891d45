"""Measure generated images: many metrics, one JSON, one Markdown table, each figure with what it depends on.

python evaluations/evaluate.py --samples GENERATED --reference REAL --metrics fid,kid,prdc --json OUT.json

Several processes (mpiexec, torchrun, srun) share the images. Ends with 0 where every metric was computed, with 3 where
some could not be, for want of weights say: the others stand.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.flags import dump, parse
from ..evaluation.options import EvaluateConfig, EvaluateRun
from ..evaluation.registry import resolve_names
from ..system.distributed import join, start_group

if TYPE_CHECKING:
    from ..evaluation.comparison import Comparison
    from ..evaluation.figures import Figure

INCOMPLETE = 3  # exit code


def main() -> int:
    run, given, switches = parse(EvaluateRun, __doc__.partition("\n")[0])
    run = replace(run, evaluate=resolve_options(run.evaluate))
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    comparison = open_comparison(run, given)
    if switches["dry_run"]:
        print(json.dumps({"metrics": run.evaluate.metrics, **comparison.facts()}, indent=2))
        return 0

    from ..evaluation.measure import measure

    figures, missing = measure(comparison, run.evaluate.metrics)
    if comparison.world.is_main:
        report(comparison, figures, missing)
    return INCOMPLETE if missing else 0


def resolve_options(options: EvaluateConfig) -> EvaluateConfig:
    """Add the metrics and modes of a protocol; ValueError for options that contradict one another."""
    from ..evaluation.protocols import PROTOCOLS

    protocol = PROTOCOLS.get(options.protocol)
    metrics = options.metrics or (protocol.metrics if protocol else ("fid", "kid", "prdc"))
    metrics = resolve_names(metrics, "metrics")
    if not options.samples:
        raise ValueError("--samples: needed, the generated images")
    if options.compat and options.image_size:
        raise ValueError(f"--image_size {options.image_size}: --compat {options.compat} has its own size")
    for flag, file in (("json", options.json), ("markdown", options.markdown)):
        if file and not Path(file).resolve().parent.is_dir():
            raise ValueError(f"--{flag} {file}: no such folder")
    if protocol and protocol.lpips_compat:
        options = replace(options, lpips_compat=protocol.lpips_compat)
    return replace(options, metrics=metrics)


def open_comparison(run: EvaluateRun, given: dict) -> "Comparison":
    """Join the other processes and open both sides; ValueError where they are not those of --protocol."""
    # Imported only now, so that --help and mistyped flags answer at once.
    import torch

    from ..evaluation import protocols
    from ..evaluation.comparison import Comparison
    from ..system.device import pick_device

    options = run.evaluate
    world = join(options.dist_timeout)
    device = pick_device(options.device, world)
    start_group(world, torch.device("cpu"), options.dist_timeout)  # features meet in the processes' own memory
    torch.backends.cudnn.allow_tf32 = False  # its 10 bits of mantissa would show in the numbers
    comparison = Comparison(options, run.data, given, device, world)
    if options.protocol:
        protocols.check(comparison)
    return comparison


def report(comparison: "Comparison", figures: Sequence["Figure"], missing: dict[str, str]) -> None:
    """Print the figures as a table, and write the files asked for."""
    from ..evaluation.figures import add_versions, as_json, as_markdown
    from ..evaluation.measure import warn_of_identical
    from ..run.checkpoint import write_text

    options = comparison.options
    common = {
        "not_computed": missing,
        "warnings": comparison.warnings() + warn_of_identical(figures),
        "protocol": options.protocol or None,
    }
    figures = add_versions(figures)
    table = as_markdown(figures, common)
    if figures:
        print(table, end="")
    for name, reason in missing.items():
        print(f"not computed: {name}: {reason}", file=sys.stderr)
    text = json.dumps(as_json(figures, common), indent=2) + "\n"
    for out, content in ((options.json, text), (options.markdown, table)):
        if out:
            write_text(Path(out), content)
            print(f"written: {Path(out).resolve()}")

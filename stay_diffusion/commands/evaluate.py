"""Measure generated images: many metrics, one JSON, one Markdown table, each figure with what it depends on.

python evaluations/evaluate.py --samples GENERATED --reference REAL --metrics fid,kid,prdc --json OUT.json

Several processes (mpiexec, torchrun, srun) share the images. Ends with 0 where every metric was computed, with 3 where
some could not be, for want of weights say: the others stand.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from ..config.flags import dump, parse
from ..evaluation.options import KNOWN, EvaluateConfig, EvaluateRun
from ..system.distributed import join, start_group

INCOMPLETE = 3  # exit code


def main() -> int:
    run, given, switches = parse(EvaluateRun, __doc__.partition("\n")[0])
    run = replace(run, evaluate=settled(run.evaluate))
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    options = run.evaluate
    world = join(options.dist_timeout)

    # Imported only now, so that --help and mistyped flags answer at once.
    import torch

    from ..evaluation.comparison import Comparison, versions
    from ..evaluation.figures import as_json, as_markdown
    from ..evaluation.measure import check_protocol, measure, zero_diversity
    from ..run.checkpoint import atomic_write
    from ..system.device import pick_device

    # What there is to compare
    device = pick_device(options.device, world)
    start_group(world, torch.device("cpu"), options.dist_timeout)  # features meet in the processes' own memory
    torch.backends.cudnn.allow_tf32 = False  # its 10 bits of mantissa would show in the numbers
    comparison = Comparison(options, run.data, given, device, world)
    if options.protocol:
        check_protocol(comparison)
    if switches["dry_run"]:
        print(json.dumps({"metrics": options.metrics, **comparison.facts()}, indent=2))
        return 0

    # The figures
    figures, missing = measure(comparison, options.metrics)
    if not world.is_main:
        return INCOMPLETE if missing else 0
    common = {
        "not_computed": missing,
        "warnings": comparison.warnings() + zero_diversity(figures),
        "protocol": options.protocol or None,
    }
    figures = [replace(figure, protocol=figure.protocol | {"versions": versions()}) for figure in figures]

    # Told
    if figures:
        print(as_markdown(figures, common), end="")
    for name, reason in missing.items():
        print(f"not computed: {name}: {reason}", file=sys.stderr)
    for file, text in (
        (options.json, json.dumps(as_json(figures, common), indent=2) + "\n"),
        (options.markdown, as_markdown(figures, common)),
    ):
        if file:
            atomic_write(Path(file), lambda opened, text=text: opened.write(text.encode()))
            print(f"written: {Path(file).resolve()}")
    return INCOMPLETE if missing else 0


def settled(options: EvaluateConfig) -> EvaluateConfig:
    """The options with the metrics and modes that a protocol brings; ValueError for what cannot be."""
    from ..evaluation.protocols import PROTOCOLS

    protocol = PROTOCOLS.get(options.protocol)
    metrics = options.metrics or (protocol.metrics if protocol else ("fid", "kid", "prdc"))
    for name in metrics:
        if name not in KNOWN:
            raise ValueError(f"--metrics {name}: choose from {', '.join(KNOWN)}")
    if not options.samples:
        raise ValueError("--samples: needed, the generated images")
    if options.compat and options.image_size:
        raise ValueError(f"--image_size {options.image_size}: --compat {options.compat} has its own size")
    for flag, file in (("json", options.json), ("markdown", options.markdown)):
        if file and not Path(file).resolve().parent.is_dir():
            raise ValueError(f"--{flag} {file}: no such folder")
    if protocol and protocol.lpips_compat:
        options = replace(options, lpips_compat=protocol.lpips_compat)
    return replace(options, metrics=tuple(dict.fromkeys(metrics)))

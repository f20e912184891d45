"""A model card as Markdown, section by section: facts of the run, and what follows from them."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from ...config import RunConfig
from .data_section import data_limits, data_section
from .figure_files import ARROWS, FigureFile
from .run_facts import RunFacts

UNKNOWN = "not known: the run does not record it"


def page_of(facts: RunFacts, files: Sequence[FigureFile], preview: Path | None, folder: Path) -> str:
    """The whole card, which will lie in `folder`: links are relative to it."""
    sections = {
        "What it is": what_it_is(facts),
        "How to sample": how_to_sample(facts),
        "Training data": data_section(facts.statistics),
        "Training": training(facts),
        "Figures": figures(facts, files),
        "Samples": samples(preview, folder),
        "Use and limits": limits(facts, files),
        "Files": weights(facts),
    }
    parts = [front_matter(facts.config), f"# {name_of(facts)}"]
    parts += [f"## {title}\n\n" + "\n".join(lines) for title, lines in sections.items()]
    return "\n\n".join(parts) + "\n"


def name_of(facts: RunFacts) -> str:
    """Of the folder: where it lies is nobody else's concern."""
    return facts.folder.resolve().name


def front_matter(config: RunConfig) -> str:
    """What model hubs read."""
    tags = ["layout-to-image" if config.model.layout_kind else "image-generation", "diffusion"]
    values = {"library_name": "stay_diffusion", "tags": [*tags, f"conditioning:{config.model.conditioning}"]}
    return "---\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True) + "---"


def what_it_is(facts: RunFacts) -> list[str]:
    model, diffusion, data = facts.config.model, facts.config.diffusion, facts.config.data
    takes = {"boxes": "layouts of boxes", "map": "label maps"}.get(model.layout_kind, "no layout")
    steps = f"{diffusion.diffusion_steps:,} steps, noise schedule {diffusion.noise_schedule}, "
    lines = [
        f"- a diffusion model of {pictures(facts.config)} from {takes} (`--conditioning {model.conditioning}`)",
        f"- classes: {', '.join(data.classes) or 'none'}",
        f"- products: {', '.join(data.product_tags) or 'none'}",
    ]
    if facts.weights:
        lines.append(f"- network: {facts.weights[0].numbers / 1e6:.2f} million weights, {model.num_channels} channels")
    lines.append(f"- diffusion: {steps}the network predicts {diffusion.predicted}")
    return lines


def pictures(config: RunConfig) -> str:
    size = config.model.image_size
    return f"{'grey' if config.model.image_channels == 1 else 'colour'} pictures of {size} x {size} pixels"


def how_to_sample(facts: RunFacts) -> list[str]:
    config = facts.config
    if not facts.weights:
        return ["Not yet: the run folder holds no weights."]
    words = ["--model_path", shlex.quote(f"{name_of(facts)}/{facts.weights[0].name}"), "--results_path OUTPUT/samples"]
    if facts.statistics is not None and config.model.layout_kind == "boxes":
        words.append("--layouts sampled")
    words.append("--num_samples 100")
    if config.train.drop_rate and config.model.class_cond:
        words.append("--s 1.5")
    layouts = "`--layouts FILE` takes others" if config.model.layout_kind == "boxes" else "the data must be there"
    return ["```", f"python scripts/image_sample.py {' '.join(words)}", "```", "", f"Layouts: {layouts}."]


def training(facts: RunFacts) -> list[str]:
    train, data = facts.config.train, facts.config.data
    step = int(facts.rows[-1]["step"]) if facts.rows else (facts.state or {}).get("step")
    state = facts.state or {}
    ranks = state.get("world_size")
    lines = [f"- steps: {step:,}" if step else "- steps: not known: neither progress.csv nor a checkpoint"]
    if train.last_step and step and step < train.last_step:
        lines[0] += f" of {train.last_step:,}: not finished"
    shared = f" on each of {ranks} processes" if ranks and ranks > 1 else "" if ranks else " on each process"
    lines.append(f"- pictures a step: {train.batch_size}{shared}")
    seconds = list(facts.column("seconds_per_step").values())
    if seconds and step:
        hours = step * seconds[-1] / 3600
        lines.append(f"- time: about {hours:.3g} hours, {seconds[-1]:.3g} s a step (the mean since it last started)")
    else:
        lines.append("- time: not known: no progress.csv")
    for name, told in (("loss", "training loss"), ("val_loss", "validation loss")):
        values = facts.column(name)
        if not values:
            lines.append(f"- {told}: not known: not in progress.csv")
            continue
        best = min(values, key=values.get)
        lowest = f", lowest {values[best]:.4g} at step {best:,}" if name == "val_loss" else ""
        lines.append(f"- {told}: {values[max(values)]:.4g} at step {max(values):,}{lowest}")
    precision = "fp16" if train.use_fp16 else train.precision
    lines += [
        f"- precision: {precision}{' (bf16 where the GPU has it, else fp32)' if precision == 'auto' else ''}",
        f"- AdamW, learning rate {train.lr:g}"
        + (f" falling to 0 over {train.lr_anneal_steps:,} steps" if train.lr_anneal_steps else ""),
        f"- averages of the weights: rates {', '.join(train.ema_rates)}",
        f"- layouts left out for guidance: {train.drop_rate:.0%}",
        f"- seed: {train.seed}",
        f"- crops: {data.crop_policy}; mirrored at random: {'yes' if data.random_flip else 'no'}",
        f"- data: {Path(data.data_dir).name or 'not named'}, read as {data.dataset_mode}",
    ]
    start = train.finetune_from or train.resume_checkpoint
    lines.append(f"- started from: {handed_on(start) if start else 'scratch'}")
    versions = state.get("versions")
    known = ", ".join(f"{name} {version}" for name, version in versions.items()) if versions else UNKNOWN
    lines += [f"- versions: {known}", f"- commit of the code: {UNKNOWN}"]
    return lines


def figures(facts: RunFacts, files: Sequence[FigureFile]) -> list[str]:
    if not files:
        out = shlex.quote(f"{name_of(facts)}/figures.json")
        return [
            "None: nothing was measured, or its files are not here: `--figures FILE` names them. To measure:",
            "",
            "```",
            f"python evaluations/evaluate.py --samples RESULTS --reference val --json {out}",
            "```",
        ]
    lines = []
    for file in files:
        lines += [f"`{relative(file.path, facts.folder)}`", "", "| figure | | value | ± |", "|---|---|---|---|"]
        for each in file.figures:
            value = f"{each.value:.4g}" + (f" ± {each.spread:.2g}" if each.spread is not None else "")
            lines.append(f"| {each.name} | {ARROWS.get(each.better, '')} | {value} | {each.spread_of} |")
        lines += ["", *protocol_of(file), ""]
    return lines[:-1]


def protocol_of(file: FigureFile) -> list[str]:
    """A line for each fact, with the figures that it is of where it is not of all."""
    said: dict[tuple[str, str], list[str]] = {}
    for each in file.figures:
        for name, value in each.protocol.items():
            if value is not None:
                said.setdefault((name, handed_on(value)), []).append(each.name)
    return [
        f"- {name}: {value}" + ("" if len(of) == len(file.figures) else f" ({', '.join(of)})")
        for (name, value), of in said.items()
    ]


def handed_on(value) -> str:
    """As a card tells it that leaves this machine: of paths the last part alone."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {handed_on(inner)}" for name, inner in value.items())
    text = str(value)
    return os.path.basename(text.rstrip("/")) if text.startswith("/") else text


def samples(preview: Path | None, folder: Path) -> list[str]:
    if preview is None:
        return ["No preview: `--preview FILE` names one."]
    link = os.path.relpath(preview.resolve(), folder.resolve()).replace(" ", "%20")
    return [f"![samples]({link})"]


def limits(facts: RunFacts, files: Sequence[FigureFile]) -> list[str]:
    config = facts.config
    found = [f"Made for pictures like the training data's: {pictures(config)}."]
    if config.model.layout_kind:
        found.append("No other classes than those above can be asked for.")
    if not config.train.drop_rate or not config.model.class_cond:
        found.append("Not trained for guidance: `--s` must stay 1.")
    found += data_limits(facts.statistics) if config.model.layout_kind == "boxes" else []
    if not files:
        found.append("How good its pictures are has not been measured, as far as this folder says.")
    return [f"- {line}" for line in found]


def weights(facts: RunFacts) -> list[str]:
    if not facts.weights:
        return ["No weights in the folder."]
    lines = ["| file | bytes | sha256 |", "|---|---|---|"]
    lines += [f"| {each.name} | {each.size:,} | {each.sha256} |" for each in facts.weights]
    if facts.weights[0].name.endswith("_best.pt"):
        lines += ["", f"The first is the best average {best_by(facts.state)}."]
    return lines


def best_by(state: dict | None) -> str:
    best = (state or {}).get("best")
    if not best:
        return "by validation loss" if "best_val_loss" in (state or {}) else "so far; by what is not known"
    (by, (value, step)), *_ = best.items()
    named = "the validation loss" if by == "val_loss" else by.rpartition(" ")[0]
    return f"by {named}, {value:.4g} at step {step:,}"


def relative(path: Path, folder: Path) -> str:
    """As seen from the run folder; of a file elsewhere the name."""
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name

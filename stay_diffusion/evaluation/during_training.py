"""evaluate.py's figures of a model in training (--eval_interval), always of the same layouts and seeds."""

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..config import RunConfig, SampleConfig, flags
from ..data.images import to_pil
from ..data.samples import LayoutDataset
from ..diffusion.gaussian_diffusion import respace
from ..layouts.items import choose, from_dataset
from ..run import factory
from ..run.checkpoint import RunFolder, point, save_tensors, write_text
from ..run.logger import Logger, duration
from ..sampling.batches import Made, Make, make_all
from ..sampling.generate import TrainedModel, make_images
from ..sampling.options import settings_of
from ..sampling.results import ResultsFolder
from ..system.device import resolve_precision
from ..system.distributed import gather, wait_for_all
from ..system.launchers import ALONE, World
from ..training.best import Best
from ..training.state import TrainingState
from .comparison import Comparison
from .figures import Figure, add_versions, as_json
from .measure import find_missing, load_metric, measure
from .options import EvaluateConfig, EvaluateRun
from .registry import OLD_NAMES, resolve_names

FOLDER, FIGURES, STAND_INS = "evaluations", "figures.json", "check"
SHARES = 8  # batches are cut the same for any number of processes: so many can take part, with few layouts too

logger = logging.getLogger("stay_diffusion")


class Evaluation:
    """Samples RUN/evaluations/NNNNNN, writes figures.json there, logs each figure by its name; keeps ema_RATE_best.pt.

    The weights of a folder are RUN/ema_RATE_NNNNNN_evaluated.pt. Of earlier ones only those of the best stay.
    """

    def __init__(
        self, dataset: LayoutDataset, config: RunConfig, folder: RunFolder, device: torch.device, world: World = ALONE
    ):
        train, model = config.train, config.model
        self.config, self.folder, self.device, self.world = config, folder, device, world
        self.names = in_order(train.eval_metrics, train.kept_by)
        self.keeps_best = OLD_NAMES.get(train.kept_by, train.kept_by) in self.names
        self.items, self.dataset, self.vocabulary = choose(from_dataset(dataset), 0), dataset, dataset.vocabulary
        self.shape = (model.image_channels, model.image_size, model.image_size)
        self.sample = SampleConfig(
            s=train.eval_s,
            precision=train.precision,
            use_fp16=train.use_fp16,
            batch_size=min(SampleConfig.batch_size, max(1, len(self.items) // SHARES)),
        )
        steps = min(SampleConfig.num_steps, config.diffusion.diffusion_steps)
        self.respacing = config.diffusion.timestep_respacing or f"logsnr{steps}"
        self.diffusion = respace(factory.build_diffusion(config.diffusion), self.respacing).to(device)
        self.reference: Comparison | None = None  # to which samples are put, once `check` has opened it

    def check(self, state: TrainingState) -> None:
        """Opens the reference and finds its features; ValueError for a metric that cannot be had.

        Real pictures of the same layouts stand in for the samples.
        """
        train = self.config.train
        with undisturbed(self.device):
            stand_ins, _ = self._results(state, STAND_INS, self._real)
            options = replace(
                given_options(train.eval_config),
                samples=str(stand_ins),
                reference=train.eval_reference,
                metrics=self.names,
                features=train.eval_features,
            )
            with full_precision():
                self.reference = Comparison(options, self.config.data, {}, self.device, self.world)
                # Those of features of whole images are soon had, with the reference's features; others may take long.
                quick = [name for name in self.names if load_metric(name).kinds]
                missing = measure(self.reference, quick)[1] | find_missing(self.reference, self.names)
        missing = {name: why for found in gather(missing) for name, why in found.items()}
        if self.world.is_main:
            self._forget(STAND_INS)
        for name, why in missing.items():
            asked = f"--eval_metrics {name} with --eval_features {train.eval_features}"
            raise ValueError(f"{asked}: evaluate.py would say: {why}")
        wait_for_all("evaluation checked")

    def __call__(self, state: TrainingState, log: Logger) -> None:
        began, name = time.perf_counter(), f"{state.step:06d}"
        with undisturbed(self.device):
            results, settings = self._results(state, name, self._made(state))
            with full_precision():
                assert self.reference
                comparison = self.reference.with_samples(str(results))
                figures, missing = measure(comparison, self.names)
        wait_for_all(f"evaluation {name} measured")
        figures, missing = gather((figures, missing))[0]

        for figure in figures:
            log.set(figure.name, figure.value)
        if self.world.is_main:
            facts = {"step": state.step, "sampling": settings}
            common = {"not_computed": missing, "warnings": comparison.warnings(), **facts}
            text = json.dumps(as_json(add_versions(figures), common), indent=2) + "\n"
            write_text(results / FIGURES, text)
        for metric, why in missing.items():
            logger.warning("step %d, not computed: %s: %s", state.step, metric, why)
        best = self._note_best(state, figures, missing)
        values = ", ".join(f"{figure.name} {figure.text}" for figure in figures) or "no figure"
        taken = duration(time.perf_counter() - began)
        log.line(f"step {state.step}: {len(self.items)} layouts sampled: {values}{best}  {taken}")

        if self.world.is_main:
            ours = {path.name for path in results.parent.iterdir() if is_evaluation(path)}  # the rest is the user's
            self._forget(*(ours - {name, f"{state.best.step:06d}"}))

    def _note_best(self, state: TrainingState, figures: Sequence[Figure], missing: dict) -> str:
        """The first figure of the first metric decides; says so where it is the best so far."""
        if not self.keeps_best or self.names[0] in missing:
            return ""
        figure, train = figures[0], self.config.train
        if not figure.better:
            logger.warning("--best_by %s: no value of %s is better than another", self.names[0], figure.name)
            return ""
        # What must be the same for two values to compare
        assert self.reference
        others = replace(self.reference.options, samples="", metrics=(), features="")
        same = (len(self.items), train.eval_s, others, figure.protocol.get("weights_sha256"))
        by = f"{figure.name} {hashlib.sha256(repr(same).encode()).hexdigest()[:12]}"
        if not state.best.is_beaten(by, figure.value, figure.better):
            return ""
        state.best = Best(by, figure.value, state.step)
        if self.world.is_main:
            point(self.folder.path / f"{state.emas[0].name}_best.pt", self._weights(state, f"{state.step:06d}"))
        return f" (the best {figure.name} so far)"

    def _results(self, state: TrainingState, name: str, make: Make) -> tuple[Path, dict]:
        """A folder as image_sample.py leaves it, of what `make` makes, and its settings; the processes share it."""
        weights, path = self._weights(state, name), self.folder.path / FOLDER / name
        digest = ""
        if self.world.is_main:
            digest = save_tensors(weights, state.emas[0].model.state_dict())
            shutil.rmtree(path, ignore_errors=True)  # of a run that was stopped here
            for part in ("samples", "images", "labels"):
                (path / part).mkdir(parents=True)
        digest = wait_for_all(f"evaluation {name} opened", digest)[0]
        settings = self._settings(weights, digest)
        results = ResultsFolder(path, self.vocabulary, self.world.rank)

        def add(index: int, made: Made) -> None:
            results.add(index, self.items[index], made.image, settings)

        make_all(make, len(self.items), self.sample.batch_size, add, world=self.world, in_logs=False)
        wait_for_all(f"evaluation {name} made")
        if self.world.is_main:
            results.finish(self.items, save_npz=False)
        wait_for_all(f"evaluation {name} finished")
        return path, settings

    def _made(self, state: TrainingState) -> Make:
        model = TrainedModel(state.emas[0].model, self.diffusion, self.shape, self.sample)
        return partial(make_images, model, self.items, self.vocabulary, 0, False)

    def _real(self, indices: Sequence[int], _: int) -> list[Made]:
        return [Made(to_pil(self.dataset.sample(i, epoch=0).image)) for i in indices]

    def _settings(self, weights: Path, digest: str) -> dict:
        precision = resolve_precision(self.sample.precision, self.sample.use_fp16, self.device)
        size = self.config.model.image_size
        return settings_of(self.sample, self.respacing, precision, size, weights, digest)

    def _weights(self, state: TrainingState, name: str) -> Path:
        return self.folder.path / f"{state.emas[0].name}_{name}_evaluated.pt"

    def _forget(self, *names: str) -> None:
        for name in names:
            shutil.rmtree(self.folder.path / FOLDER / name)
            for weights in self.folder.path.glob(f"ema_*_{name}_evaluated.pt"):
                weights.unlink()


def is_evaluation(folder: Path) -> bool:
    """Whether a folder is that of a step, or of the stand-ins."""
    return folder.is_dir() and (folder.name == STAND_INS or (len(folder.name) >= 6 and folder.name.isdecimal()))


def in_order(metrics: Iterable[str], first: str) -> tuple[str, ...]:
    """Return the metrics once each, the one that the best weights are kept by first; ValueError for an unknown one."""
    return tuple(sorted(resolve_names(metrics, "eval_metrics"), key=lambda name: name != OLD_NAMES.get(first, first)))


def with_whole_paths(config: RunConfig) -> RunConfig:
    """The configuration whose files are found from any folder; ValueError where they are not what they should be."""
    train = config.train
    kind, colon, file = train.eval_features.partition(":")
    if (kind, colon) not in (("inception", ""), ("trained", ":")):
        raise ValueError(f"--eval_features {train.eval_features}: choose inception or trained:FILE")
    if colon and not Path(file).is_file():
        raise ValueError(f"--eval_features {train.eval_features}: no such file (train_features.py makes it)")
    given_options(train.eval_config)
    features = f"trained:{Path(file).resolve()}" if colon else kind
    options = str(Path(train.eval_config).resolve()) if train.eval_config else ""
    return replace(config, train=replace(train, eval_features=features, eval_config=options))


def given_options(file: str) -> EvaluateConfig:
    """evaluate.py's options as --eval_config has them; no bootstrap by default: nobody waits for what is not logged."""
    values = {"bootstrap": 0, **(flags.read_json(Path(file)) if file else {})}
    return flags.unflatten(EvaluateRun, values, file).evaluate


@contextlib.contextmanager
def undisturbed(device: torch.device):
    """What is drawn here, training does not notice."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


@contextlib.contextmanager
def full_precision():
    """Convolutions with all bits of their mantissa, as evaluate.py has them; training has its own again afterwards."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before

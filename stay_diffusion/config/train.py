"""Training of a network."""

from dataclasses import dataclass

from .option import numbers, option
from .shared import Precision, Processes


@dataclass(frozen=True)
class TrainConfig(Precision, Processes):
    logdir: str = option("", "run folder; empty: $OPENAI_LOGDIR, else OUTPUT/stay_diffusion")
    is_train: bool = option(True, "False: train on the validation split", compat=True)
    resume_checkpoint: str = option(
        "", "weights to start from, with their classes (a run continues by the same command)"
    )
    finetune_from: str = option(
        "",
        "run folder (its averages, the best if kept) or weights to start from, for data with new classes or products",
    )
    freeze: str = option(
        "none",
        "weights that a fine-tune leaves as they are: the encoder's with the timestep's, or all but codes, masks and "
        "the norms' projections",
        ("none", "encoder", "all_but_conditioning"),
    )
    max_steps: int = option(0, "stop after this many steps; 0: lr_anneal_steps, or for ever", least=0)
    batch_size: int = option(1, "images per step and rank", least=1)
    microbatch: int = option(-1, "images per forward pass; -1: batch_size", least=-1)
    lr: float = option(1e-4, "learning rate of AdamW", least=0)
    lr_anneal_steps: int = option(0, "lower the learning rate linearly to 0 over this many steps; 0: constant", least=0)
    weight_decay: float = option(0.0, "weight decay of AdamW", least=0)
    grad_clip: float = option(1.0, "largest norm of the gradient; 0: no clipping", least=0)
    ema_rate: str = option("0.9999", "decay of the averaged weights; several: 0.999,0.9999")
    drop_rate: float = option(0.0, "share of layouts replaced by no condition, for guidance", least=0, most=1)
    schedule_sampler: str = option("uniform", "which t to train on", ("uniform", "loss-second-moment"))
    compile: bool = option(
        False, "torch.compile the network, for minutes at its first steps: for long runs on a GPU; if it cannot, go on"
    )
    seed: int = option(0, "of weights, data order, noise", least=0, most=2**63 - 1)
    log_interval: int = option(10, "steps between log lines", least=1)
    save_interval: int = option(10000, "steps between checkpoints", least=1)
    keep_checkpoints: int = option(3, "how many checkpoints to keep; 0: all", least=0)
    val_interval: int = option(1000, "steps between validation losses; 0: never", least=0)
    val_images: int = option(64, "validation images, with fixed noise; fewer if there are fewer", least=1)
    preview_interval: int = option(1000, "steps between preview grids; 0: never", least=0)
    preview_images: int = option(8, "layouts of a preview grid", least=1)
    eval_interval: int = option(0, "steps between evaluations of what the averaged weights sample; 0: never", least=0)
    eval_metrics: tuple = option(("kid",), "metrics of evaluations/evaluate.py, such as kid,prdc")
    eval_features: str = option("inception", "their features: inception, or trained:FILE of train_features.py")
    eval_config: str = option("", "evaluate.py's other options by name, a JSON file as its --config takes it")
    eval_reference: str = option("val", "real pictures to compare with, as the model sees them", ("val", "train"))
    eval_images: int = option(64, "validation layouts, with a fixed seed; fewer if there are fewer", least=2)
    eval_s: float = option(1.0, "guidance scale of these samples")
    best_by: str = option(
        "",
        "what ema_RATE_best.pt is the best by: val_loss, or one of --eval_metrics by its first figure; empty: with "
        "--eval_interval the first of these, else val_loss",
    )
    shard_optimizer: bool = option(False, "several processes: each keeps a share of AdamW's moments")
    max_bad_steps: int = option(20, "stop after this many steps in a row without a finite gradient", least=1)

    @property
    def ema_rates(self) -> tuple[str, ...]:
        rates = numbers("ema_rate", self.ema_rate, float)
        if not rates:
            raise ValueError("--ema_rate: needs at least one rate, such as 0.9999")
        for rate in rates:
            if not 0 <= rate < 1:
                raise ValueError(f"--ema_rate {self.ema_rate}: rates lie in [0, 1)")
        return tuple(rate.strip() for rate in self.ema_rate.split(",") if rate.strip())

    @property
    def kept_by(self) -> str:
        """The name that the best weights are kept by: val_loss, or one of the metrics of --eval_interval."""
        known = ("val_loss", *self.eval_metrics) if self.eval_interval else ("val_loss",)
        if self.best_by and self.best_by not in known:
            more = "" if self.eval_interval else " (--eval_interval brings those of --eval_metrics)"
            raise ValueError(f"--best_by {self.best_by}: choose from {', '.join(known)}{more}")
        if self.eval_interval and not self.eval_metrics:
            raise ValueError("--eval_metrics: needs at least one, such as kid")
        return self.best_by or known[1 if self.eval_interval else 0]

    @property
    def last_step(self) -> int | None:
        ends = [steps for steps in (self.max_steps, self.lr_anneal_steps) if steps]
        return min(ends, default=None)

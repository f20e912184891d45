"""The process that is trained, and which of its steps are visited."""

from dataclasses import dataclass

from .option import option


@dataclass(frozen=True)
class DiffusionConfig:
    diffusion_steps: int = option(1000, "steps of the training process, T", least=1)
    noise_schedule: str = option("linear", "betas of the process", ("linear", "cosine"))
    learn_sigma: bool = option(False, "the network also predicts the variance")
    prediction: str = option("eps", "what the network predicts", ("eps", "x_start", "v"))
    predict_xstart: bool = option(False, "the tradition's name for --prediction x_start", compat=True)
    sigma_small: bool = option(False, "fixed variance: the posterior's instead of beta", compat=True)
    use_kl: bool = option(False, "train on the variational bound instead of the squared error", compat=True)
    rescale_timesteps: bool = option(False, "tell the network t * 1000 / T", compat=True)
    rescale_learned_sigmas: bool = option(False, "weigh the bound by T / 1000 beside the squared error", compat=True)
    timestep_respacing: str = option("", "steps to keep: 250, 10,15,20, ddim25 or logsnr20; empty: all", compat=True)

    @property
    def predicted(self) -> str:
        if self.predict_xstart and self.prediction == "v":
            raise ValueError("--predict_xstart True contradicts --prediction v")
        return "x_start" if self.predict_xstart else self.prediction

"""The Gaussian diffusion: q adds noise, a network gives p, and the losses compare both (arXiv 2006.11239)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .losses import discretised_gaussian_log_likelihood, normal_kl
from .prediction import TARGETS, X_START_FROM, eps_from_x_start
from .schedules import kept_timesteps, named_betas

Model = Callable[..., Tensor]
VARIANCES = ("fixed_small", "fixed_large", "learned_range")
LOSSES = ("mse", "rescaled_mse", "rescaled_kl")


@dataclass(frozen=True)
class PMeanVariance:
    """One step of p(x_{t-1} | x_t), every field (B, C, H, W)."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    x_start: Tensor


@dataclass(frozen=True)
class GaussianDiffusion:
    """A discrete diffusion of T steps (arXiv 2006.11239, 2102.09672); immutable, so it can be shared and respaced.

    betas (T,) float64; timesteps (T,) int64: the network's input at each step, in steps of the original process,
    multiplied by 1000 / num_original_steps with `rescale_timesteps`.
    """

    betas: np.ndarray
    timesteps: np.ndarray
    num_original_steps: int
    prediction: str = "eps"
    variance: str = "fixed_large"
    loss: str = "mse"
    rescale_timesteps: bool = False
    device: torch.device | str = "cpu"

    def __post_init__(self):
        assert self.prediction in X_START_FROM and self.variance in VARIANCES and self.loss in LOSSES

    @classmethod
    def create(cls, noise_schedule: str, num_steps: int, **settings) -> "GaussianDiffusion":
        """Make the process of all `num_steps` of a named schedule."""
        return cls(named_betas(noise_schedule, num_steps), np.arange(num_steps), num_steps, **settings)

    @property
    def num_timesteps(self) -> int:
        return len(self.betas)

    @property
    def learns_variance(self) -> bool:
        return self.variance == "learned_range"

    def to(self, device) -> "GaussianDiffusion":
        return replace(self, device=device)

    @cached_property
    def tables(self) -> dict[str, np.ndarray]:
        """Float64 constants of each step (T,), in the papers' names."""
        alphas_cumprod = np.cumprod(1.0 - self.betas)
        previous = np.append(1.0, alphas_cumprod[:-1])
        posterior_variance = self.betas * (1.0 - previous) / (1.0 - alphas_cumprod)
        # The posterior of the first step is a point: its logarithm takes the second step's value.
        second = posterior_variance[1] if len(self.betas) > 1 else self.betas[0]
        clipped = np.append(second, posterior_variance[1:])
        return {
            "alphas_cumprod": alphas_cumprod,
            "alphas_cumprod_prev": previous,
            "signal": np.sqrt(alphas_cumprod),
            "sigma": np.sqrt(1.0 - alphas_cumprod),
            "log_noise_variance": np.log(1.0 - alphas_cumprod),
            "log_betas": np.log(self.betas),
            "posterior_variance": posterior_variance,
            "posterior_log_variance_clipped": np.log(clipped),
            "posterior_mean_coef1": self.betas * np.sqrt(previous) / (1.0 - alphas_cumprod),
            "posterior_mean_coef2": (1.0 - previous) * np.sqrt(1.0 - self.betas) / (1.0 - alphas_cumprod),
            "fixed_large_log_variance": np.log(np.append(clipped[0], self.betas[1:])),
        }

    @cached_property
    def _device_tables(self) -> dict[str, Tensor]:
        # Copied to the device once, not once per call.
        tables = {name: torch.tensor(table, dtype=torch.float32) for name, table in self.tables.items()}
        timesteps = torch.tensor(self.timesteps)
        if self.rescale_timesteps:
            timesteps = (timesteps.double() * (1000.0 / self.num_original_steps)).float()
        tables["model_timesteps"] = timesteps
        return {name: table.to(self.device) for name, table in tables.items()}

    def at(self, name: str, t: Tensor) -> Tensor:
        """Look a table up at steps t (B,)."""
        return self._device_tables[name][t].view(-1, 1, 1, 1)  # B 1 1 1

    def model_timesteps(self, t: Tensor) -> Tensor:
        """The network's timesteps (B,) for steps t (B,) of this process."""
        return self._device_tables["model_timesteps"][t]

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Draw x_t ~ q(x_t | x_0) by the given standard normal noise (arXiv 2006.11239, eq. 4)."""
        return self.at("signal", t) * x_start + self.at("sigma", t) * noise  # B C H W

    def q_posterior_mean(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The mean of q(x_{t-1} | x_t, x_0) (arXiv 2006.11239, eq. 7)."""
        return self.at("posterior_mean_coef1", t) * x_start + self.at("posterior_mean_coef2", t) * x_t  # B C H W

    def x_start_of(self, mean_output: Tensor, x_t: Tensor, t: Tensor, clip_denoised: bool) -> Tensor:
        """The clean image (B, C, H, W) that the network's mean channels stand for; clipped to [-1, 1] on demand."""
        x_start = X_START_FROM[self.prediction](x_t, mean_output, self.at("signal", t), self.at("sigma", t))
        return x_start.clamp(-1, 1) if clip_denoised else x_start

    def eps_of(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise that leads from x_start to x_t."""
        return eps_from_x_start(x_t, x_start, self.at("signal", t), self.at("sigma", t))

    def denoise(self, output: Tensor, x_t: Tensor, t: Tensor, clip_denoised: bool = True) -> Tensor:
        """The clean image (B, C, H, W) by the network's output for x_t; `clip_denoised` clamps it to [-1, 1]."""
        return self.x_start_of(self.split(output, x_t)[0], x_t, t, clip_denoised)

    def p_mean_variance(self, output: Tensor, x_t: Tensor, t: Tensor, clip_denoised: bool = True) -> PMeanVariance:
        """p(x_{t-1} | x_t) by the network's output for x_t; `clip_denoised` clamps its clean image to [-1, 1]."""
        mean_output, variance_output = self.split(output, x_t)
        log_variance = self._log_variance(variance_output, t).expand_as(x_t)
        x_start = self.x_start_of(mean_output, x_t, t, clip_denoised)
        variance = log_variance.exp()
        if self.variance == "fixed_small":  # the posterior of the first step is a point, which has no logarithm
            variance = self.at("posterior_variance", t).expand_as(x_t)
        return PMeanVariance(self.q_posterior_mean(x_start, x_t, t), variance, log_variance, x_start)

    def split(self, output: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """Part the network's output, in float32, into C mean channels and C variance channels (none if not learned)."""
        C = x_t.shape[1]
        assert output.shape[1] == (2 * C if self.learns_variance else C), (
            "network and diffusion disagree on learn_sigma"
        )
        output = output.float()
        return output[:, :C], output[:, C:]

    def _log_variance(self, variance_output: Tensor, t: Tensor) -> Tensor:
        smallest = self.at("posterior_log_variance_clipped", t)
        if self.variance == "fixed_small":
            return smallest
        if self.variance == "fixed_large":
            return self.at("fixed_large_log_variance", t)
        share = (variance_output + 1) / 2  # arXiv 2102.09672, eq. 15
        return share * self.at("log_betas", t) + (1 - share) * smallest

    def training_losses(
        self, model: Model, x_start: Tensor, t: Tensor, noise: Tensor, model_kwargs: dict | None = None
    ) -> dict[str, Tensor]:
        """Compute the loss (B,), and its terms mse and vb (B,) where they exist, by one network call."""
        x_t = self.q_sample(x_start, t, noise)
        output = model(x_t, self.model_timesteps(t), **(model_kwargs or {}))
        if self.loss == "rescaled_kl":
            return {"loss": self.vb_terms(output, x_start, x_t, t, clip_denoised=False) * self.num_timesteps}

        mean_output, variance_output = self.split(output, x_t)
        target = TARGETS[self.prediction](x_start, noise, self.at("signal", t), self.at("sigma", t))
        mse = mean_flat((target - mean_output) ** 2)  # B
        if not self.learns_variance:
            return {"loss": mse, "mse": mse}
        # The bound teaches the variance alone; the mean learns from the squared error (arXiv 2102.09672, eq. 16).
        frozen = torch.cat([mean_output.detach(), variance_output], dim=1)  # B 2C H W
        vb = self.vb_terms(frozen, x_start, x_t, t, clip_denoised=False)  # B
        if self.loss == "rescaled_mse":
            vb = vb * (self.num_timesteps / 1000.0)
        return {"loss": mse + vb, "mse": mse, "vb": vb}

    def vb_terms(self, output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor, clip_denoised: bool = True) -> Tensor:
        """L_t of the variational bound in bits per dimension (B,); the decoder's likelihood where t = 0."""
        true_mean = self.q_posterior_mean(x_start, x_t, t)  # B C H W
        true_log_variance = self.at("posterior_log_variance_clipped", t)  # B 1 1 1
        p = self.p_mean_variance(output, x_t, t, clip_denoised)
        kl = mean_flat(normal_kl(true_mean, true_log_variance, p.mean, p.log_variance)) / math.log(2.0)
        nll = -mean_flat(discretised_gaussian_log_likelihood(x_start, p.mean, 0.5 * p.log_variance)) / math.log(2.0)
        return torch.where(t == 0, nll, kl)

    def prior_bpd(self, x_start: Tensor) -> Tensor:
        """KL(q(x_T | x_0) || N(0, I)) in bits per dimension (B,)."""
        last = torch.full((len(x_start),), self.num_timesteps - 1, device=x_start.device)
        mean, log_variance = self.at("signal", last) * x_start, self.at("log_noise_variance", last)
        zero = torch.zeros((), device=x_start.device)
        return mean_flat(normal_kl(mean, log_variance, zero, zero)) / math.log(2.0)


def mean_flat(x: Tensor) -> Tensor:
    """The mean over everything but the batch."""
    return x.flatten(1).mean(dim=1)


def respace(diffusion: GaussianDiffusion, respacing: str, flag: str = "timestep_respacing") -> GaussianDiffusion:
    """Make the process that visits some steps of `diffusion` only (schedules.kept_timesteps), with its marginals."""
    alphas_cumprod = np.cumprod(1.0 - diffusion.betas)
    kept = kept_timesteps(alphas_cumprod, respacing, flag)
    previous = np.append(1.0, alphas_cumprod[kept][:-1])
    return replace(diffusion, betas=1.0 - alphas_cumprod[kept] / previous, timesteps=diffusion.timesteps[kept])

"""The steps t to train on: uniform, or more often where the loss is large."""

import numpy as np
import torch
from torch import Tensor


class UniformSampler:
    """Every step equally often."""

    learns = False  # from losses, of all processes

    def __init__(self, num_timesteps: int):
        self.num_timesteps = num_timesteps

    def sample(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Steps (B,) for numbers (B,) in [0, 1), and the importance weights (B,) that keep the mean loss unbiased."""
        return (draws * self.num_timesteps).long(), torch.ones(len(draws))

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Uniform sampling learns nothing from losses."""

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        assert not state


class LossSecondMomentSampler(UniformSampler):
    """p(t) ~ sqrt(E[L_t^2]) over each step's last losses, with a little uniform probability (arXiv 2102.09672, eq. 18).

    Uniform until every step has seen `history_per_term` losses.
    """

    learns = True

    def __init__(self, num_timesteps: int, history_per_term: int = 10, uniform_share: float = 0.001):
        super().__init__(num_timesteps)
        self.uniform_share = uniform_share
        self.history = torch.zeros(num_timesteps, history_per_term, dtype=torch.float64)
        self.counts = torch.zeros(num_timesteps, dtype=torch.long)

    def probabilities(self) -> np.ndarray:
        """p(t) for every step (T,)."""
        uniform = np.full(self.num_timesteps, 1 / self.num_timesteps)
        if (self.counts < self.history.shape[1]).any():
            return uniform
        root = self.history.pow(2).mean(dim=1).sqrt().numpy()
        if not root.sum() > 0:
            return uniform
        return (1 - self.uniform_share) * root / root.sum() + self.uniform_share * uniform

    def sample(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        p = torch.from_numpy(self.probabilities())
        t = torch.searchsorted(p.cumsum(0), draws, right=True).clamp(max=self.num_timesteps - 1)
        return t, (1 / (self.num_timesteps * p[t])).float()

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Keep the unweighted losses (B,) of steps t (B,), instead of the oldest ones."""
        for step, loss in zip(t.tolist(), losses.tolist(), strict=True):
            if not np.isfinite(loss):
                continue
            self.history[step] = torch.cat([self.history[step, 1:], self.history.new_tensor([loss])])
            self.counts[step] = min(int(self.counts[step]) + 1, self.history.shape[1])

    def state_dict(self) -> dict:
        return {"history": self.history.clone(), "counts": self.counts.clone()}

    def load_state_dict(self, state: dict) -> None:
        self.history, self.counts = state["history"], state["counts"]


TIMESTEP_SAMPLERS = {"uniform": UniformSampler, "loss-second-moment": LossSecondMomentSampler}

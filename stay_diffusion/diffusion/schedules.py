"""Noise schedules by name, and which of their steps to keep."""

import math

import numpy as np


def linear_betas(num_steps: int) -> np.ndarray:
    """DDPM's schedule (arXiv 2006.11239), scaled so that any number of steps spans the same noise levels."""
    scale = 1000 / num_steps
    return np.linspace(scale * 1e-4, scale * 0.02, num_steps, dtype=np.float64)


def cosine_betas(num_steps: int) -> np.ndarray:
    """Improved DDPM's schedule (arXiv 2102.09672, eq. 17), each beta at most 0.999."""

    def alpha_bar(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array(
        [min(1 - alpha_bar((i + 1) / num_steps) / alpha_bar(i / num_steps), 0.999) for i in range(num_steps)]
    )


SCHEDULES = {"linear": linear_betas, "cosine": cosine_betas}


def named_betas(name: str, num_steps: int) -> np.ndarray:
    """The T betas (float64) of a schedule; ValueError for an unknown name or betas outside (0, 1)."""
    if name not in SCHEDULES:
        raise ValueError(f"--noise_schedule {name}: choose one of {', '.join(SCHEDULES)}")
    betas = SCHEDULES[name](num_steps)
    if not ((betas > 0) & (betas < 1)).all():
        raise ValueError(f"--diffusion_steps {num_steps}: too few for the {name} schedule (a beta reaches 1)")
    return betas


def kept_timesteps(alphas_cumprod: np.ndarray, respacing: str, flag: str = "timestep_respacing") -> list[int]:
    """The steps that a respacing keeps, ascending, out of those of a schedule.

    "" keeps all; "250" splits all steps into one section and keeps 250 evenly; "10,15,20" does so per equal section;
    "ddim25" strides by a whole number of steps, as DDIM does (arXiv 2010.02502); "logsnr20" keeps 20 steps as even
    in log signal-to-noise as whole steps allow (DPM-Solver, arXiv 2206.00927), ends included.
    """
    num_steps = len(alphas_cumprod)
    try:
        if respacing == "":
            return list(range(num_steps))
        if respacing.startswith("logsnr"):
            return _even_in_log_snr(alphas_cumprod, int(respacing.removeprefix("logsnr")))
        if respacing.startswith("ddim"):
            return _strided(num_steps, int(respacing.removeprefix("ddim")))
        return _sections(num_steps, [int(count) for count in respacing.split(",")])
    except ValueError as error:
        raise ValueError(f"--{flag} {respacing}: {_reason(error)} (of {num_steps} steps)") from None


def _reason(error: ValueError) -> str:
    return "expects 250, 10,15,20, ddim25 or logsnr20" if "invalid literal" in str(error) else str(error)


def _sections(num_steps: int, counts: list[int]) -> list[int]:
    """Keep even steps inside each of len(counts) sections; the first sections are longer where T does not divide."""
    kept, start = [], 0
    for i, count in enumerate(counts):
        length = num_steps // len(counts) + (i < num_steps % len(counts))
        if not 1 <= count <= length:
            raise ValueError(f"cannot keep {count} steps of a section of {length}")
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0
        for _ in range(count):  # running sum, as the predecessors have it: exact halves round the same way
            kept.append(start + round(position))
            position += stride
        start += length
    return kept


def _strided(num_steps: int, count: int) -> list[int]:
    for stride in range(1, num_steps + 1):
        if len(range(0, num_steps, stride)) == count:
            return list(range(0, num_steps, stride))
    raise ValueError(f"no whole stride gives {count} steps")


def _even_in_log_snr(alphas_cumprod: np.ndarray, count: int) -> list[int]:
    num_steps = len(alphas_cumprod)
    if not 1 <= count <= num_steps:
        raise ValueError(f"cannot keep {count} steps")
    log_snr = np.log(alphas_cumprod) - np.log1p(-alphas_cumprod)  # falls with t
    wanted = np.linspace(log_snr[-1], log_snr[0], count)
    nearest = np.abs(log_snr[None, :] - wanted[:, None]).argmin(axis=1)[::-1] if count > 1 else [num_steps - 1]
    # Near t = 0 one step spans more than the wanted spacing: push doubles apart so that `count` steps remain.
    kept = [max(int(t), i) for i, t in enumerate(nearest)]
    for i in range(1, count):
        kept[i] = max(kept[i], kept[i - 1] + 1)
    for i in reversed(range(count)):
        kept[i] = min(kept[i], num_steps - count + i)
    return kept

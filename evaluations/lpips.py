"""The same as `stay-diffusion lpips`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("lpips")

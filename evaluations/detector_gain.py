"""The same as `stay-diffusion gain`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("gain")

"""The same as `stay-diffusion browse`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("browse")

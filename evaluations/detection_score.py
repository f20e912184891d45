"""The same as `stay-diffusion score`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("score")

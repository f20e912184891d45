"""The same as `stay-diffusion evaluate`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("evaluate")

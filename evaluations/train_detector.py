"""The same as `stay-diffusion detector`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("detector")

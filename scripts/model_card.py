"""The same as `stay-diffusion card`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("card")

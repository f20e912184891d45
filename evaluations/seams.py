"""The same as `stay-diffusion seams`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("seams")

"""The same as `stay-diffusion features`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("features")

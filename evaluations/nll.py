"""The same as `stay-diffusion nll`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("nll")

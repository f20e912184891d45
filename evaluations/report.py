"""The same as `stay-diffusion report`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("report")

"""The same as `stay-diffusion check`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("check")

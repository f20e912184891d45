"""The same as `stay-diffusion copy-paste`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("copy-paste")

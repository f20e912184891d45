"""The same as `stay-diffusion synthetic`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("synthetic")

"""The same as `stay-diffusion box-adherence`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("box-adherence")

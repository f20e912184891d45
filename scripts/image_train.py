"""The same as `stay-diffusion train`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("train")

"""The same as `stay-diffusion merge`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("merge")

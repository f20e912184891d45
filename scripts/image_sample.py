"""The same as `stay-diffusion sample`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("sample")

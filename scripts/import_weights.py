"""The same as `stay-diffusion import-weights`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("import-weights")

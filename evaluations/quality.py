"""The same as `stay-diffusion quality`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("quality")

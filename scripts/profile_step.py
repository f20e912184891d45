"""The same as `stay-diffusion profile`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("profile")

"""The same as `stay-diffusion fid`."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("fid")

"""The same as `stay-diffusion fid`; path1 and path2 are compared where the command line names no paths."""

from stay_diffusion.commands import run

if __name__ == "__main__":
    run("fid", path1="", path2="")

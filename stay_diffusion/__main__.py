"""python -m stay_diffusion COMMAND: the same as the command stay-diffusion."""

from .commands import main

if __name__ == "__main__":
    main()

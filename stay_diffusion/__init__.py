"""Layout-to-image diffusion for defect pictures: data -> models -> diffusion -> training -> sampling -> evaluation."""

__version__ = "0.1.0"

"""NanoBanana: an image-generation API platform that anyone can run."""

__version__ = "0.2.0"

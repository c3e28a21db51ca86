"""NanoBanana: an image-generation API platform that anyone can run."""

"""`python -m app.cli`, which is `nanobanana` where the package is not installed."""

from app.cli import main

main()

"""`python -m meshcall`: the same as the command `meshcall`."""

from meshcall.cli import main

main()

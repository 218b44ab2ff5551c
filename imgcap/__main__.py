"""`python -m imgcap`, and so `torchrun -m imgcap train` and `deepspeed --module imgcap train`."""

from imgcap.commands.main import main

if __name__ == "__main__":
    main()

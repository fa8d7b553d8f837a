"""Which clients each account uses, and how they connect: what is known before something is changed for all of them."""

"""The ledger of imported images: which batch each came in, and what happened to it."""

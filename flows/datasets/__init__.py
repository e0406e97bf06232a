"""The data-set catalog: what is known, how it is obtained, who is in it."""

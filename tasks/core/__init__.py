"""Code shared by two or more packages of `tasks`; imports none of them."""

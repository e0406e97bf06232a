"""One self-contained page that says what was found, on which images, and how it was made."""

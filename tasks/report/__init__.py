"""One self-contained page that says what was found, on which pictures, and how it was made."""

"""Parts of an HTML page."""

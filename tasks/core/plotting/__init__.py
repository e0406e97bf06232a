"""Style of figures, grids of faces and HTML pages."""

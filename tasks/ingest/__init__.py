"""Import of images: intake of folders and batches, download of open data sets, the manifest."""

"""Training the base recogniser, and fine-tuning it on a group."""

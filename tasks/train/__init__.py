"""Training the base recognizer, and fine-tuning it on a group."""

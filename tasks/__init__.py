"""What affectgap does: one room a stage, and `core` for what two rooms share."""

"""The training engine that train, finetune, interpolate and choose share."""

"""Stage 4: finds the face in each image and crops it."""

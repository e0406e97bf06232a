"""Where on the face a model looks: LIME on pictures that it reads correctly."""

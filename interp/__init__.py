"""interp: train sparse autoencoders on a model's activations, and see, search, name and steer their features."""

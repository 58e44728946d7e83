"""What computes a behaviour: parts of a model, their effects on each other and on the logits."""

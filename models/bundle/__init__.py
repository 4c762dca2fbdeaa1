"""A trained model as one folder of weights, configuration, reference, golden batch and report."""

"""Model bundles: folders of weights, configuration, reference, golden batch and report."""

"""The paper's experiments: data sets, protocols, published numbers, tables."""

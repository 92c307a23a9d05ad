"""The paper's experiments: protocols, published values, and the programme that runs them."""

"""CLIP's towers, its tokenizer, and weights from elsewhere."""

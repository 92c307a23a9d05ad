"""Images and tokens to embeddings: the encoder, its files in every format, its tokenizer."""

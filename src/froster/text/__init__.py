"""Labels, prompts and their embeddings."""

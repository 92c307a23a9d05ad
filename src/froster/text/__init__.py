"""Class names to prompts, prompts to class embeddings."""

"""Labels to prompts to class embeddings."""

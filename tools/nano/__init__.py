"""What makes the nano encoder that froster brings along: its captions, vocabulary and pretraining."""

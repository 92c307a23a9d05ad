"""What is wrong with video files, before a long run finds out: every frame decoded once, every finding with its reason."""

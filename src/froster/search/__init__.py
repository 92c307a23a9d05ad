"""Finding moments in many videos by what they show: embeddings of segments on disk, compared one and all."""

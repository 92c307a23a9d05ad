"""Which label when: over a whole video (`timeline`), or over a source that never ends (`watch`)."""

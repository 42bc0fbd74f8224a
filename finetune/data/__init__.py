"""From a publisher's files to prepared windows: download, cache, hand out."""

"""Values become sentences, pages and figures: for a terminal, a browser and a paper."""

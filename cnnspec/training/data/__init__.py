"""Where samples come from, and in which order which process gets them."""

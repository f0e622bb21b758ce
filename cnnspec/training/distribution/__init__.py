"""One run in several processes: started, placed, and made to add up."""

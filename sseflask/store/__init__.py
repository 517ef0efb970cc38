"""What is kept: the events of channels and the frames of runs, on one machine or several."""

"""What both stages of training share: models opened and saved, the run folder, callbacks, optimisers."""
